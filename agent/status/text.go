package status

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Text prints d as the one screen of `ntsagent status`. It is pure: all times
// are told relative to d.Time. What the notices tell is not told before them.
func Text(d Document) string {
	var b strings.Builder
	now := d.Time
	names := make([]string, len(d.Certificates))
	for i, c := range d.Certificates {
		names[i] = c.Name
	}
	head := fmt.Sprintf("ntsagent %s   up %s   %s", d.Agent.Version, Span(now.Sub(d.Agent.Started)), strings.Join(names, ", "))
	fmt.Fprintf(&b, "%-69s %s\n", head, d.State)
	for _, c := range d.Certificates {
		line(&b, "Certificate", certificateText(c, len(d.Certificates) > 1, now))
		if told(d, c.LastError) {
			c.LastError = ""
		}
		if told(d, c.Why) {
			c.Why = ""
		}
		line(&b, "", renewalText(c, now))
		line(&b, "", dnsText(c))
		for _, f := range c.WebServer {
			if f.Fix != c.LastHint { // told above
				line(&b, "", "to mend: "+f.Fix)
			}
		}
	}
	line(&b, "Key exchange", keyExchangeText(d))
	line(&b, "Listeners", listenersText(d))
	line(&b, "Daemon", daemonText(d, now))
	if auto := d.Daemon.Auto; auto != nil && !auto.Found {
		line(&b, "", fmt.Sprintf("taken for %s: %s; %s", d.Daemon.Kind, auto.Why, auto.fix(d.Keys.State)))
	}
	if g := d.Daemon.Gateway; g != nil {
		line(&b, "", g.traffic(d))
	}
	line(&b, "Cookie keys", keysText(d.Keys, now))
	if !told(d, d.Keys.Why) {
		line(&b, "", d.Keys.Why)
	}
	notices(&b, d, now)
	return b.String()
}

// fix is what to do about a kind of daemon that was guessed.
func (a *Auto) fix(keys string) string {
	if keys == KeysProven {
		return "it works as one; write daemon.kind so that it stays one"
	}
	return "reload when it runs, or write daemon.kind"
}

// told says that a notice holds why.
func told(d Document, why string) bool {
	return why != "" && slices.ContainsFunc(d.Reasons, func(r string) bool { return strings.Contains(r, why) })
}

// line writes one labelled line; an empty text writes nothing.
func line(b *strings.Builder, label, text string) {
	if text != "" {
		fmt.Fprintf(b, "%-13s %s\n", label, oneLine(text))
	}
}

func certificateText(c Certificate, named bool, now time.Time) string {
	parts := []string{}
	if named {
		parts = append(parts, c.Name)
	}
	switch {
	case c.NotAfter.IsZero():
		return strings.Join(append(parts, "none yet, source "+c.Source), "   ")
	case c.Profile != "":
		parts = append(parts, issuerText(c)+", profile "+c.Profile)
	default:
		parts = append(parts, issuerText(c)+", source "+c.Source)
	}
	life := fmt.Sprintf("%s left of %s", Span(c.NotAfter.Sub(now)), Span(lifetime(c)))
	if !now.Before(c.NotAfter) {
		life = fmt.Sprintf("expired %s ago", Span(now.Sub(c.NotAfter)))
	}
	return strings.Join(append(parts, life), "   ")
}

// lifetime is how long c was issued for. Both its ends count (RFC 5280 section
// 4.1.2.5), and a CA that gives an odd minute away has still meant days.
func lifetime(c Certificate) time.Duration {
	d := c.NotAfter.Sub(c.NotBefore) + time.Second
	if d >= 48*time.Hour {
		return d.Round(time.Hour)
	}
	return d
}

func issuerText(c Certificate) string {
	if c.Fallback {
		return c.Issuer + " (fallback CA)"
	}
	return c.Issuer
}

func renewalText(c Certificate, now time.Time) string {
	var parts []string
	if !c.RenewAt.IsZero() {
		parts = append(parts, "renews "+c.RenewAt.UTC().Format("Jan 02 15:04"))
	}
	ordering := !c.OrderingSince.IsZero()
	if ordering {
		parts = append(parts, "ordering since "+Span(now.Sub(c.OrderingSince)))
	}
	if c.Why != "" {
		parts = append(parts, c.Why)
	}
	if c.Condition == ConditionClock {
		parts = append(parts, fix("set this machine's clock"))
	}
	if c.barred() {
		if c.LastHint != "" {
			parts = append(parts, fix(c.LastHint))
		}
		if !c.NextAttempt.IsZero() {
			parts = append(parts, "looked at again in "+Span(c.NextAttempt.Sub(now)))
		}
		return strings.Join(parts, "   ")
	}
	switch {
	case c.Failures == 0 && c.LastError != "":
		parts = append(parts, "last: put off", c.LastError)
	case c.Failures > 0 || c.LastError != "":
		last := "last: failed " + times(c.Failures)
		if !ordering && !c.NextAttempt.IsZero() {
			last += ", next try in " + Span(c.NextAttempt.Sub(now))
		}
		parts = append(parts, last)
		if c.LastError != "" {
			parts = append(parts, c.LastError)
		}
		if c.LastHint != "" {
			parts = append(parts, fix(c.LastHint))
		}
	case !c.LastSuccess.IsZero() && c.Source == SourceImported:
		parts = append(parts, "imported "+Span(now.Sub(c.LastSuccess))+" ago")
	case !c.LastSuccess.IsZero():
		parts = append(parts, "last: ok, "+Span(now.Sub(c.LastSuccess))+" ago")
	}
	return strings.Join(parts, "   ")
}

// fix marks what to do.
func fix(hint string) string { return "fix: " + hint }

// dnsText tells what the DNS says that deserves a look.
func dnsText(c Certificate) string {
	if c.DNSNote == "" {
		return ""
	}
	return "DNS: " + c.DNSNote
}

func keyExchangeText(d Document) string {
	if d.Keys.Mode == ModeCertificate {
		return servedText(d)
	}
	where := strings.Join(open(d.Listeners, ServiceKE), " ")
	if where == "" {
		where = "closed"
	}
	k := d.KeyExchange
	day := k.ServedDay + k.RefusedDay
	text := fmt.Sprintf("%s   %s sessions/%s", where, grouped(k.ServedDay), window(d))
	if day > 0 {
		text += fmt.Sprintf("   %.1f%% refused", 100*float64(k.RefusedDay)/float64(day))
	}
	if k.P95MS > 0 {
		text += fmt.Sprintf("   p95 %d ms", k.P95MS)
	}
	if k.Announces != "" {
		text += "   announces " + k.Announces
	}
	if k.Allow != "" {
		text += "   by " + k.Allow
	}
	return text
}

// listenersText names the challenge listeners, and every closed one.
func listenersText(d Document) string {
	var parts []string
	for _, l := range d.Listeners {
		switch {
		case !l.Open && told(d, l.Reason):
			parts = append(parts, fmt.Sprintf("%s %s closed", l.Service, l.Address))
		case !l.Open:
			parts = append(parts, fmt.Sprintf("%s %s closed%s", l.Service, l.Address, because(l.Reason)))
		case l.Service != ServiceKE && l.Service != ServiceNTP:
			parts = append(parts, l.Service+" "+l.Address)
		}
	}
	return strings.Join(parts, "   ")
}

func daemonText(doc Document, now time.Time) string {
	d := doc.Daemon
	text := d.Kind + " on " + d.Address
	switch {
	case d.Gateway != nil:
		text = d.Gateway.text(doc)
	case d.Known:
		sync := "NOT synchronised"
		if d.Synchronised {
			sync = "synchronised"
		}
		text += fmt.Sprintf("   stratum %d, %s, offset %+.2f ms", d.Stratum, sync, d.OffsetMS)
	}
	if d.Auto != nil {
		text = "auto: " + text
	}
	if len(d.Opens) > 0 {
		text += "   opens AEAD " + strings.Join(strings.Fields(strings.Trim(fmt.Sprint(d.Opens), "[]")), ", ")
	}
	if d.Seen.IsZero() {
		return text + "   not seen yet"
	}
	return text + "   seen " + Span(now.Sub(d.Seen)) + " ago"
}

func keysText(k Keys, now time.Time) string {
	if k.Mode == ModeCertificate {
		return "the daemon's own, nobody else needs them"
	}
	text := map[string]string{"lead": "we lead", "follow": "we follow", "own": "we own"}[k.Mode]
	if k.Current.ID != "" {
		text += "   current " + k.Current.ID
	}
	if !k.NextRotation.IsZero() {
		text += "   next in " + Span(k.NextRotation.Sub(now))
	}
	text += fmt.Sprintf("   %d held   ", len(k.Held))
	switch {
	case k.State == KeysProven && !k.ProvenAt.IsZero():
		text += "proven by an NTS query " + Span(now.Sub(k.ProvenAt)) + " ago"
	case k.State == KeysUnseen && k.Mode == "own":
		text += "the gateway does not answer"
	case k.State == KeysUnseen:
		text += "cannot see the daemon from here"
	default:
		text += k.State
	}
	return strings.TrimSpace(text)
}

// notices ends the screen: the reasons of the state, then the last errors.
func notices(b *strings.Builder, d Document, now time.Time) {
	if len(d.Reasons)+len(d.Warnings)+len(d.LastErrors) == 0 {
		line(b, "Notices", "none")
		return
	}
	label := "Notices"
	for _, r := range slices.Concat(d.Reasons, d.Warnings) {
		line(b, label, r)
		label = ""
	}
	label = "Last errors"
	for _, e := range d.LastErrors {
		if _, what, ok := strings.Cut(e.What, ": "); ok && told(d, what) {
			continue
		}
		line(b, label, Span(now.Sub(e.Time))+" ago: "+e.What)
		label = ""
	}
}

// Span prints a duration as a person says it, two units at most: 12d 4h, 3h,
// 40s. A negative one is 0s.
func Span(d time.Duration) string {
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.size {
			continue
		}
		whole := fmt.Sprintf("%d%s", d/u.size, u.name)
		if i+1 == len(units) {
			return whole
		}
		if rest := d % u.size / units[i+1].size; rest > 0 && d/u.size < 30 {
			whole += fmt.Sprintf(" %d%s", rest, units[i+1].name)
		}
		return whole
	}
	return "0s"
}

// grouped prints 41231 as "41 231".
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// oneLine keeps what others wrote (a CA's error, say) on its line and harmless
// to a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// CertificatesText prints the certificates of d for `ntsagent cert show`.
func CertificatesText(d Document) string {
	var b strings.Builder
	for i, c := range d.Certificates {
		if i > 0 {
			b.WriteString("\n")
		}
		line(&b, "Name", c.Name)
		line(&b, "Source", strings.TrimSpace(c.Source+"   "+c.Profile))
		line(&b, "Issuer", issuerText(c))
		line(&b, "Serial", c.Serial)
		if c.Fingerprint != "" {
			line(&b, "Fingerprint", "SHA-256 "+c.Fingerprint)
		}
		if c.NotAfter.IsZero() {
			line(&b, "Valid", "no certificate yet")
		} else {
			line(&b, "Valid", fmt.Sprintf("%s to %s   %s left", c.NotBefore.UTC().Format(time.RFC3339),
				c.NotAfter.UTC().Format(time.RFC3339), Span(c.NotAfter.Sub(d.Time))))
		}
		if c.Revoked != "" {
			line(&b, "Revoked", c.Revoked+"; it serves until another is there")
		}
		if !c.RenewAt.IsZero() {
			line(&b, "Renewal", strings.TrimSpace(c.RenewAt.UTC().Format(time.RFC3339)+"   "+c.RenewWhy))
			c.RenewAt = time.Time{}
		}
		line(&b, "Condition", c.Condition)
		line(&b, "Orders", renewalText(c, d.Time))
		line(&b, "", dnsText(c))
		for _, f := range c.WebServer {
			line(&b, "Web server", f.What)
			line(&b, "", "to mend: "+f.Fix)
		}
	}
	return b.String()
}

// KeysText prints ids and fingerprints of the cookie keys for `ntsagent keys
// show`.
func KeysText(d Document) string {
	var b strings.Builder
	line(&b, "Cookie keys", keysText(d.Keys, d.Time))
	line(&b, "", d.Keys.Why)
	for _, k := range d.Keys.Held {
		role := ""
		switch k.ID {
		case d.Keys.Current.ID:
			role = "   current"
		case d.Keys.Next.ID:
			role = "   next"
		}
		line(&b, "", k.ID+"   fingerprint "+k.Fingerprint+role)
	}
	return b.String()
}
