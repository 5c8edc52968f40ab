package ntske

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/cookie"
	"ntsagent/ntske/record"
)

func TestRequestMayComeInAnyPieces(t *testing.T) {
	l := newLab(t, labTime, nil)
	request := join(rec(99, make([]byte, 40)...), plain)
	t.Run("one octet in each TLS record", func(t *testing.T) {
		var pieces [][]byte
		for i := range request {
			pieces = append(pieces, request[i:i+1])
		}
		l.serves(t, pieces...)
	})
	t.Run("cut in two at every place", func(t *testing.T) {
		for i := 1; i < len(plain); i++ {
			l.serves(t, plain[:i], plain[i:])
		}
	})
	t.Run("with empty TLS records between", func(t *testing.T) {
		l.serves(t, nextNTPv4, nil, nil, aead15, nil, end)
	})
	t.Run("and the client's close_notify right behind it", func(t *testing.T) {
		s := l.open(t)
		s.Write(plain)
		s.CloseWrite()
		if all := fields(t, s.rest(t)); len(bodies(all, 5)) != 8 {
			t.Errorf("a half-closed client got records %v", kinds(all))
		}
		l.outcome(t, Served)
	})
}

// wellFormed says what is wrong with an answer, as a strict client sees it.
func wellFormed(answer []byte) error {
	_, err := record.ReadResponse(bytes.NewReader(answer))
	var told *record.Error
	if errors.As(err, &told) {
		return nil
	}
	return err
}

func TestEveryMutatedRequestIsAnsweredWellAndOnce(t *testing.T) {
	l := newLab(t, labTime, nil)
	var mutants [][]byte
	for i := range plain {
		for bit := range 8 {
			m := bytes.Clone(plain)
			m[i] ^= 1 << bit
			mutants = append(mutants, m)
		}
		mutants = append(mutants, join(plain[:i], plain[i+1:]), join(plain[:i], []byte{0}, plain[i:]))
	}
	work := make(chan []byte)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for m := range work {
				s := l.open(t)
				s.Write(m)
				s.CloseWrite() // so that what has become incomplete need not time out
				if answer := s.rest(t); wellFormed(answer) != nil {
					t.Errorf("request % x\nanswer % x: %v", m, answer, wellFormed(answer))
				}
				s.Close()
			}
		})
	}
	for _, m := range mutants {
		work <- m
	}
	close(work)
	wg.Wait()
	for deadline := time.Now().Add(labTime); ; {
		l.mu.Lock()
		n := len(l.outcomes)
		l.mu.Unlock()
		if n == len(mutants) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d outcomes for %d connections", n, len(mutants))
		}
		<-time.After(time.Millisecond)
	}
}

func TestPeersWhoHangUpAreCountedAsGone(t *testing.T) {
	l := newLab(t, labTime, nil)
	t.Run("close_notify instead of a request", func(t *testing.T) {
		s := l.open(t)
		s.CloseWrite()
		if got := s.rest(t); !bytes.Equal(got, error1) {
			t.Errorf("got % x", got)
		}
		l.outcome(t, PeerGone)
	})
	t.Run("a reset in the middle of a request", func(t *testing.T) {
		s := l.open(t)
		s.Write(plain[:5])
		s.wire.Conn.(*net.TCPConn).SetLinger(0)
		s.wire.Conn.Close()
		l.outcome(t, PeerGone)
	})
}

// A scanner must not be able to write our logs, and no log may hold a secret.
func TestMistakesOfPeersAreDebugLinesWithoutSecrets(t *testing.T) {
	for _, level := range []hclog.Level{hclog.Info, hclog.Debug} {
		var mu sync.Mutex
		var log bytes.Buffer
		l := newLab(t, labTime, func(c *Config) {
			c.Log = hclog.New(&hclog.LoggerOptions{Level: level, Output: &log, Mutex: &mu})
		})
		evil := "\n{\"@level\":\"error\"}\x1b[2J"
		l.refuses(t, join(nextNTPv4, aead15, rec(6, []byte(evil)...), end), error1, BadRequest)
		l.refuses(t, join(rec(critical|99, []byte(evil)...), end), error0, UnrecognizedCritical)
		cookies := bodies(l.serves(t, plain), 5)
		session, err := cookie.Chrony{}.Open(nil, l.ring, cookies[0])
		if err != nil {
			t.Fatal(err)
		}
		l.refuses(t, end, error1, BadRequest)
		// The line is written right after the outcome is told.
		written := func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
		for end := time.Now().Add(labTime); level == hclog.Debug && strings.Count(written(), "key exchange ended") < 3 && time.Now().Before(end); {
			<-time.After(time.Millisecond)
		}
		text := written()
		switch lines := strings.Count(text, "\n"); {
		case level == hclog.Info && text != "":
			t.Errorf("above debug: %s", text)
		case level == hclog.Debug && (lines != 3 || strings.Count(text, "key exchange ended") != 3):
			t.Errorf("want three debug lines, got:\n%s", text)
		}
		for _, secret := range [][]byte{cookies[0], session.C2S, session.S2C, []byte("\x1b")} {
			if strings.Contains(text, string(secret)) || strings.Contains(text, hex.EncodeToString(secret)) {
				t.Errorf("the log holds % x", secret)
			}
		}
	}
}

func TestNewRefusesWhatCannotServe(t *testing.T) {
	ring := func(context.Context) *cookie.Ring { return nil }
	for name, c := range map[string]Config{
		"no ring": {}, "nine cookies": {Ring: ring, Cookies: 9}, "negative cookies": {Ring: ring, Cookies: -1}, "a bad host": {Ring: ring, NTPHost: "a b"},
	} {
		if s, err := New(c); err == nil {
			t.Errorf("%s: got %v", name, s)
		}
	}
}

func TestOutcomeNamesAreStable(t *testing.T) {
	if n := len(Outcomes()); n != 10 {
		t.Errorf("%d outcomes", n)
	}
	seen := map[string]bool{}
	for _, o := range append(Outcomes(), 0, 99) {
		seen[o.String()] = true
	}
	if len(seen) != 11 || !seen["served"] || !seen["no alpn"] || !seen["unknown"] {
		t.Errorf("names %v", seen)
	}
}

// FuzzNegotiate: whatever parses is answered with a form that a strict client
// takes, and by RFC 8915 §4.1.5 with an algorithm when 15 was offered.
func FuzzNegotiate(f *testing.F) {
	f.Add(plain)
	f.Add(join(rec(critical|1, 0x80, 1, 0, 0), rec(4, 0, 30, 0, 15), rec(1024), end))
	f.Add(join(nextNTPv4, aead15, rec(6, []byte(testName)...), end))
	f.Add(join(nextNTPv4, rec(4, 0, 17), rec(6, []byte("127.0.0.1")...), rec(7, 0, 123), end))
	f.Fuzz(func(t *testing.T, message []byte) {
		req, err := record.ReadRequest(bytes.NewReader(message))
		if err != nil {
			return
		}
		o := offer{opens: cookie.Chrony{}.AEADs()}
		resp, outcome := negotiate(req, o, netip.MustParseAddr("127.0.0.1"), testName)
		if outcome == Served {
			resp.Cookies = append(resp.Cookies, make([]byte, 100))
		}
		answer := resp.AppendTo(nil)
		if err := wellFormed(answer); err != nil {
			t.Errorf("request % x\nanswer % x: %v", message, answer, err)
		}
		if len(resp.AEADs) > 0 != (outcome == Served) || resp.Compliant128GCM {
			t.Errorf("%v with %+v", outcome, resp)
		}
	})
}
