package clienttest

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/aead"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// NTPDRS runs an ntp-daemon of Debian 13 as a client of each of servers, whose
// certificates those in the file ca have signed. It refuses to run without the
// right to set the clock, and is told that it has set it.
func NTPDRS(t testing.TB, ca string, servers []Server) *Client {
	t.Helper()
	c := &Client{Name: "ntpd-rs " + parts.Debian13.NTPDRS}
	var all []*ntpdrs
	for _, s := range servers {
		n := &ntpdrs{Process: daemontest.NewProcess(t), root: partstest.NTPDRS(t, parts.Debian13), server: s}
		if err := n.start(t, ca); err != nil {
			t.Fatalf("%s as a client of %v: %v\n%s", c.Name, s, err, n.Log())
		}
		all = append(all, n)
	}
	c.Log = func() (log string) {
		for _, n := range all {
			log += n.Log()
		}
		return log
	}
	c.Said = func(ctx context.Context) (map[string]Said, error) {
		said := map[string]Said{}
		for _, n := range all {
			s, err := n.said(ctx)
			if err != nil {
				return nil, err
			}
			said[n.server.Name] = s
		}
		return said, nil
	}
	return c
}

// ntpdrs is an ntp-daemon with one source.
type ntpdrs struct {
	*daemontest.Process
	root   parts.Root
	conf   string
	server Server
}

func (n *ntpdrs) start(t testing.TB, ca string) error {
	dir := folder(t)
	n.conf = write(t, dir, "ntp.toml", []string{
		"[observability]", `log-level = "debug"`, "ansi-colors = false", fmt.Sprintf("observation-path = %q", filepath.Join(dir, "observe")),
		"[synchronization]", "minimum-agreeing-sources = 1",
		"[source-defaults]", "poll-interval-limits = { min = 0, max = 0 }", "initial-poll-interval = 0",
		"[[source]]", `mode = "nts"`, fmt.Sprintf("address = %q", n.server), fmt.Sprintf("certificate-authority = %q", ca),
	})
	return daemontest.PretendClock(func() error {
		return n.Run(func(ctx context.Context) *exec.Cmd {
			return daemontest.WithoutClock(n.root.Command(ctx, "ntp-daemon", "-c", n.conf))
		}, func() bool {
			_, err := n.status(t.Context())
			return err == nil
		})
	})
}

func (n *ntpdrs) status(ctx context.Context) (string, error) {
	out, err := n.root.Command(ctx, "ntp-ctl", "status", "-f", "plain", "-c", n.conf).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ntp-ctl status: %w: %s", err, out)
	}
	return string(out), nil
}

// What ntp-daemon logs, and ntp-ctl prints, of its one source:
//
//	Stratum: 9
//	127.0.1.1:45557 [NTS] (1): -0.000004±0.000003(±0.000009)s
//	    poll interval: 1s, missing polls: 0
//	    NTS cookies: 8/8 available
var (
	ntpdrsAgreed  = regexp.MustCompile(`selected AEAD algorithm algorithm=AeadAesSivCmac(256|512)`)
	ntpdrsMissing = regexp.MustCompile(`missing polls: (\d+)`)
	ntpdrsStratum = regexp.MustCompile(`(?m)^Stratum: (\d+)$`)
	ntpdrsCookies = regexp.MustCompile(`NTS cookies: (\d+)/8`)
)

// ntpdrsAEADs are by the octets of their tags' ciphers, as ntpd-rs names them.
var ntpdrsAEADs = map[string]aead.ID{"256": 15, "512": 17}

func (n *ntpdrs) said(ctx context.Context) (Said, error) {
	status, err := n.status(ctx)
	if err != nil {
		return Said{}, err
	}
	log := n.Log()
	s := Said{NAKs: strings.Count(log, "nts not-acknowledge"), Words: "no source"}
	for _, m := range ntpdrsAgreed.FindAllStringSubmatch(log, -1) {
		s.AEAD = ntpdrsAEADs[m[1]]
	}
	missing, cookies := ntpdrsMissing.FindStringSubmatch(status), ntpdrsCookies.FindStringSubmatch(status)
	if missing == nil || cookies == nil {
		return s, nil
	}
	s.Cookies, _ = strconv.Atoi(cookies[1])
	stratum := ntpdrsStratum.FindStringSubmatch(status)
	s.Reached = missing[1] == "0" && stratum != nil && stratum[1] != "16" // which takes several answers
	s.Words = "missing polls " + missing[1]
	if s.Reached {
		s.Words += ", synchronised at stratum " + stratum[1]
	}
	return s, nil
}
