package main

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"

	"ntsagent/ntske/client"
)

// writeReport prints a report for people. With several addresses each gets its
// own block under its family.
func writeReport(w io.Writer, r client.Report, colour bool) error {
	var b strings.Builder
	p := screen{&b, colour}
	if len(r.Addresses) > 0 {
		p.line("resolve", joinAddresses(r.Addresses))
	}
	if r.Problem != nil {
		p.line(r.Problem.Step, r.Problem.Text)
	}
	for _, a := range r.Results {
		if len(r.Results) > 1 {
			p.line(familyName(a.Family), a.Address.String())
		}
		p.address(a)
	}
	label, text := verdict(r)
	p.line(label, text)
	_, err := io.WriteString(w, b.String())
	return err
}

// screen writes lines with a label of ten columns.
type screen struct {
	b      *strings.Builder
	colour bool
}

func (p screen) line(label, text string) {
	paint := map[string]string{"OK": "\x1b[32m", "FAIL": "\x1b[31m", "UNKNOWN": "\x1b[33m"}[label]
	if padded := fmt.Sprintf("%-10s", label); p.colour && paint != "" {
		p.b.WriteString(paint + label + "\x1b[0m" + padded[len(label):])
	} else {
		p.b.WriteString(padded)
	}
	p.b.WriteString(text + "\n")
}

func (p screen) address(a client.AddressReport) {
	if t := a.TLS; t != nil {
		p.line("tls", fmt.Sprintf("%s %s, %s, %s, %d d left", t.Version, t.Group, t.Name, t.Issuer, t.DaysLeft))
	}
	if k := a.KE; k != nil {
		host := k.NTPHost
		if host == "" {
			host = "the same address"
		}
		p.line("ntske", fmt.Sprintf("%-91s%.1f ms", fmt.Sprintf("%d cookies of %d B, AEAD %d (%s), NTP at %s, port %d",
			k.Cookies, k.CookieOctets, k.AEAD, k.AEADName, host, k.NTPPort), k.TookMS))
	}
	if n := a.NTP; n != nil && n.Replies > 0 {
		text := fmt.Sprintf("%d authenticated replies (%d with a key-exchange cookie, %d with a refreshed one)", n.Replies, n.KECookies, n.Refreshed)
		if n.Lost > 0 {
			text += fmt.Sprintf(", %d lost", n.Lost)
		}
		p.line("ntp", text)
		p.line("", fmt.Sprintf("stratum %d, refid %s, offset %s, delay %.2f ms", n.Stratum, n.ReferenceID, offset(n.OffsetMS), n.DelayMS))
	}
	if a.Problem != nil {
		p.line(a.Problem.Step, a.Problem.Text)
	}
}

// offset writes what is small in milliseconds and what is large in seconds.
func offset(ms float64) string {
	if math.Abs(ms) < 1000 {
		return fmt.Sprintf("%+.2f ms", ms)
	}
	return fmt.Sprintf("%+.3f s", ms/1000)
}

// verdict is the last line. A family counts as good when all its addresses are.
func verdict(r client.Report) (label, text string) {
	var good, bad, untried []string
	for _, family := range []string{"ipv4", "ipv6"} {
		var seen bool
		var worst client.Fault
		for _, a := range r.Results {
			if a.Family != family {
				continue
			}
			seen = true
			if p := a.Problem; p != nil && (worst == 0 || p.Fault < worst) {
				worst = p.Fault
			}
		}
		switch {
		case !seen:
		case worst == client.Server:
			bad = append(bad, familyName(family))
		case worst == client.Tool:
			untried = append(untried, familyName(family))
		default:
			good = append(good, familyName(family))
		}
	}
	parts := []string{"not authenticated"}
	if len(good) > 0 {
		parts = []string{"authenticated on " + strings.Join(good, " and ")}
	}
	if len(bad) > 0 {
		parts = append(parts, "not on "+strings.Join(bad, " and "))
	}
	if len(untried) > 0 {
		parts = append(parts, "could not try "+strings.Join(untried, " and "))
	}
	if len(good) == 0 && len(parts) > 1 {
		parts = parts[1:]
		parts[0] = strings.Replace(parts[0], "not on", "not authenticated on", 1)
	}
	label = map[client.Fault]string{0: "OK", client.Server: "FAIL", client.Tool: "UNKNOWN"}[r.Fault()]
	return label, strings.Join(parts, ", ")
}

// firstProblem is the one line that --quiet prints.
func firstProblem(r client.Report) string {
	if r.Problem != nil {
		return fmt.Sprintf("check %s: %s", r.Name, r.Problem.Text)
	}
	for _, a := range r.Results {
		if a.Problem != nil && a.Problem.Fault == r.Fault() {
			return fmt.Sprintf("check %s at %s: %s: %s", r.Name, a.Address, a.Problem.Step, a.Problem.Text)
		}
	}
	return fmt.Sprintf("check %s: failed", r.Name)
}

func familyName(family string) string { return strings.Replace(family, "ipv", "IPv", 1) }

func joinAddresses(all []netip.Addr) string {
	var texts []string
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}
