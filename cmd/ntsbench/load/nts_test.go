package load

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/packet"
)

// short is how long a load against a fake lasts.
const short = 100 * time.Millisecond

func (f *fake) load() NTSConfig {
	return NTSConfig{NTP: f.ntp, KE: f.ke, Sockets: 2, Window: 3, For: short, LostAfter: patience}
}

func TestAGoodReplyIsDone(t *testing.T) {
	t.Parallel()
	for placeholders := range 8 {
		for _, alg := range []aead.ID{0, aead.SIVCMAC256, aead.GCMSIV128} {
			f := startFake(t, good)
			c := f.load()
			c.Placeholders, c.AEAD = placeholders, alg
			begun := 0
			c.Begin = func() { begun++; f.wantAsked(t, 0) }
			r, err := NTS(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if r.Done == 0 || r.Failed != 0 || r.Done != f.asked() || r.Exchanges != 2 || begun != 1 {
				t.Errorf("%v, %d placeholders: %d done of %d, %d failed (%v), %d key exchanges, %d begun", alg, placeholders, r.Done, f.asked(), r.Failed, r.FirstErr, r.Exchanges, begun)
			}
			octets := 228 + placeholders*104 // of the two there are
			if alg == aead.GCMSIV128 {
				octets = 192 + placeholders*72
			}
			if r.Request != octets || r.Reply != octets {
				t.Errorf("%v, %d placeholders: requests of %d, replies of %d octets, want %d", alg, placeholders, r.Request, r.Reply, octets)
			}
			f.wantAllFresh(t)
		}
	}
}

func TestARightNAKToACookieUnderAnUnknownKeyIsDone(t *testing.T) {
	t.Parallel()
	for _, alg := range []aead.ID{aead.SIVCMAC256, aead.GCMSIV128} {
		f := startFakeFor(t, true, func(a *answer) [][]byte { nak(a); return good(a) })
		c := f.load()
		c.UnknownKey, c.AEAD = true, alg
		r, err := NTS(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Done == 0 || r.Failed != 0 || r.Done != f.asked() || r.Exchanges != 2 || r.Offset.Len() != 0 || r.Reply != nakLen || r.Request <= nakLen {
			t.Errorf("%v: %d done of %d, %d failed (%v), %d key exchanges, %d offsets", alg, r.Done, f.asked(), r.Failed, r.FirstErr, r.Exchanges, r.Offset.Len())
		}
		f.wantAllFresh(t)
	}
}

// lostAfter is how long a load that fails for that reason waits for a reply: where none answers its request, so
// that the load ends with its loss, no longer than anything here stands still.
func lostAfter(reason error) time.Duration {
	if reason == errStray {
		return 6 * time.Second
	}
	return patience
}

// nak turns an answer into an NTS NAK.
func nak(a *answer) {
	a.header = packet.Header{Leap: 3, Version: 4, Mode: packet.ModeServer, RefID: [4]byte([]byte("NTSN")), Origin: a.header.Origin}
	a.unsealed = true
}

func TestAnythingElseThanANAKToAnUnknownKeyIsNeverDone(t *testing.T) {
	t.Parallel()
	var going sync.WaitGroup
	for name, c := range map[string]struct {
		twist  func(*answer)
		reason error
	}{
		"the time":                           {func(*answer) {}, errServed},
		"the time, unauthenticated":          {func(a *answer) { a.unsealed = true }, packet.ErrUnauthenticated},
		"another kiss":                       {func(a *answer) { nak(a); a.header.RefID = [4]byte([]byte("RATE")) }, packet.ErrUnauthenticated},
		"another origin timestamp":           {func(a *answer) { nak(a); a.header.Origin++ }, errOrigin},
		"no unique identifier":               {func(a *answer) { nak(a); a.uid = nil }, errStray},
		"end of the unique identifier wrong": {func(a *answer) { nak(a); a.uid = slices.Clone(a.uid); a.uid[31] ^= 1 }, packet.ErrNotOurs},
		"a leap indicator of one who knows":  {func(a *answer) { nak(a); a.header.Leap = 0 }, errKiss},
		"a cookie in the clear":              {func(a *answer) { nak(a); a.clear = true }, errKiss},
		"longer than the request":            {func(a *answer) { nak(a); a.trailing = make([]byte, 200) }, errLonger},
		"mode of a client":                   {func(a *answer) { nak(a); a.header.Mode = packet.ModeClient }, packet.ErrNotOurs},
	} {
		f := startFakeFor(t, true, func(a *answer) [][]byte { c.twist(a); return good(a) })
		load := f.load()
		load.UnknownKey, load.LostAfter = true, lostAfter(c.reason)
		going.Go(func() {
			r, err := NTS(t.Context(), load)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if r.Done != 0 || r.Failed < f.asked() || !errors.Is(r.FirstErr, c.reason) {
				t.Errorf("%s: %d done, %d of %d failed, the first: %v, want %v", name, r.Done, r.Failed, f.asked(), r.FirstErr, c.reason)
			}
		})
	}
	going.Wait()
}

func TestAWrongReplyIsNeverDone(t *testing.T) {
	t.Parallel()
	var going sync.WaitGroup
	kiss := func(code string) func(*answer) {
		return func(a *answer) {
			a.header.Leap, a.header.Stratum, a.header.RefID, a.unsealed = 3, 0, [4]byte([]byte(code)), true
		}
	}
	for name, c := range map[string]struct {
		twist  func(*answer)
		reason error
	}{
		"another origin timestamp":           {func(a *answer) { a.header.Origin++ }, errOrigin},
		"a cookie too few":                   {func(a *answer) { a.cookies = a.cookies[1:] }, errCookies},
		"no cookie":                          {func(a *answer) { a.cookies = nil }, errCookies},
		"a cookie shorter than the spent":    {func(a *answer) { a.cookies[0] = a.cookies[0][4:] }, errCookieSize},
		"a cookie twice":                     {func(a *answer) { a.cookies[1] = a.cookies[0] }, errStale},
		"an NTS NAK":                         {kiss("NTSN"), packet.ErrNAK},
		"an unauthenticated kiss":            {kiss("RATE"), packet.ErrUnauthenticated},
		"an authenticated kiss":              {func(a *answer) { a.header.Stratum, a.header.RefID = 0, [4]byte([]byte("RATE")) }, errHeader},
		"a cookie in the clear":              {func(a *answer) { a.cookies, a.clear = a.cookies[1:], true }, errCookies},
		"both cookies in the clear":          {func(a *answer) { a.clear = true }, packet.ErrMalformed},
		"no authenticator":                   {func(a *answer) { a.unsealed = true }, packet.ErrUnauthenticated},
		"another key":                        {func(a *answer) { a.seal = sealWrong(a.seal) }, packet.ErrUnauthenticated},
		"longer than the request":            {func(a *answer) { a.trailing = make([]byte, 100) }, errLonger},
		"one cookie too many, so too long":   {func(a *answer) { a.cookies = append(a.cookies, make([]byte, len(a.cookies[0]))) }, errLonger},
		"a clock that is not synchronised":   {func(a *answer) { a.header.Leap = 3 }, errHeader},
		"stratum 16":                         {func(a *answer) { a.header.Stratum = 16 }, errHeader},
		"no receive timestamp":               {func(a *answer) { a.header.Receive = 0 }, errHeader},
		"mode of a client":                   {func(a *answer) { a.header.Mode = packet.ModeClient }, packet.ErrNotOurs},
		"end of the unique identifier wrong": {func(a *answer) { a.uid = slices.Clone(a.uid); a.uid[31] ^= 1 }, packet.ErrNotOurs},
		"another unique identifier":          {func(a *answer) { a.uid = slices.Clone(a.uid); a.uid[0] ^= 1 }, errStray},
		"no unique identifier":               {func(a *answer) { a.uid = nil }, errStray},
	} {
		f := startFake(t, func(a *answer) [][]byte { c.twist(a); return good(a) })
		load := f.load()
		load.Placeholders, load.AEAD, load.LostAfter = 1, []aead.ID{aead.SIVCMAC256, aead.GCMSIV128}[len(name)%2], lostAfter(c.reason)
		going.Go(func() {
			r, err := NTS(t.Context(), load)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if r.Done != 0 || r.Latency.Len() != 0 || r.Offset.Len() != 0 {
				t.Errorf("%s: %d done, %d latencies, %d offsets", name, r.Done, r.Latency.Len(), r.Offset.Len())
			}
			if r.Failed-r.Lost < f.asked() || !errors.Is(r.FirstErr, c.reason) {
				t.Errorf("%s: %d of %d failed, the first: %v, want %v", name, r.Failed-r.Lost, f.asked(), r.FirstErr, c.reason)
			}
			f.wantAllFresh(t)
		})
	}
	going.Wait()
}

// sealWrong is a seal under which nothing authenticates.
func sealWrong(seal packet.Seal) packet.Seal {
	return func(dst, nonce, plaintext, ad []byte) []byte {
		out := seal(dst, nonce, plaintext, ad)
		out[len(dst)] ^= 1
		return out
	}
}

func TestASecondCopyOfAReplyIsAFailureAndNotDone(t *testing.T) {
	t.Parallel()
	f := startFake(t, func(a *answer) [][]byte { return append(good(a), a.datagram()) })
	r, err := NTS(t.Context(), f.load())
	if err != nil {
		t.Fatal(err)
	}
	if r.Done == 0 || r.Done != f.asked() {
		t.Errorf("%d done of %d", r.Done, f.asked())
	}
	if r.Failed == 0 || !errors.Is(r.FirstErr, errStray) {
		t.Errorf("%d copies seen, %v; want %v", r.Failed, r.FirstErr, errStray)
	}
}

func TestSilenceIsLossAndNewKeysAreExchanged(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := NTSConfig{Sockets: 2, Window: 3, LostAfter: 20 * time.Millisecond}
	f := startFake(t, func(a *answer) [][]byte {
		if a.n > c.Sockets*cookiesWanted { // with a cookie of another key exchange
			cancel()
		}
		return nil
	})
	c.NTP, c.KE = f.ntp, f.ke
	r, err := NTS(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Done != 0 || r.Lost != r.Failed || !errors.Is(r.FirstErr, errSilent) {
		t.Errorf("%d done, %d failed, %d lost (%v)", r.Done, r.Failed, r.Lost, r.FirstErr)
	}
	eventually(t, func() bool { return f.asked() == r.Failed }) // what was lost may still lie in its socket
	if r.Exchanges <= c.Sockets {
		t.Errorf("%d key exchanges for %d lost cookies", r.Exchanges, f.asked())
	}
	f.wantAllFresh(t)
}

func TestALateReplyIsLostOnceAndNotDone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var held []byte
	f := startFake(t, func(a *answer) [][]byte {
		switch a.n {
		case 1:
			held = a.datagram()
			return nil
		case 2: // sent when the first was given up
			return [][]byte{held, a.datagram()}
		case 5:
			cancel()
		}
		return good(a)
	})
	r, err := NTS(ctx, NTSConfig{NTP: f.ntp, KE: f.ke, Sockets: 1, Window: 1, LostAfter: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return f.asked() >= r.Done+r.Lost }) // what was lost may still lie in its socket
	// One is lost, and more when somebody stands still. None of the late replies counts besides.
	if r.Lost == 0 || r.Failed != r.Lost || r.Done+r.Lost != f.asked() || r.Done == 0 {
		t.Errorf("%d done, %d failed (%v), %d lost of %d, want one lost and the others done", r.Done, r.Failed, r.FirstErr, r.Lost, f.asked())
	}
}

func TestAFailedKeyExchangeInTheMiddleIsAFailure(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	f := startFake(t, func(a *answer) [][]byte {
		if a.n == 1 {
			close(asked)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	c := NTSConfig{NTP: f.ntp, KE: f.ke, Sockets: 2, Window: 8, LostAfter: 10 * time.Millisecond}
	c.KE.Addr = redirect(t, c.KE.Addr, asked, func(refused int) {
		if refused == 2 { // the first has been counted by now
			cancel()
		}
	})
	r, err := NTS(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	// Every query has failed, and a key exchange besides.
	if r.Failed <= f.asked() || r.Exchanges != c.Sockets {
		t.Errorf("%d failed of %d queries (%v), %d key exchanges", r.Failed, f.asked(), r.FirstErr, r.Exchanges)
	}
}

func TestALoadThatCannotBeginSaysWhy(t *testing.T) {
	t.Parallel()
	f := startFake(t, good)
	for name, change := range map[string]func(*NTSConfig){
		"nobody exchanges keys":   func(c *NTSConfig) { c.KE.Addr = netip.MustParseAddrPort("127.0.0.1:1") },
		"another name":            func(c *NTSConfig) { c.KE.Name = "other.test" },
		"no sockets":              func(c *NTSConfig) { c.Sockets = 0 },
		"no window":               func(c *NTSConfig) { c.Window = 0 },
		"a window of 65537":       func(c *NTSConfig) { c.Window = 1<<16 + 1 },
		"eight placeholders":      func(c *NTSConfig) { c.Placeholders = 8 },
		"a negative rate":         func(c *NTSConfig) { c.Rate = -1 },
		"-1 placeholders":         func(c *NTSConfig) { c.Placeholders = -1 },
		"an AEAD nobody knows":    func(c *NTSConfig) { c.AEAD = 99 },
		"an AEAD nobody opens":    func(c *NTSConfig) { c.AEAD = aead.SIVCMAC512 },
		"an address that is none": func(c *NTSConfig) { c.NTP = netip.AddrPort{} },
	} {
		c := f.load()
		change(&c)
		if r, err := NTS(t.Context(), c); err == nil {
			t.Errorf("%s: %d done and no error", name, r.Done)
		}
	}
}

func TestALoadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, rate := range map[string]float64{"closed loop": 0, "open loop": 1000} {
		ctx, cancel := context.WithCancel(t.Context())
		f := startFake(t, func(a *answer) [][]byte {
			if a.n == 20 {
				cancel()
			}
			return good(a)
		})
		c := f.load()
		c.For, c.Rate = 0, rate
		r, err := NTS(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Done < 20 || r.Failed != 0 {
			t.Errorf("%s: %d done, %d failed (%v)", name, r.Done, r.Failed, r.FirstErr)
		}
	}
}
