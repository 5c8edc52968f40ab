package agent

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

func TestWhereADaemonShouldAnswerByTheOtherFamily(t *testing.T) {
	for _, c := range []struct{ addr, bound, want string }{
		{"127.0.0.1:123", "", "[::1]:123"},
		{"127.0.0.5:1123", "", "[::1]:1123"},
		{"[::1]:123", "", "127.0.0.1:123"},
		{"127.0.0.1:123", "2001:db8::1", "[2001:db8::1]:123"},
		{"127.0.0.1:123", "::", "[::1]:123"},
		{"192.0.2.1:123", "", "invalid AddrPort"},
		{"192.0.2.1:123", "2001:db8::1", "[2001:db8::1]:123"},
	} {
		var bound netip.Addr
		if c.bound != "" {
			bound = netip.MustParseAddr(c.bound)
		}
		if got := otherFamily(netip.MustParseAddrPort(c.addr), bound).String(); got != c.want {
			t.Errorf("%s bound to %q: %s, want %s", c.addr, c.bound, got, c.want)
		}
	}
}

// Silence is no refusal before it has lasted, and none at all while the daemon is
// silent to everybody.
func TestAFamilyIsShutByLastingSilenceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := ringOf(t, aead.SIVCMAC256)
		var mu sync.Mutex
		now := map[string]keyring.Answer{}
		var changes, asked atomic.Int32
		says := func(by string) proveFunc {
			return func(ctx context.Context, _ []byte, _ *cookie.Session) keyring.Answer {
				mu.Lock()
				defer mu.Unlock()
				if by == "IPv6" {
					asked.Add(1)
				}
				return now[by]
			}
		}
		f := &families{
			other: netip.MustParseAddrPort("[::1]:123"), fix: "mend it", format: cookie.Chrony{}, every: time.Minute, spacing: time.Second,
			await: func(context.Context) *cookie.Ring { return ring }, ask: says("IPv6"), control: says("IPv4"), rand: rand.Reader,
			log: hclog.NewNullLogger(), changed: func() { changes.Add(1) }, wake: make(chan struct{}, 1), state: new(atomic.Pointer[familyState]),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.run(ctx) }()
		defer func() { cancel(); <-done }()
		v4, v6 := netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::")
		for _, step := range []struct {
			sentence  string
			four, six keyring.Answer
			in        time.Duration // 0 = one query by IPv6
			why       string        // part of it; "" = open
		}{
			{"nothing is known while all is silent", silent, silent, time.Minute, "has not answered on [::1]:123 yet"},
			{"IPv6 alone is silent", answered, silent, time.Minute, "IPv6: the daemon does not answer on [::1]:123: mend it, or take"},
			{"both answer", answered, answered, time.Minute, ""},
			{"all is silent for an hour", silent, silent, time.Hour, ""},
			{"both answer again", answered, answered, time.Minute, ""},
			{"IPv6 is silent for a moment", answered, silent, 0, ""},
			{"and answers again", answered, answered, 5 * time.Second, ""},
			{"IPv6 is silent for longer", answered, silent, 2 * time.Minute, "does not answer"},
			{"IPv6 does not know the key", answered, refused, 2 * time.Minute, "does not answer"},
			{"all is well", answered, answered, time.Minute, ""},
		} {
			mu.Lock()
			now["IPv4"], now["IPv6"] = step.four, step.six
			mu.Unlock()
			from := asked.Load()
			time.Sleep(step.in)
			for synctest.Wait(); step.in == 0 && asked.Load() == from; synctest.Wait() {
				time.Sleep(100 * time.Millisecond)
			}
			if why := f.shut(v6); (why == "") != (step.why == "") || !strings.Contains(why, step.why) {
				t.Errorf("%s: %q, want %q", step.sentence, why, step.why)
			}
			if why := f.shut(v4); why != "" {
				t.Errorf("%s: IPv4 is shut: %s", step.sentence, why)
			}
		}
		if changes.Load() != 4 { // shut, open, shut, open
			t.Errorf("%d changes in %d queries", changes.Load(), asked.Load())
		}
	})
}

// Real sockets: chronyd answers by IPv4 only, then by both, then by IPv4 again.
func TestNoCookiesByAFamilyThatTheDaemonDoesNotAnswerBy(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	m.configure("ke: {listen: [\"127.0.0.1:0\", \"[::1]:0\"]}\n")
	m.start()
	closed := func(d status.Document) bool {
		for _, l := range d.Listeners {
			if l.Service == status.ServiceKE && !l.Open && strings.Contains(l.Reason, "IPv6: the daemon does not answer on [::1]:") {
				return provenAndOpen(m)(d)
			}
		}
		return false
	}
	d := m.wait("IPv6 is closed", closed)
	four := m.ke(d)
	if d.State != status.Degraded || !strings.Contains(strings.Join(d.Reasons, " "), "allow ::1") {
		t.Errorf("%s, %q", d.State, d.Reasons)
	}
	six := netip.AddrPortFrom(netip.IPv6Loopback(), four.Port())
	if _, _, err := m.exchange(six); err == nil {
		t.Fatal("cookies were given by IPv6")
	}
	m.chronyd.Reconfigure(chronytest.Options{ExtraConf: []string{"allow ::1"}})
	both := func(d status.Document) bool {
		n := 0
		for _, l := range d.Listeners {
			if l.Service == status.ServiceKE && l.Open {
				n++
			}
		}
		return n == 2 && provenAndOpen(m)(d)
	}
	m.wait("IPv6 is open", both)
	m.serves(six, "", 8)
	m.serves(four, "", 8)
	m.chronyd.Reconfigure(chronytest.Options{})
	m.under(four, func() { m.wait("IPv6 is closed again", closed) })
	if _, _, err := m.exchange(six); err == nil {
		t.Error("cookies were given by IPv6")
	}

	// Where clients are sent to a server by name, their own family does not matter.
	m.configure("ke: {listen: [\"127.0.0.1:0\", \"[::1]:0\"], ntp: {host: 127.0.0.1}}\n")
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	m.wait("IPv6 is open for those who are sent to IPv4", both)
}
