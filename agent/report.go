package agent

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/status"
	"ntsagent/ntske/keyring"
)

// document gathers what the parts know into what an operator sees.
func (a *agent) document(now time.Time) status.Document {
	p, outcome := a.parts.Load(), a.outcome.Load()
	d := status.Document{
		Schema: status.Schema, Time: now,
		Agent: status.Agent{
			Version: a.Version, PID: os.Getpid(), Started: a.started, Config: a.ConfigPath,
			ReloadError: outcome.err, Reloaded: outcome.ok,
		},
		Certificates: p.certs.report(),
		KeyExchange:  a.counts.Snapshot(now),
		Daemon:       a.reportDaemon(p, now),
		Keys:         p.keys.report(),
		Listeners:    a.listeners(p),
		Exports:      p.exports.report(),
		LastErrors:   a.events.List(),
	}
	d.KeyExchange.Allow, d.KeyExchange.Announces, d.Warnings = p.decides(), announced(p.cfg.KE.NTP), slices.Concat(a.notTaken, p.warnings)
	if outcome.doubt != "" {
		d.Warnings = append(d.Warnings, outcome.doubt)
	}
	return d.Judged(now)
}

// announced is the NTP server that the operator has clients told of, or "".
func announced(ntp config.NTP) string {
	switch {
	case ntp.Port == 0:
		return ntp.Host
	case ntp.Host == "":
		return fmt.Sprintf("port %d", ntp.Port)
	}
	return fmt.Sprintf("%s port %d", ntp.Host, ntp.Port)
}

func (c *certs) report() []status.Certificate {
	var out []status.Certificate
	for _, m := range c.managers {
		s := m.State()
		cert := status.Certificate{
			Name: s.Name, Source: c.source, Profile: c.profile, Issuer: s.Issuer, Fallback: s.Fallback, Serial: s.Serial, Fingerprint: s.Fingerprint,
			NotBefore: s.NotBefore, NotAfter: s.NotAfter, RenewAt: s.RenewAt, RenewWhy: s.RenewWhy, Revoked: s.Revoked,
			OrderingSince: s.OrderingSince, LastSuccess: s.LastSuccess, LastError: nameless(s.Name, s.LastError), LastHint: s.LastHint,
			Failures: s.Failures, NextAttempt: s.NextAttempt, Condition: string(s.Condition), Why: s.Why, Since: s.Since, DNSNote: s.Note,
		}
		if s.Imported {
			cert.Source, cert.Profile = status.SourceImported, ""
		}
		for _, f := range s.Faults {
			cert.WebServer = append(cert.WebServer, status.Fault{What: f.What, Fix: f.Hint})
		}
		out = append(out, cert)
	}
	for _, f := range c.files {
		s := f.state.Load()
		cert := status.Certificate{
			Name: f.files.Name.String(), Source: c.source,
			LastSuccess: s.installed, LastError: s.err, Failures: s.failures,
		}
		if leaf := c.live.Leaf(f.files.Name); leaf != nil {
			cert.Issuer, cert.Serial = leaf.Issuer.CommonName, leaf.SerialNumber.Text(16)
			cert.Fingerprint = fmt.Sprintf("%x", sha256.Sum256(leaf.Raw))
			cert.NotBefore, cert.NotAfter = leaf.NotBefore, leaf.NotAfter
		}
		out = append(out, cert)
	}
	return out
}

func (k *keys) report() status.Keys {
	s := k.ring.State()
	out := status.Keys{Mode: s.Mode, State: string(s.Standing), ProvenAt: s.ProvenAt, NextRotation: s.NextRotation, Why: s.Why}
	if out.Why == "" && s.LastError != "" && s.Pending {
		out.Why = s.LastError
	}
	for _, h := range s.Held {
		key := status.Key{ID: fmt.Sprintf("%08x", h.ID), Fingerprint: h.Fingerprint}
		out.Held = append(out.Held, key)
		switch {
		case s.Minting && h.ID == s.Current:
			out.Current = key
		case s.Mode == "lead" && h.ID == s.Next: // who follows knows none, and 0 is a number like any other
			out.Next = key
		}
	}
	return out
}

func (k *keys) reportDaemon() status.Daemon {
	d := status.Daemon{Kind: k.kind, Address: k.address.String()}
	s := k.ring.State()
	if s.Standing == keyring.Unseen {
		d.LastError = s.Why
	}
	if !s.ProvenAt.IsZero() {
		for _, alg := range k.opens() {
			d.Opens = append(d.Opens, uint16(alg))
		}
	}
	if seen := k.seen.Load(); seen != nil {
		h := seen.reply.Header
		d.Seen, d.Known, d.Stratum = seen.at, true, int(h.Stratum)
		d.Synchronised = h.Leap != 3 && h.Stratum >= 1 && h.Stratum <= 15
		d.OffsetMS = float64(seen.reply.Offset.Microseconds()) / 1000
	}
	return d
}

// reportDaemon asks the gateway, if there is one, what it knows of the daemon
// behind: that is newer than the last answer to a query of ours.
func (a *agent) reportDaemon(p *parts, now time.Time) status.Daemon {
	d := p.keys.reportDaemon()
	if p.keys.kind == config.KindChrony && !p.cfg.Daemon.ServesKE() {
		d.Faults = daemon.ChronyTarget(p.target.Chronyd).Faults() // as they are now
	}
	if c := p.chosen; c != nil {
		d.Auto = &status.Auto{Found: c.found, Why: c.why}
	}
	if g := p.gateway; g != nil {
		g.report(&d)
		d.Gateway.RequestsDay, d.Gateway.SilentDay = a.traffic.day(g, now)
		d.LastError = "" // which the cookie keys tell
	}
	return d
}

func (a *agent) listeners(p *parts) []status.Listener {
	out := p.gateway.listeners()
	doors := p.certs.doors
	if p.ke != nil {
		doors = append([]*door{p.ke.door}, doors...)
	}
	for _, d := range doors {
		open := a.book.addresses(d.purpose)
		for _, addr := range open {
			out = append(out, status.Listener{Service: d.purpose, Address: addr, Open: true})
		}
		for _, addr := range d.asked {
			why := d.reasonAt(addr)
			if len(open) > 0 && why == "" {
				continue
			}
			withheld := why != ""
			if !withheld {
				why = d.reason()
			}
			out = append(out, status.Listener{Service: d.purpose, Address: addr.String(), Reason: why, Withheld: withheld})
		}
	}
	return out
}
