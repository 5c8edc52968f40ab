package feed_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/agent/daemon"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/feed"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
	"ntsagent/packaging/parts"
)

// What the whole line does with a real, unmodified chronyd: keyring → hand-over
// → REKEY → proof by an NTS query.

// line is a keyring that feeds a chronyd.
type line struct {
	*keyring.Keyring
	t       testing.TB
	file    string
	addr    netip.AddrPort
	changed chan struct{}
	stop    func()

	mu        sync.Mutex
	standings []keyring.Standing // each one it went through
	mints     []bool             // whether it minted, in step with standings
	asked     []time.Time
	silent    int
}

func options(s *chronytest.Server) feed.Options {
	return feed.Options{KeysFile: s.KeysFile, CommandSocket: s.Socket, ChronyConf: s.Conf}
}

func target(s *chronytest.Server, addr netip.AddrPort) daemon.Target {
	return daemon.ChronyTarget(daemon.Chronyd{Addr: addr, ConfigFile: s.Conf, KeysFile: s.KeysFile, CommandSocket: s.Socket})
}

// startLine runs a keyring on its own key file; its queries go to addr.
func startLine(t testing.TB, s *chronytest.Server, addr netip.AddrPort, file string) *line {
	t.Helper()
	conf, err := daemon.ReadChrony(s.Conf)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{t: t, file: file, addr: addr, changed: make(chan struct{}, 1)}
	prove, plain := daemon.Prove(addr, nil), daemon.Plain(addr, nil)
	l.Keyring, err = keyring.New(keyring.Config{
		CheckEvery: 100 * time.Millisecond,
		Load:       func() ([]byte, error) { return os.ReadFile(file) },
		Save:       func(b []byte) error { return os.WriteFile(file, b, 0o600) },
		HandOver:   feed.ChronyHandOver(feed.HandOverOptions{Options: options(s)}),
		Prove: func(ctx context.Context, c []byte, session *cookie.Session) keyring.Answer {
			l.note(time.Now(), false)
			a := prove(ctx, c, session)
			l.note(time.Time{}, a == keyring.Silent)
			return a
		},
		Plain: func(ctx context.Context) bool {
			l.note(time.Now(), false)
			return plain(ctx)
		},
		Spacing: conf.Spacing(),
		Help:    func() keyring.Help { return daemon.Help(target(s, addr)) },
		Rand:    rand.Reader,
		Changed: l.onChange,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx); close(done) }()
	l.stop = func() { cancel(); <-done }
	t.Cleanup(l.stop)
	return l
}

func (l *line) note(at time.Time, silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !at.IsZero() {
		l.asked = append(l.asked, at)
	}
	if silent {
		l.silent++
	}
}

func (l *line) onChange() {
	s := l.State()
	l.mu.Lock()
	l.standings, l.mints = append(l.standings, s.Standing), append(l.mints, s.Minting)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *line) went(through keyring.Standing) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.standings, through)
}

// stoodStill says that chronyd, which never had reason to, did not answer in time.
func (l *line) stoodStill() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent > 0
}

// patience is when a test gives up; a good run never waits that long.
const patience = 2 * time.Minute

// until waits for a condition of the state.
func (l *line) until(what string, ok func(keyring.State) bool) keyring.State {
	l.t.Helper()
	timeout := time.After(patience)
	for {
		if s := l.State(); ok(s) {
			return s
		}
		select {
		case <-l.changed:
		case <-timeout:
			l.t.Fatalf("not %s within %s: %+v", what, patience, l.State())
		}
	}
}

func provenAndMinting(s keyring.State) bool { return s.Standing == keyring.Proven && s.Minting }

// answers asks chronyd about a cookie under each key of a ring.
func answers(t testing.TB, addr netip.AddrPort, keys []*cookie.Key) []keyring.Answer {
	t.Helper()
	var out []keyring.Answer
	for _, key := range keys {
		random := make([]byte, 2*32+16)
		rand.Read(random)
		session := &cookie.Session{AEAD: aead.SIVCMAC256, C2S: random[:32], S2C: random[32:64]}
		c, err := cookie.Chrony{}.Seal(nil, key, random[64:], session)
		if err != nil {
			t.Fatal(err)
		}
		answer := keyring.Silent
		for end := time.Now().Add(patience); answer == keyring.Silent && time.Now().Before(end); <-time.After(10 * time.Millisecond) { // it may stand still for a moment
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			answer = daemon.Prove(addr, nil)(ctx, c, session)
			cancel()
		}
		out = append(out, answer)
	}
	return out
}

func TestChronydOpensAllFourKeysAndRotates(t *testing.T) {
	t.Parallel()
	for _, release := range []parts.Release{parts.Debian12, parts.Debian13} {
		t.Run(release.String(), func(t *testing.T) {
			t.Parallel()
			opensAllFourAndRotates(t, release)
		})
	}
}

func opensAllFourAndRotates(t *testing.T, release parts.Release) {
	s := chronytest.Start(t, chronytest.Options{Release: release})
	l := startLine(t, s, s.Addr, filepath.Join(t.TempDir(), "keys"))
	before := l.until("proven", provenAndMinting)
	old := l.Current()
	if got := answers(t, s.Addr, old.Keys()); slices.ContainsFunc(got, notAnswered) || len(got) != 4 {
		t.Fatalf("answers to the four keys: %v", got)
	}
	err := l.Rotate(t.Context())
	after := l.State()
	if l.stoodStill() { // then it goes on by itself
		after, err = l.until("rotated", func(s keyring.State) bool { return s.Current == before.Next && provenAndMinting(s) }), nil
	}
	if err != nil || after.Current != before.Next || after.Pending || l.Current().Current().ID() != before.Next {
		t.Errorf("rotated from %+v to %+v, %v", before, after, err)
	}
	if got := answers(t, s.Addr, old.Keys()[:1]); got[0] != keyring.Refused {
		t.Errorf("the dropped key is %s, not refused", got[0])
	}
	if got := answers(t, s.Addr, l.Current().Keys()); slices.ContainsFunc(got, notAnswered) {
		t.Errorf("answers after the rotation: %v", got)
	}
	if l.went(keyring.Refuses) {
		t.Error("a refusal was seen on the way")
	}
	info, err := os.Stat(s.KeysFile)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	leftovers(t, s.Dir)
}

func notAnswered(a keyring.Answer) bool { return a != keyring.Answered }

// leftovers fails when a temporary file or a socket of ours is left.
func leftovers(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "ntsagent") && e.Name() != ".ntsagent.lock" {
			t.Errorf("left over: %s", e.Name())
		}
	}
}

func TestChronydWithRatelimitIsAskedSlowlyAndProven(t *testing.T) {
	t.Parallel()
	s := chronytest.Start(t, chronytest.Options{ExtraConf: []string{"ratelimit interval 3 burst 1"}})
	l := startLine(t, s, s.Addr, filepath.Join(t.TempDir(), "keys"))
	l.until("proven", provenAndMinting)
	received, dropped := s.Dropped()
	l.mu.Lock()
	defer l.mu.Unlock()
	if dropped > 0 {
		t.Errorf("%d of %d queries were dropped: they came too fast", dropped, received)
	}
	// One that was not dropped is silent where somebody stood still for seconds.
	if slices.Contains(l.standings, keyring.Refuses) || l.silent == 0 && slices.Contains(l.standings, keyring.Unseen) {
		t.Errorf("went through %v", l.standings)
	}
	for i := 1; i < len(l.asked); i++ {
		if gap := l.asked[i].Sub(l.asked[i-1]); gap < 8*time.Second {
			t.Errorf("query %d came %s after the one before", i, gap)
		}
	}
}

func TestChronydThatAllowsNobodyIsUnseenNotRefusing(t *testing.T) {
	t.Parallel()
	s := chronytest.Start(t, chronytest.Options{NoAllow: true})
	file := filepath.Join(t.TempDir(), "keys")
	l := startLine(t, s, s.Addr, file)
	state := l.until("unseen", func(s keyring.State) bool { return s.Standing == keyring.Unseen })
	if l.Current() != nil || !strings.Contains(state.Why, "allow 127.0.0.1") {
		t.Errorf("minting with keys never proven, or no fix: %+v", state)
	}

	// The operator mends it; later the line is lost again.
	s.Reconfigure(chronytest.Options{})
	l.until("proven", provenAndMinting)
	s.Reconfigure(chronytest.Options{NoAllow: true})
	l.until("unseen", func(s keyring.State) bool { return s.Standing == keyring.Unseen })
	if l.Current() == nil {
		t.Error("serving stopped because the daemon could not be seen")
	}
	current := l.State().Current
	l.stop()

	again := startLine(t, s, s.Addr, file)
	again.until("unseen after a restart", func(s keyring.State) bool { return s.Standing == keyring.Unseen })
	if ring := again.Current(); ring == nil || ring.Current().ID() != current {
		t.Errorf("after a restart it mints with %v, not with the proven %08x", ring, current)
	}
	if l.went(keyring.Refuses) || again.went(keyring.Refuses) {
		t.Error("silence was taken for refusal")
	}
}

func TestChronydBoundToOneAddressIsSeenThereOnly(t *testing.T) {
	t.Parallel()
	s := chronytest.Start(t, chronytest.Options{ExtraConf: []string{"bindaddress 127.0.0.1"}})
	file := filepath.Join(t.TempDir(), "keys")
	wrong := startLine(t, s, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), s.Addr.Port()), file)
	state := wrong.until("unseen", func(s keyring.State) bool { return s.Standing == keyring.Unseen })
	if wrong.Current() != nil || wrong.went(keyring.Refuses) || !strings.Contains(state.Why, "daemon.address") {
		t.Errorf("at the wrong address: %+v", state)
	}
	wrong.stop()

	conf, err := daemon.ReadChrony(s.Conf)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := conf.Address()
	if err != nil || addr != s.Addr {
		t.Fatalf("Address = %s, %v; want %s", addr, err, s.Addr)
	}
	startLine(t, s, addr, file).until("proven", provenAndMinting)
}

func TestChronydWithABrokenKeyFileIsNoticedThoughItSaysOK(t *testing.T) {
	t.Parallel()
	s := chronytest.Start(t, chronytest.Options{})
	l := startLine(t, s, s.Addr, filepath.Join(t.TempDir(), "keys"))
	l.until("proven", provenAndMinting)
	good := l.Current()

	// A cut off file with other keys in the same slots: chronyd 4.3 takes what
	// it has read before the cut, and says OK.
	var others []*cookie.Key
	for _, key := range good.Keys() {
		secret := make([]byte, 32)
		rand.Read(secret)
		other, err := cookie.NewKey(key.ID()+64, aead.SIVCMAC256, secret)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, other)
	}
	ring, err := cookie.NewRing(others, 2)
	if err != nil {
		t.Fatal(err)
	}
	file := cookie.Chrony{}.AppendKeys(nil, ring)
	if err := os.WriteFile(s.KeysFile, file[:len(file)-20], 0o640); err != nil {
		t.Fatal(err)
	}
	err = feed.Rekey(t.Context(), s.Socket)
	for end := time.Now().Add(patience); errors.Is(err, feed.ErrNoReply) && time.Now().Before(end); {
		err = feed.Rekey(t.Context(), s.Socket)
	}
	if err != nil {
		t.Fatalf("chronyd no longer says OK to a broken file: %v", err)
	}
	l.until("proven again", func(s keyring.State) bool { return provenAndMinting(s) && l.went(keyring.Refuses) })
	l.mu.Lock()
	i := slices.Index(l.standings, keyring.Refuses)
	minted := l.mints[i]
	l.mu.Unlock()
	if minted {
		t.Error("minting went on under a key chronyd refused")
	}
	if got := answers(t, s.Addr, good.Keys()); slices.ContainsFunc(got, notAnswered) {
		t.Errorf("after handing over again: %v", got)
	}
}

func TestChronydRestartedLoadsTheKeysAndWhileDownIsUnseen(t *testing.T) {
	t.Parallel()
	s := chronytest.Start(t, chronytest.Options{})
	l := startLine(t, s, s.Addr, filepath.Join(t.TempDir(), "keys"))
	first := l.until("proven", provenAndMinting)
	s.Stop()
	l.until("unseen", func(s keyring.State) bool { return s.Standing == keyring.Unseen })
	if l.Current() == nil {
		t.Error("serving stopped while chronyd was down")
	}
	s.Restart()
	second := l.until("proven", provenAndMinting)
	if first.Current != second.Current || l.went(keyring.Refuses) {
		t.Errorf("chronyd did not load its file at the start: %+v, then %+v", first, second)
	}
}
