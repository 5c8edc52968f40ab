package main

import (
	"runtime"
	"strings"
	"testing"
)

func TestVerbsLoadOneServer(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // the server dies with its thread
	defer runtime.UnlockOSThread()
	s, err := openStable(t.Context(), cpus{}, agentProgram)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	d, err := s.startServing(t.Context(), plenty)
	if err != nil {
		t.Fatal(err)
	}
	ke, ntp := d.ke.Addr.String(), d.ntp.String()
	for name, tt := range map[string]struct {
		args  []string
		code  int
		words string
	}{
		"key exchange":     {[]string{"ke", "--addr", ke, "--ca", s.id.cert, "--name", benchName, "--for", "50ms", "--groups", "x25519"}, 0, " sessions verified in "},
		"NTS queries":      {[]string{"nts", "--addr", ntp, "--ke", ke, "--ca", s.id.cert, "--name", benchName, "--for", "50ms"}, 0, "clock offset p1 "},
		"plain queries":    {[]string{"plain", "--addr", ntp, "--for", "50ms", "--rate", "200"}, 0, " 0 failed\nlatency p1 "},
		"idle connections": {[]string{"idle", "--addr", ke, "--ca", s.id.cert, "--name", benchName, "--kind", "tcp", "--n", "5", "--for", "1ms"}, 1, "5 connections opened, 0 refused\nnew clients served: 20/20, "},
		"another name":     {[]string{"ke", "--addr", ke, "--ca", s.id.cert, "--name", "other.test", "--for", "1ms"}, 1, "0 sessions verified"},
		"no such file":     {[]string{"ke", "--addr", ke, "--ca", "/nowhere/ca.pem"}, 1, ""},
		"no certificate":   {[]string{"ke", "--addr", ke, "--ca", s.id.key}, 1, ""},
	} {
		p := newProgram(t, tt.args...)
		p.Run()
		if code := p.ProcessState.ExitCode(); code != tt.code || !strings.Contains(p.out.String(), tt.words) {
			t.Errorf("%s: exit code %d, want %d and %q in\n%s%s", name, code, tt.code, tt.words, &p.out, &p.err)
		}
	}
}
