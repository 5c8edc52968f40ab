package main

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"

	"ntsagent/ntske/client"
	"ntsagent/ntske/registry"
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
			where := a.Address.String()
			if a.AEAD != 0 {
				where += fmt.Sprintf(", AEAD %d", a.AEAD)
			}
			p.line(familyName(a.Family), where)
		}
		p.address(r.Name, a)
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

func (p screen) address(name string, a client.AddressReport) {
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
		p.line("", fmt.Sprintf("stratum %d, %s, offset %s, delay %.2f ms", n.Stratum, source(n.Stratum, n.ReferenceID), offset(n.OffsetMS), n.DelayMS))
	}
	if a.Problem != nil {
		p.line(a.Problem.Step, a.Problem.Text)
		if hint := remedy(name, a.Problem); hint != "" {
			p.line("", hint)
		}
	}
}

// source says by the registry what a reference id tells of the server's time. A report has the id as text,
// in which what cannot be printed is a dot.
func source(stratum uint8, text string) string {
	var octets [4]byte
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		octets = a.As4()
	} else {
		copy(octets[:], text)
	}
	id := registry.RefID(octets, stratum)
	note := ""
	switch {
	case id.Kind == registry.KissCode && text == "":
		return "not synchronised"
	case id.Kind == registry.KissCode:
		return "kiss code " + text // the problem that it is says what it means
	case text == "" || id.Kind != registry.ClockSource:
	case id.Fault != "":
		note = id.Fault
	case id.Private:
		note = "private"
	case id.Meaning == "":
		note = "not registered"
	default:
		note = id.Meaning
	}
	if note != "" {
		note = " (" + note + ")"
	}
	return "refid " + text + note
}

// remedy is what else to know about a problem: what to try about a certificate
// that does not verify, or what a kiss code means; "" when there is nothing to
// say. How the reasons of certificates read is crypto/x509's affair.
func remedy(name string, p *client.Problem) string {
	switch p.Step {
	case "tls":
		return certificateRemedy(name, p.Text)
	case "ntp":
		return kissMeaning(p.Text)
	}
	return ""
}

func certificateRemedy(name, text string) string {
	_, err := netip.ParseAddr(name)
	switch byAddress := err == nil; {
	case byAddress && (strings.Contains(text, "IP SANs") || strings.Contains(text, "certificate is valid for ")):
		return "check by name: the certificate is not for this address"
	case strings.Contains(text, "signed by unknown authority"):
		return "private CA? use --ca F"
	}
	return ""
}

// kissMeaning explains the kiss code that a text names.
func kissMeaning(text string) string {
	_, code, found := strings.Cut(text, "kiss code ")
	if !found {
		return ""
	}
	code = strings.TrimRight(code[:min(4, len(code))], ".") // padding is shown as dots
	octets, err := registry.ParseID(code)
	switch id := registry.Kiss(octets); {
	case err != nil:
		return ""
	case id.Private:
		return code + " is private"
	case id.Meaning == "":
		return code + " is not registered"
	default:
		return code + ": " + id.Meaning
	}
}

// offset writes what is small in milliseconds and what is large in seconds.
func offset(ms float64) string {
	if math.Abs(ms) < 1000 {
		return fmt.Sprintf("%+.2f ms", ms)
	}
	return fmt.Sprintf("%+.3f s", ms/1000)
}

// verdict is the last line. A family is good when all its addresses are.
func verdict(r client.Report) (label, text string) {
	families := map[client.Fault][]string{}
	for _, family := range []string{"ipv4", "ipv6"} {
		seen, worst := false, client.Fault(0)
		for _, a := range r.Results {
			if a.Family != family {
				continue
			}
			seen = true
			if p := a.Problem; p != nil && worst != client.Server {
				worst = p.Fault
			}
		}
		if seen {
			families[worst] = append(families[worst], familyName(family))
		}
	}
	var parts []string
	for _, part := range []struct {
		fault client.Fault
		words string
	}{{0, "authenticated on "}, {client.Server, "not authenticated on "}, {client.Tool, "could not try "}} {
		if names := families[part.fault]; len(names) > 0 {
			parts = append(parts, part.words+strings.Join(names, " and "))
		}
	}
	if len(parts) == 0 {
		parts = []string{"not authenticated"}
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
			text := fmt.Sprintf("check %s at %s: %s: %s", r.Name, a.Address, a.Problem.Step, a.Problem.Text)
			if hint := remedy(r.Name, a.Problem); hint != "" {
				text += "; " + hint
			}
			return text
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
