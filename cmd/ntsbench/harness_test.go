package main

import (
	"bufio"
	"net"
	"runtime"
	"testing"
	"time"

	"ntsagent/cmd/ntsbench/load"
	"ntsagent/ntske/aead"
)

// sink keeps what is allocated on the heap.
var sink []*int

func TestAllocationsAreCountedExactly(t *testing.T) {
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- tellAllocations(t.Context(), theirs) }()
	h := &harness{ask: ours, answers: bufio.NewReader(ours)}
	count := func() int {
		n, err := h.allocated()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	sink = make([]*int, 10_000)
	for i := range sink {
		sink[i] = new(int)
	}
	// Other tests of this program may allocate at the same time.
	if got := count() - before; got < 10_000 {
		t.Errorf("%d objects counted, want at least 10,000", got)
	}
	ours.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := h.allocated(); err == nil {
		t.Error("no error although nobody answers")
	}
}

func TestTheGatewayOfTheHarnessServesEveryLoad(t *testing.T) {
	t.Setenv(asProgram, "1") // for what it starts
	runtime.LockOSThread()   // the servers die with their thread
	defer runtime.UnlockOSThread()
	s, err := openServers(t.Context(), cpus{}, loopback6, agentProgram, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	d, err := s.startChronyd(t.Context(), s.chrony, "chronyd", func(string) string { return "bindcmdaddress /\n" })
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.startHarness(t.Context(), d.ntp)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for name, c := range map[string]load.NTSConfig{
		"AEAD 15": {}, "AEAD 15, 7 placeholders": {Placeholders: 7}, "AEAD 30": {AEAD: aead.GCMSIV128},
		"unknown key": {UnknownKey: true}, "open loop": {Rate: 1000},
	} {
		before, err := 0, error(nil)
		eventually(t, name+" is answered whole", func() bool { // a gateway is silent for a while when its daemon has stood still
			r, failed := asks(h.server, c)(t.Context(), 200*time.Millisecond, func() { before, err = h.allocated() })
			if err != nil || failed != nil || r.Failed > r.Lost {
				t.Fatalf("%s: %v, %v, %d done, %d failed (%v), %d lost", name, failed, err, r.Done, r.Failed, r.FirstErr, r.Lost)
			}
			return r.Done > 0 && r.Failed == 0
		})
		if after, err := h.allocated(); err != nil || after < before {
			t.Errorf("%s: %d objects, then %d (%v)", name, before, after, err)
		}
	}
	if err := h.gone(); err != nil {
		t.Error(err)
	}
}
