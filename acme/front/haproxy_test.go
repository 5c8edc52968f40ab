package front_test

import (
	"strings"
	"testing"

	"ntsagent/acme/front"
	"ntsagent/acme/front/fronttest"
)

// HAProxy does not say who it is, so that the operator is given both snippets. Here that for HAProxy mends the fault.
func TestBehindHAProxyAFaultIsFoundAndItsSnippetMendsIt(t *testing.T) {
	t.Parallel()
	const (
		bind     = "frontend http\n bind :80,:::80 v6only\n"
		silent   = " http-request deny deny_status 404 unless { path_beg /.well-known/acme-challenge/ }\n"
		toAgent  = " default_backend agent\nbackend agent\n server agent AGENT\n"
		sets     = " http-request set-header Host agent.internal\n"
		theShop  = ` http-request return status 200 content-type text/html string "the shop"` + "\n"
		notAsked = "does not pass the Host " + alice + " on"
	)
	for _, c := range []struct {
		name, conf string
		want       []string // what each fault says
	}{
		{"the Host is passed on by itself", bind + silent + toAgent, nil},
		{"the Host is set by the backend", bind + silent + strings.Replace(toAgent, " server", sets+" server", 1), []string{notAsked}},
		{"the Host is set by the frontend", bind + silent + sets + toAgent, []string{notAsked}},
		{"the Host is replaced by an address", bind + silent + " http-request set-header Host 127.0.0.1\n" + toAgent, []string{notAsked}},
		{"the agent is sought elsewhere", bind + silent + strings.Replace(toAgent, "AGENT", "127.0.0.1:1", 1), []string{"does not find the agent at "}},
		{"no way to the agent", bind + silent, []string{"does not find the agent at "}},
		{"a web site that knows nothing of it", bind + theShop, []string{"with something else than the proof", "port 80 shows browsers"}},
		{"nothing for anybody", bind + " http-request deny deny_status 404\n", []string{"with 404"}},
		{"a shop at 443 for whoever comes", bind + silent + toAgent + "frontend https\n bind :443 ssl crt PEM\n" + theShop, []string{"port 443 shows browsers"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			judge := front.Judge{Agent: s.agent}
			stop := fronttest.HAProxy(t, s.fill(c.conf))
			faults := s.faults(t, judge)
			if len(faults) != len(c.want) {
				t.Fatalf("faults %+v, want %q", faults, c.want)
			}
			for i, f := range faults {
				if !strings.Contains(f.What, c.want[i]) || f.Nginx == "" || f.HAProxy != faults[0].HAProxy {
					t.Errorf("%+v, want %q and a snippet for either", f, c.want[i])
				}
			}
			if len(faults) == 0 {
				return
			}
			stop()
			mended := faults[0].HAProxy
			if head, more, _ := strings.Cut(mended, "\n"); head == "frontend https" { // it goes into the one that is there
				mended = strings.Replace(c.conf, head+"\n", head+"\n"+more, 1)
			}
			fronttest.HAProxy(t, s.fill(mended))
			if left := s.faults(t, judge); len(left) > 0 {
				t.Errorf("the snippet\n%s\nleaves %+v", mended, left)
			}
		})
	}
}

// What is printed on one line is what was tried above.
func TestASnippetForHAProxyIsPrintedLineByLine(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	faults := front.Judge{Agent: s.agent}.Faults([]front.Seen{{Name: s.name, Listens: true, Expected: expected, Right: front.Answer{Status: 404}, Root: front.Answer{Status: 404}, Roots: front.Answer{Status: 404}}})
	if len(faults) != 1 {
		t.Fatalf("%+v", faults)
	}
	_, printed, _ := strings.Cut(faults[0].Hint(), "; haproxy, a line at each |: ")
	lines := strings.Split(printed, " | ")
	for i, want := range strings.Split(strings.TrimSpace(faults[0].HAProxy), "\n") {
		if i >= len(lines) || lines[i] != strings.TrimSpace(want) {
			t.Fatalf("%q is not printed in %q", want, printed)
		}
	}
}
