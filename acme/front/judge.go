package front

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Judge knows how who stands before the agent is meant to be set up.
type Judge struct {
	Agent   netip.AddrPort // where the web server passes the CA on to; the zero AddrPort with Webroot, and where we have port 80
	Webroot string         // the folder that it serves; "" = none
	Leads   string         // where browsers may be led to; "" = nowhere
	TLS     netip.AddrPort // where TLS for the name is passed on to, as it came; the zero AddrPort where we have port 443
}

// Fault is something to mend. What is one line and so is Fix.
type Fault struct {
	What, Fix      string
	Nginx, HAProxy string // what mends it, as they would have it; the second in lines; may be ""
	Fatal          bool   // the CA would find no proof
}

// Hint is what to do, on one line.
func (f Fault) Hint() string {
	hint := f.Fix
	if f.Nginx != "" {
		hint += "; nginx: " + f.Nginx
	}
	if f.HAProxy != "" {
		hint += "; haproxy, a line at each |: " + strings.ReplaceAll(strings.TrimSuffix(f.HAProxy, "\n"), "\n ", " | ")
	}
	return hint
}

// Faults judges what was seen by each IP family. What is wrong by one alone is said so, and is not fatal: the name need
// not have an address of that family.
func (j Judge) Faults(seen []Seen) []Fault {
	var views []view
	for _, s := range seen {
		views = append(views, view{s.Over6, j.faults(s)})
	}
	return together(views)
}

// view is what is wrong by one IP family.
type view struct {
	over6  bool
	faults []Fault
}

func together(views []view) []Fault {
	var all []Fault
	for _, v := range views {
		for _, f := range v.faults {
			same := func(o Fault) bool { return o.What == f.What }
			everywhere := !slices.ContainsFunc(views, func(o view) bool { return !slices.ContainsFunc(o.faults, same) })
			if !everywhere {
				f.Fatal = false
				f.What += map[bool]string{false: ", by IPv4 alone", true: ", by IPv6 alone"}[v.over6]
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
		all = append(all, j.byName(s, s.Right, Fault{What: what, Fix: j.need(s), Fatal: true}))
	}
	if strings.Contains(string(s.Wrong.Body), s.Expected) {
		all = append(all, j.byName(s, s.Wrong, Fault{What: "the web server shows the proof for " + s.Name.String() + " to whoever asks by another Host",
			Fix: "have a server of its own for the name and one for all others"}))
	}
	if what := j.shows(s.Name.String(), 80, s.Root); what != "" {
		all = append(all, j.byName(s, s.Root, Fault{What: what, Fix: noApplication}))
	}
	if what := j.shows(s.Name.String(), 443, s.Roots); what != "" {
		all = append(all, j.quiet(s.Name.String(), s.Roots, Fault{What: what, Fix: noApplication}))
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
	return fmt.Sprintf("have it pass %s for %s on to %s with its Host as it came", wellKnown, s.Name, j.Agent)
}

// refusals are answers that nothing stands behind.
var refusals = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest}

// maxRefusal is how long the page of a bare web server for a refusal is at most; that of an application is longer.
const maxRefusal = 1 << 10

const noApplication = "a pool member's name must lead to no application"

// shows says that something stands at / of a port, or "" for nothing.
func (j Judge) shows(name string, port int, a Answer) string {
	what := j.application(name, a)
	if what == "" {
		return ""
	}
	return fmt.Sprintf("http://%s/ at port %d shows browsers of the pool's visitors something: %s", name, port, what)
}

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
