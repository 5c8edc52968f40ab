package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"ntsagent/ntske/packet"
)

// exchanged is a world and what a key exchange in it gave.
func exchanged(t *testing.T) (*world, Result) {
	t.Helper()
	w := newWorld(t, "127.0.0.1", nil)
	res, err := KeyExchange(patient(t), Config{Addr: w.ke, Name: testName, Roots: w.roots})
	if err != nil {
		t.Fatal(err)
	}
	return w, res
}

// briefly is a context that ends before long, where it does not matter how far things have come by then.
func briefly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestQueryWithAnInitialAndWithARefreshedCookie(t *testing.T) {
	w, res := exchanged(t)
	begin := time.Now()
	first, err := Query(patient(t), w.ntp.addr, res.Keys, res.Cookies[0], 2)
	took := time.Since(begin)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Cookies) != 3 || first.Header.Stratum != 2 {
		t.Errorf("%d cookies, header %+v", len(first.Cookies), first.Header)
	}
	const least = time.Millisecond // for the rounding of timestamps, and a slew
	if d := first.Offset.Abs(); d > first.Delay/2+least || first.Delay < 0 || first.Delay > took+least {
		t.Errorf("offset %v, delay %v on one clock in %v", first.Offset, first.Delay, took)
	}
	second, err := Query(patient(t), w.ntp.addr, res.Keys, first.Cookies[2], 0)
	if err != nil || len(second.Cookies) != 1 {
		t.Errorf("refreshed cookie: %d cookies, %v", len(second.Cookies), err)
	}
}

func TestEveryQueryIsNew(t *testing.T) {
	w, res := exchanged(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	w.ntp.hook(func(_ int32, request []byte, _ func([]byte)) bool {
		mu.Lock()
		defer mu.Unlock()
		req, err := parseRequest(request)
		if err != nil {
			t.Error(err)
		}
		seen[string(req.uid)], seen[string(request[40:48])] = true, true
		if h := req.header; h.Version != 4 || h.Mode != 3 || len(req.uid) != 32 || !bytes.Equal(request[1:40], make([]byte, 39)) {
			t.Errorf("the header tells more than it must: % x", request[:48])
		}
		return true
	})
	for i := range 3 {
		if _, err := Query(patient(t), w.ntp.addr, res.Keys, res.Cookies[i], 0); err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 6 {
		t.Errorf("%d different identifiers and timestamps in 3 queries, want 6", len(seen))
	}
}

func TestForgedRepliesArePassedOver(t *testing.T) {
	t.Parallel()
	w, res := exchanged(t)
	spoil := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	answer := func(f func([]byte) []byte) func(int32, []byte, func([]byte)) bool {
		return func(_ int32, request []byte, send func([]byte)) bool {
			send(f(w.ntp.answer(bytes.Clone(request), time.Now())))
			return true // and then the true answer
		}
	}
	forgeries := map[string]func(int32, []byte, func([]byte)) bool{
		"another stratum":           answer(spoil(1)),
		"another origin":            answer(spoil(24)),
		"another receive time":      answer(spoil(32)),
		"another unique identifier": answer(spoil(60)),
		"another sealed text":       answer(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),
		"cut off":                   answer(func(b []byte) []byte { return b[:len(b)-4] }),
		"cut to the header":         answer(func(b []byte) []byte { return b[:48] }),
		"one octet":                 answer(func(b []byte) []byte { return b[:1] }),
		"empty":                     answer(func(b []byte) []byte { return nil }),
		"the request reflected":     func(_ int32, request []byte, send func([]byte)) bool { send(request); return true },
		"a NAK for somebody else": func(_ int32, request []byte, send func([]byte)) bool {
			q, _ := packet.ParseHeader(request)
			uid := make([]byte, 32)
			rand.Read(uid)
			send(nak(q, uid))
			return true
		},
		"a NAK with another origin": func(_ int32, request []byte, send func([]byte)) bool {
			q, _ := packet.ParseHeader(request)
			r, _ := parseRequest(request)
			q.Transmit++
			send(nak(q, r.uid))
			return true
		},
		"an unauthenticated RATE kiss": func(_ int32, request []byte, send func([]byte)) bool {
			q, _ := packet.ParseHeader(request)
			r, _ := parseRequest(request)
			b := nak(q, r.uid)
			copy(b[12:], "RATE")
			send(b)
			return true
		},
	}
	for name, forge := range forgeries {
		t.Run(name, func(t *testing.T) {
			w.ntp.hook(forge)
			reply, err := Query(patient(t), w.ntp.addr, res.Keys, res.Cookies[0], 0)
			if err != nil || reply.Header.Stratum != 2 {
				t.Errorf("got %+v, %v", reply.Header, err)
			}
			w.ntp.hook(func(n int32, request []byte, send func([]byte)) bool { forge(n, request, send); return false })
			_, err = Query(briefly(t), w.ntp.addr, res.Keys, res.Cookies[0], 0)
			if !errors.Is(err, ErrSilent) && !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("the forgery alone: %v", err)
			}
			blames(t, err, Server, "ntp", "the server did not answer")
		})
	}
}

func TestAuthenticAnswerToAnotherRequestIsPassedOver(t *testing.T) {
	w, res := exchanged(t)
	other := func(h *packet.Header) { h.Origin++ }
	w.ntp.header.Store(&other)
	if reply, err := Query(briefly(t), w.ntp.addr, res.Keys, res.Cookies[0], 0); !errors.Is(err, ErrSilent) {
		t.Errorf("got %+v, %v", reply, err)
	}
}

func TestForgeryAloneIsToldFromSilence(t *testing.T) {
	w, res := exchanged(t)
	w.ntp.hook(func(_ int32, request []byte, send func([]byte)) bool {
		b := w.ntp.answer(bytes.Clone(request), time.Now())
		b[1] ^= 1
		send(b)
		return false
	})
	arrived := func(err error) bool { return !errors.Is(err, ErrSilent) }
	err := soon(t, arrived, func(ctx context.Context) error {
		_, err := Query(ctx, w.ntp.addr, res.Keys, res.Cookies[0], 0)
		return err
	})
	if !errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrSilent) {
		t.Errorf("got %v", err)
	}
}

func TestNAKSilenceAndAClosedPort(t *testing.T) {
	w, res := exchanged(t)
	bad := bytes.Clone(res.Cookies[0])
	bad[50] ^= 1
	begin := time.Now()
	_, err := Query(patient(t), w.ntp.addr, res.Keys, bad, 0)
	if !errors.Is(err, ErrNAK) || time.Since(begin) > patience/2 { // and not when the time was over
		t.Errorf("NAK: %v after %v", err, time.Since(begin))
	}
	blames(t, err, Server, "ntp", "the server did not open its own cookie")

	w.ntp.hook(func(int32, []byte, func([]byte)) bool { return false })
	_, err = Query(briefly(t), w.ntp.addr, res.Keys, res.Cookies[0], 0)
	if !errors.Is(err, ErrSilent) {
		t.Errorf("silence: %v", err)
	}
	_, err = Plain(briefly(t), w.ntp.addr)
	if !errors.Is(err, ErrSilent) {
		t.Errorf("plain silence: %v", err)
	}

	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 5, 9, 77)}) // where nobody else takes the port
	if err != nil {
		t.Fatal(err)
	}
	closed := c.LocalAddr().(*net.UDPAddr).AddrPort()
	c.Close()
	begin = time.Now()
	_, err = Query(patient(t), closed, res.Keys, res.Cookies[0], 0)
	if !errors.Is(err, ErrSilent) || time.Since(begin) > patience/2 {
		t.Errorf("closed port: %v after %v", err, time.Since(begin))
	}
	blames(t, err, Server, "ntp", "nothing listens on that UDP port")
}

func TestQueriesThisToolCannotMake(t *testing.T) {
	w, res := exchanged(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Query(cancelled, w.ntp.addr, res.Keys, res.Cookies[0], 0)
	blames(t, err, Tool, "ntp", "go on")
	_, err = Query(patient(t), w.ntp.addr, Keys{AEAD: 30, C2S: make([]byte, 32), S2C: make([]byte, 16)}, res.Cookies[0], 0)
	blames(t, err, Tool, "ntp", "seal a request with AES-128-GCM-SIV")
	_, err = Plain(patient(t), nowhere)
	blames(t, err, Tool, "ntp", "reach the server")

	interrupted, stop := context.WithCancel(patient(t))
	w.ntp.hook(func(int32, []byte, func([]byte)) bool { stop(); return false })
	_, err = Plain(interrupted, w.ntp.addr)
	blames(t, err, Tool, "ntp", "go on")
}

func TestPlainTakesOnlyTheAnswerToItsOwnRequest(t *testing.T) {
	w, _ := exchanged(t)
	w.ntp.hook(func(_ int32, request []byte, send func([]byte)) bool {
		b := w.ntp.answer(bytes.Clone(request), time.Now())
		b[1] = 9
		b[24] ^= 1 // another origin
		send(b)
		b[24] ^= 1
		b[0]-- // another mode
		send(b)
		send(request)
		send(nil)
		return true
	})
	reply, err := Plain(patient(t), w.ntp.addr)
	if err != nil || reply.Header.Stratum != 2 {
		t.Errorf("got %+v, %v", reply, err)
	}
}
