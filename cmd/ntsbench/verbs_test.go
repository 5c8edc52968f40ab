package main

import (
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestVerbsLoadOneServer(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // the server dies with its thread
	defer runtime.UnlockOSThread()
	s, err := openServers(t.Context(), cpus{}, loopback, agentProgram, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	d, err := s.startServing(t.Context(), s.chrony, chronydRoom)
	if err != nil {
		t.Fatal(err)
	}
	ke, ntp := d.ke.Addr.String(), d.ntp.String()
	free, err := freePort(loopback)
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.AddrPortFrom(loopback, free).String()
	with := func(verb string, flags ...string) []string {
		return append([]string{verb, "--ca", s.id.cert, "--name", benchName}, flags...)
	}
	var going sync.WaitGroup // they mostly wait
	for name, tt := range map[string]struct {
		args  []string
		words string // printed
		fails string // said at the end; "": it exits with 0 and says nothing
	}{
		"key exchange":                {with("ke", "--addr", ke, "--for", "50ms", "--groups", "x25519"), " sessions verified in ", ""},
		"NTS queries":                 {with("nts", "--addr", ntp, "--ke", ke, "--for", "50ms"), "clock offset p1 ", ""},
		"unknown key":                 {with("nts", "--addr", ntp, "--ke", ke, "--for", "50ms", "--unknown-key", "--aead", "15"), " queries verified in ", ""},
		"AEAD 30 of one who has none": {with("nts", "--addr", ntp, "--ke", ke, "--for", "50ms", "--aead", "30"), "", "exchange keys before the load: "},
		"plain queries":               {[]string{"plain", "--addr", ntp, "--for", "50ms", "--rate", "200"}, ", max ", ""},
		"nothing due":                 {[]string{"plain", "--addr", ntp, "--for", "10ms", "--rate", "20"}, "0 queries verified", "load failed: no queries were verified"},
		"idle":                        {with("idle", "--addr", ke, "--kind", "finished", "--n", "5"), "5 connections opened, 0 refused\nnew clients served: 20/20, ", ""},
		"idle for long":               {with("idle", "--addr", ke, "--kind", "tcp", "--n", "5", "--for", "1ms"), "20/20, ", "5 of 5 idle connections are still open after 1ms"},
		"another name":                {[]string{"ke", "--addr", ke, "--ca", s.id.cert, "--name", "other.test", "--for", "1ms"}, "0 sessions verified", "load failed: 16 of 16 sessions; the first: "},
		"idle for none":               {[]string{"idle", "--addr", ke, "--ca", s.id.cert, "--name", "other.test", "--kind", "tcp", "--n", "1"}, "served: 0/20", "20 of 20 new clients were not served (the first: "},
		"nobody there":                {[]string{"idle", "--addr", nobody, "--n", "2"}, "", "no connection was opened; the first: "},
		"no NTS answer":               {with("nts", "--addr", ntp, "--ke", nobody, "--for", "1ms"), "", "exchange keys before the load: "},
		"no such file":                {[]string{"ke", "--addr", ke, "--ca", "/nowhere/ca.pem"}, "", "read --ca: open /nowhere/ca.pem"},
		"no certificate":              {[]string{"ke", "--addr", ke, "--ca", s.id.key}, "", "holds no certificate"},
	} {
		p := newProgram(t, tt.args...)
		going.Go(func() {
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
