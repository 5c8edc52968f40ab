package status

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// renewalOverdue is how much of a certificate's life may be left before a
// renewal that has not happened worries someone: a quarter.
const renewalOverdue = 4

// expirySoon is when an expiry worries someone whatever the life was.
const expirySoon = 48 * time.Hour

// missingLong is how long a name may be missing before that worries someone though
// it is not confirmed, which takes little more than an hour.
const missingLong = 2 * time.Hour

// Judge decides the state of d as of now and why. It is pure and ignores
// d.State and d.Reasons. What hurts clients outranks a daemon without time, and
// that outranks what merely wants a look; all reasons are given, worst first.
func Judge(d Document, now time.Time) (State, []string) {
	var hurt, look, unsynchronised []string
	valid := 0
	for _, c := range d.Certificates {
		if c.Valid(now) {
			valid++
		}
		why := judgeCertificate(c, now)
		if why != "" {
			look = append(look, why)
		}
		for _, f := range c.WebServer {
			if !strings.Contains(why, f.What) { // else it is why the order failed
				look = append(look, "web server: "+f.What)
			}
		}
	}
	switch {
	case valid > 0:
	case d.Keys.Mode == ModeCertificate:
		hurt = append(hurt, "no valid certificate for the daemon to serve")
	default:
		hurt = append(hurt, "no valid certificate, the key exchange is closed")
	}
	exportsHurt, exportsLook := judgeExports(d, valid > 0)
	hurt, look = append(hurt, exportsHurt...), append(look, exportsLook...)
	switch d.Keys.State {
	case KeysNone:
	case KeysProven:
		if d.Daemon.Gateway.mute() { // which the next look at the keys will tell
			hurt = append(hurt, "the gateway answers nobody: the time of the NTP server behind is "+d.Daemon.Gateway.Condition)
		}
		if d.Keys.Mode == "follow" && d.Keys.Why != "" { // what is proven serves, but not for ever
			look = append(look, "cookie keys: "+d.Keys.Why)
		}
		for _, fault := range d.Daemon.Faults { // else the keys tell it
			look = append(look, "daemon: "+fault)
		}
	case KeysUnseen:
		switch why := because(d.Keys.Why); {
		case d.Keys.Mode != "own":
			look = append(look, "cookie keys: cannot see the daemon from here"+why)
		case d.Daemon.Gateway.mute():
			hurt = append(hurt, "the gateway does not answer"+why)
		case d.closed(ServiceNTP): // which the listeners tell
		default:
			look = append(look, "the gateway does not answer"+why)
		}
	case KeysRefused:
		by := "daemon"
		if d.Keys.Mode == "own" {
			by = "gateway"
		}
		hurt = append(hurt, "cookie keys: refused by the "+by+because(d.Keys.Why))
	default:
		hurt = append(hurt, "cookie keys: not proven yet"+because(d.Keys.Why))
	}
	served := len(open(d.Listeners, ServiceKE)) > 0
	for _, l := range d.Listeners {
		switch {
		case l.Open:
		case l.Service == ServiceNTP && d.closed(ServiceNTP):
			hurt = append(hurt, fmt.Sprintf("listener %s %s is closed%s", l.Service, l.Address, because(l.Reason)))
		case l.Service != ServiceKE, l.Withheld && served:
			look = append(look, fmt.Sprintf("listener %s %s is closed%s", l.Service, l.Address, because(l.Reason)))
		case valid > 0: // without a certificate it is closed on purpose, and said above
			hurt = append(hurt, fmt.Sprintf("listener %s %s is closed%s", l.Service, l.Address, because(l.Reason)))
		}
	}
	if d.Daemon.LastError != "" && d.Daemon.LastError != d.Keys.Why { // else the keys have told it
		look = append(look, "daemon: "+d.Daemon.LastError)
	}
	if d.Daemon.Known && !d.Daemon.Synchronised {
		unsynchronised = append(unsynchronised, "the daemon is not synchronised, see its own sources")
	}
	if why := d.Daemon.Gateway.judge(d.Daemon.Address, now); why != "" {
		look = append(look, why)
	}
	if d.Agent.ReloadError != "" {
		look = append(look, "the last reload changed nothing: "+d.Agent.ReloadError)
	}
	reasons := append(append(hurt, unsynchronised...), look...)
	switch {
	case len(hurt) > 0:
		return Unhealthy, reasons
	case len(unsynchronised) > 0:
		return NotSynchronised, reasons
	case len(look) > 0:
		return Degraded, reasons
	}
	return Healthy, nil
}

// closed says that a service is to listen somewhere and does nowhere.
func (d Document) closed(service string) bool {
	return len(open(d.Listeners, service)) == 0 && slices.ContainsFunc(d.Listeners, func(l Listener) bool { return l.Service == service })
}

// judgeCertificate says why someone should look at c, "" when nobody needs to.
func judgeCertificate(c Certificate, now time.Time) string {
	left := c.NotAfter.Sub(now)
	life := c.NotAfter.Sub(c.NotBefore)
	cause := because(c.LastError)
	if c.Why != "" {
		cause = because(c.Why)
	}
	switch {
	case c.Condition == ConditionClock:
		return fmt.Sprintf("certificate %s: the clock is not believed%s", c.Name, cause)
	case c.Condition == ConditionCeased:
		return fmt.Sprintf("certificate %s: none any more%s", c.Name, because(c.Why))
	case c.Revoked != "":
		return fmt.Sprintf("certificate %s: revoked (%s), serves until another is there%s", c.Name, c.Revoked, cause)
	case c.NotAfter.IsZero() && !c.OrderingSince.IsZero() && c.LastError == "":
		return "" // the first order takes its time
	case c.NotAfter.IsZero():
		return fmt.Sprintf("certificate %s: none yet%s", c.Name, cause)
	case left <= 0:
		return fmt.Sprintf("certificate %s: expired %s ago%s", c.Name, Span(-left), cause)
	case now.Before(c.NotBefore):
		return fmt.Sprintf("certificate %s: not valid for another %s; check the clock", c.Name, Span(c.NotBefore.Sub(now)))
	case c.barred() && (c.Condition != ConditionMissing || now.Sub(c.Since) >= missingLong):
		return fmt.Sprintf("certificate %s: %s, not renewed, %s left%s", c.Name, c.Condition, Span(left), cause)
	case c.RenewAt.After(c.NotAfter):
		return fmt.Sprintf("certificate %s: over in %s, and no other can be ordered before %s%s", c.Name, Span(left), c.RenewAt.UTC().Format("2006-01-02T15:04Z"), cause)
	case left < expirySoon && left < life/2 || left < life/renewalOverdue:
		return fmt.Sprintf("certificate %s: only %s left%s", c.Name, Span(left), cause)
	case c.Condition == ConditionAuthority, c.Condition == ConditionUnread:
		return fmt.Sprintf("certificate %s: not renewed%s", c.Name, cause)
	case c.Failures == 0 && c.LastError != "":
		return fmt.Sprintf("certificate %s: renewal put off%s", c.Name, because(c.LastError))
	case c.LastError != "":
		return fmt.Sprintf("certificate %s: renewal failed %s, %s left%s", c.Name, times(c.Failures), Span(left), because(c.LastError))
	case c.Fallback:
		return fmt.Sprintf("certificate %s: from the fallback CA, %s left: that of acme.directory has failed for long", c.Name, Span(left))
	}
	return ""
}

// times says how often: once, 2 times.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// Judged completes a Document whose parts are filled: schema, time, state and
// reasons; lists that are empty become empty lists in JSON.
func (d Document) Judged(now time.Time) Document {
	d.Schema, d.Time = Schema, now
	d.State, d.Reasons = Judge(d, now)
	d.Reasons = append([]string{}, d.Reasons...)
	d.Certificates = append([]Certificate{}, d.Certificates...)
	d.Listeners = append([]Listener{}, d.Listeners...)
	d.LastErrors = append([]Event{}, d.LastErrors...)
	d.Keys.Held = append([]Key{}, d.Keys.Held...)
	if d.KeyExchange.Refused == nil {
		d.KeyExchange.Refused = map[string]uint64{}
	}
	return d
}
