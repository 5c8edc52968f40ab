package front

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Judge knows how the web server is meant to be set up.
type Judge struct {
	Agent   netip.AddrPort // where the web server passes the CA on to; the zero AddrPort with Webroot
	Webroot string         // the folder that it serves; "" = none
	Leads   string         // where browsers may be led to; "" = nowhere
}

// Fault is something to mend, each on one line.
type Fault struct {
	What, Fix string
	Nginx     string // what mends it, as nginx would have it; may be ""
	Fatal     bool   // the CA would find no proof
}

// Hint is what to do, on one line.
func (f Fault) Hint() string {
	if f.Nginx == "" {
		return f.Fix
	}
	return f.Fix + "; nginx: " + f.Nginx
}

// Faults judges what was seen by each IP family. What is wrong by one alone is said so, and is not fatal: the name need
// not have an address of that family.
func (j Judge) Faults(seen []Seen) []Fault {
	var all []Fault
	for _, s := range seen {
		for _, f := range j.faults(s) {
			same := func(o Fault) bool { return o.What == f.What }
			everywhere := !slices.ContainsFunc(seen, func(o Seen) bool { return !slices.ContainsFunc(j.faults(o), same) })
			if !everywhere {
				f.Fatal = false
				f.What += map[bool]string{false: ", by IPv4 alone", true: ", by IPv6 alone"}[s.Over6]
			}
			if !slices.ContainsFunc(all, same) {
				all = append(all, f)
			}
		}
	}
	return all
}

// faults judges one of them; the fatal one comes first.
func (j Judge) faults(s Seen) []Fault {
	if !s.Listens {
		return []Fault{{What: "nobody listens on port 80 of this host", Fix: "start the web server that acme.http01.mode counts on, or set mode: listen", Fatal: true}}
	}
	var all []Fault
	if what := j.proof(s); what != "" {
		all = append(all, Fault{what, j.need(s), j.server(s), true})
	}
	if strings.Contains(string(s.Wrong.Body), s.Expected) {
		all = append(all, Fault{What: "the web server shows the proof for " + s.Name.String() + " to whoever asks by another Host",
			Fix: "have a server of its own for the name and one for all others", Nginx: j.server(s)})
	}
	for _, at := range []struct {
		port   int
		answer Answer
	}{{80, s.Root}, {443, s.Roots}} {
		if what := j.application(s.Name.String(), at.answer); what != "" {
			all = append(all, Fault{
				What: fmt.Sprintf("http://%s/ at port %d shows browsers of the pool's visitors something: %s", s.Name, at.port, what),
				Fix:  "a pool member's name must lead to no application", Nginx: j.quiet(s, at.port)})
		}
	}
	return all
}

// proof says why the CA would not find the proof, or "".
func (j Judge) proof(s Seen) string {
	a := s.Right
	switch {
	case a.Err != nil:
		return "the web server on port 80 does not answer for " + s.Name.String()
	case a.Status == http.StatusOK && string(a.Body) == s.Expected:
		return ""
	case j.Webroot == "" && (a.Status == http.StatusMisdirectedRequest || a.Status == http.StatusBadRequest):
		return fmt.Sprintf("the web server on port 80 does not pass the Host %s on, and the agent answers to no other", s.Name)
	case j.Webroot == "" && a.Status >= 502 && a.Status <= 504:
		return fmt.Sprintf("the web server on port 80 does not find the agent at %s: it answers %d", j.Agent, a.Status)
	case j.Webroot != "" && a.Status == http.StatusForbidden:
		return "the web server on port 80 may not read " + j.Webroot
	case a.Location != "" && !isAt(a.Location, s.Name.String()):
		return "" // another host may well show it; what that answers cannot be asked from here
	case a.Status == http.StatusOK:
		return "the web server on port 80 answers " + wellKnown + " with something else than the proof"
	}
	return fmt.Sprintf("the web server on port 80 answers %s with %d", wellKnown, a.Status)
}

// need is what the CA needs of the web server.
func (j Judge) need(s Seen) string {
	if j.Webroot != "" {
		return fmt.Sprintf("have it serve %s for %s, and let its user read it", j.Webroot, s.Name)
	}
	return fmt.Sprintf("have it pass %s for %s on to %s with its Host", wellKnown, s.Name, j.Agent)
}

// refusals are answers that nothing stands behind.
var refusals = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest}

// maxRefusal is how long the page of a bare web server for a refusal is at most; that of an application is longer.
const maxRefusal = 1 << 10

// application says what stands at /, or "" for nothing.
func (j Judge) application(name string, a Answer) string {
	switch {
	case a.Err != nil:
		return ""
	case a.Cookies:
		return fmt.Sprintf("an answer %d with a cookie", a.Status)
	case slices.Contains(refusals, a.Status) && len(a.Body) <= maxRefusal:
		return ""
	case a.Status/100 == 2 && len(a.Body) == 0:
		return ""
	case a.Status/100 == 3 && (j.Leads != "" && a.Location == j.Leads || leadsTo(a.Location, name)):
		return "" // where the name itself leads to is judged at its own port
	}
	return fmt.Sprintf("an answer %d", a.Status)
}

// isAt says whether a Location is at the host, by any port; one that nobody understands is nowhere else.
func isAt(location, host string) bool {
	u, err := url.Parse(location)
	return err != nil || strings.EqualFold(u.Hostname(), host)
}

// leadsTo says whether a Location is at the host, by https.
func leadsTo(location, host string) bool {
	u, err := url.Parse(location)
	return err == nil && u.Scheme == "https" && strings.EqualFold(u.Hostname(), host) && (u.Port() == "" || u.Port() == "443")
}

// server is nginx's configuration for the name. Where the agent does not see the Host, nginx must.
func (j Judge) server(s Seen) string {
	how, others := fmt.Sprintf("proxy_pass http://%s; proxy_set_header Host $host;", j.Agent), ""
	if j.Webroot != "" {
		how, others = fmt.Sprintf("alias %s/;", strings.TrimSuffix(j.Webroot, "/")), " server { listen 80 default_server; listen [::]:80 default_server; return 444; }"
	}
	return fmt.Sprintf("server { listen 80; listen [::]:80; server_name %s; location %s { %s } location / { return 404; } }%s", s.Name, wellKnown, how, others)
}

// quiet is nginx's configuration for a port that shows nothing.
func (j Judge) quiet(s Seen, port int) string {
	if port == 80 {
		return j.server(s)
	}
	return fmt.Sprintf("server { listen 443 ssl; listen [::]:443 ssl; server_name %s; ssl_reject_handshake on; }", s.Name)
}
