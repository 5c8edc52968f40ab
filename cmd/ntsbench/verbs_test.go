package main

import (
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever stands still, for seconds, must not be the reason that a verb fails: the agent gives its clients 10 s, and
// the verbs wait for minutes. Only one of them sends queries at a time, so that what waits for chronyd has room in
// its socket: it takes some 120 datagrams.
func TestVerbsLoadOneServer(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // the server dies with its thread
	defer runtime.UnlockOSThread()
	s, err := openServers(t.Context(), cpus{}, loopback, agentProgram, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	a, _, err := s.startAgent(t.Context(), ", max_sessions: 10000, timeout: 10s")
	if err != nil {
		t.Fatal(err)
	}
	ke, ntp, nobody := a.ke.Addr.String(), a.ntp.String(), refusing(t).String()
	with := func(verb string, flags ...string) []string {
		return append([]string{verb, "--ca", s.id.cert, "--name", benchName, "--timeout", "2m"}, flags...)
	}
	query := func(verb string, flags ...string) []string {
		return append(with(verb, "--ke", ke), append(flags, "--addr", ntp, "--lost-after", "2m")...)
	}
	plain := func(flags ...string) []string {
		return append([]string{"plain", "--addr", ntp, "--lost-after", "2m"}, flags...)
	}
	var querying sync.Mutex
	var going sync.WaitGroup // they mostly wait
	for name, tt := range map[string]struct {
		args  []string
		words string // printed
		fails string // said at the end; "": it exits with 0 and says nothing
	}{
		"key exchange":                {with("ke", "--addr", ke, "--for", "50ms", "--groups", "x25519"), " sessions verified in ", ""},
		"NTS queries":                 {query("nts", "--for", "50ms"), "clock offset p1 ", ""},
		"unknown key":                 {query("nts", "--for", "50ms", "--unknown-key", "--aead", "15"), " queries verified in ", ""},
		"AEAD 30 of one who has none": {query("nts", "--for", "50ms", "--aead", "30"), "", "exchange keys before the load: "},
		"plain queries":               {plain("--for", "50ms", "--rate", "200"), ", max ", ""},
		"nothing due":                 {plain("--for", "10ms", "--rate", "20"), "0 queries verified", "load failed: no queries were verified"},
		"idle":                        {with("idle", "--addr", ke, "--kind", "finished", "--n", "5", "--for", "2m"), "5 connections opened, 0 refused\nnew clients served: 20/20, ", ""},
		"idle for long":               {with("idle", "--addr", ke, "--kind", "tcp", "--n", "5", "--for", "1ms"), "20/20, ", "5 of 5 idle connections are still open after 1ms"},
		"another name":                {with("ke", "--addr", ke, "--name", "other.test", "--for", "1ms"), "0 sessions verified", "load failed: 16 of 16 sessions; the first: "},
		"idle for none":               {with("idle", "--addr", ke, "--name", "other.test", "--kind", "tcp", "--n", "1", "--for", "2m"), "served: 0/20", "20 of 20 new clients were not served (the first: "},
		"nobody there":                {with("idle", "--addr", nobody, "--n", "2"), "", "no connection was opened; the first: "},
		"no NTS answer":               {with("nts", "--addr", ntp, "--ke", nobody, "--for", "1ms"), "", "exchange keys before the load: "},
		"no such file":                {[]string{"ke", "--addr", ke, "--ca", "/nowhere/ca.pem"}, "", "read --ca: open /nowhere/ca.pem"},
		"no certificate":              {[]string{"ke", "--addr", ke, "--ca", s.id.key}, "", "holds no certificate"},
	} {
		p := newProgram(t, tt.args...)
		going.Go(func() {
			if tt.args[0] == "nts" || tt.args[0] == "plain" {
				querying.Lock()
				defer querying.Unlock()
			}
			if tt.fails == "" {
				if err := p.Run(); err != nil || p.err.Len() > 0 {
					t.Errorf("%s: %v, %s", name, err, &p.err)
				}
			} else if got := p.failed(t); !strings.HasPrefix(got, "ntsbench: ") || !strings.Contains(got, tt.fails) || strings.Count(p.err.String(), "\n") != 1 {
				t.Errorf("%s: it says %q, want one line with %q", name, &p.err, tt.fails)
			}
			if got := p.out.String(); tt.words == "" && got != "" || !strings.Contains(got, tt.words) {
				t.Errorf("%s: it prints %q, want %q", name, got, tt.words)
			}
		})
	}
	going.Wait()
}

// refusing is an address where nobody listens, and nobody else can until the test ends.
func refusing(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback.As4()}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(loopback, uint16(at.(*unix.SockaddrInet4).Port))
}
