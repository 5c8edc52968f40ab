package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/agent/status"
)

// process is what the kernel tells of one.
type process int

// descriptors counts its open files.
func (p process) descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// peak is the most memory that it had at once, in KiB.
func (p process) peak(t *testing.T) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nVmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

// Ten thousand at once, or as many as this machine lets a test be, at the real
// port of the real program: its memory and descriptors stay bounded, a CA gets
// an answer while they are there, and nothing is left of them.
func TestTenThousandAtThePortOfHTTP01(t *testing.T) {
	t.Parallel()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const others, places, own = 500, 128, 8 // own: what the agent may open for itself meanwhile
	attackers := min(10000, int(min(limit.Cur, 1<<20))-others)
	if attackers < 2*places {
		t.Fatalf("%d open files are too few for this test", limit.Cur)
	}
	h := newHost(t)
	h.configure(beforeAnything)
	web, _ := hold(t, "tcp4", "127.0.0.1:0")
	tls, _ := hold(t, "tcp4", "127.0.0.1:0")
	cmd := h.given("http-01:tls-alpn-01", web, tls)
	stop := h.start(cmd)
	agent := process(cmd.Process.Pid)
	d := h.wait("it listens for all", func(d status.Document) bool {
		return open(d, status.ServiceHTTP01) != "" && open(d, status.ServiceTLSALPN01) != "" && open(d, status.ServiceNTP) != ""
	})
	at := netip.MustParseAddrPort(open(d, status.ServiceHTTP01))
	before, lean := agent.descriptors(t), agent.peak(t)

	kinds := []string{"", "GET / HTTP/1.1\r\nHost: " + socketsName + "\r\nX: ", "PRI * HTTP/2.0\r\n\r\n", strings.Repeat("GET / HTTP/1.1\r\nHost: "+socketsName+"\r\n\r\n", 500)}
	var come, gone, most atomic.Int64
	var all sync.WaitGroup
	together := make(chan struct{}, 200) // who connect at the same time
	for i := range attackers {
		together <- struct{}{}
		all.Go(func() {
			c, err := net.Dial("tcp4", at.String())
			<-together
			if err != nil {
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("attacker %d: %v", i, err)
				}
				return
			}
			defer c.Close()
			come.Add(1)
			_ = c.SetDeadline(time.Now().Add(2 * time.Minute)) // a defect alone takes so long
			_, _ = io.WriteString(c, kinds[i%len(kinds)])
			b, err := io.ReadAll(c)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Errorf("attacker %d is still there, told %q", i, b)
			}
			gone.Add(1)
		})
		if i%100 == 0 {
			most.Store(max(most.Load(), int64(agent.descriptors(t))))
		}
	}
	last := time.Now()
	answered, asked := 0, 0
	for over := false; !over || answered == 0; {
		asked++
		if code, _ := ask(at, socketsName); code == 404 { // there is no proof, and it says so
			answered++
		}
		most.Store(max(most.Load(), int64(agent.descriptors(t))))
		over = gone.Load() == come.Load()
		if time.Since(last) > 150*time.Second {
			t.Fatalf("%d of %d attackers are gone, a CA was answered %d times of %d", gone.Load(), come.Load(), answered, asked)
		}
		<-time.After(20 * time.Millisecond)
	}
	all.Wait()
	t.Logf("%d attackers, gone %v after the last came; a CA was answered %d times of %d; at most %d descriptors beside %d, memory from %d to %d KiB",
		come.Load(), time.Since(last).Round(time.Millisecond), answered, asked, most.Load()-int64(before), before, lean, agent.peak(t))
	for deadline := time.Now().Add(90 * time.Second); agent.descriptors(t) > before+own; {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors, %d before", agent.descriptors(t), before)
		}
		<-time.After(20 * time.Millisecond)
	}
	if more := most.Load() - int64(before); more > 3*places {
		t.Errorf("%d descriptors at once, for %d places", more, places)
	}
	if grown := agent.peak(t) - lean; grown > 128<<10 { // a race detector included
		t.Errorf("%d KiB more for %d places", grown, places)
	}
	stop()
}
