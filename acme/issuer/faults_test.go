package issuer_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A wall stands between an agent and its CA.
type wall = func(real http.Handler) http.Handler

// after lets fault answer what has prefix in its path once something with the first prefix was asked for.
func after(first, prefix string, fault http.Handler) wall {
	return func(real http.Handler) http.Handler {
		var seen atomic.Bool
		hit := at(prefix, fault)(real)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if seen.Load() {
				hit.ServeHTTP(w, r)
				return
			}
			real.ServeHTTP(w, r)
			if strings.HasPrefix(r.URL.Path, first) {
				seen.Store(true)
			}
		})
	}
}

// reset answers with a reset of the connection, as a machine does that has just been switched off and on.
var reset = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	if s, ok := c.(interface{ NetConn() net.Conn }); ok { // below TLS
		c = s.NetConn()
	}
	c.(interface{ SetLinger(int) error }).SetLinger(0)
	c.Close()
})

// killed makes f the last thing that the server did: from then on there is nobody.
func killed(f func(http.Handler) wall) wall {
	return func(real http.Handler) http.Handler {
		var dead atomic.Bool
		alive := f(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			dead.Store(true)
			reset(w, r)
		}))(real)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if dead.Load() {
				reset(w, r)
				return
			}
			alive.ServeHTTP(w, r)
		})
	}
}

// around sends every redirect back to where it came from, under another name each time.
var around = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	w.Header().Set("Location", "https://"+r.Host+r.URL.Path+"?n="+strconv.Itoa(n+1))
	w.WriteHeader(http.StatusTemporaryRedirect)
})

// endless writes blanks, which JSON may begin with, for as long as somebody reads.
var endless = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	blanks := []byte(strings.Repeat(" ", 64<<10))
	for {
		if _, err := w.Write(blanks); err != nil {
			return
		}
	}
})

// drip does the same, an octet at a time, which no pause between two octets ends.
var drip = dripped(http.StatusOK)

func dripped(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	})
}

// insecureAuthz gives the authorization of an order another scheme.
func insecureAuthz(real http.Handler) http.Handler {
	return edit("/order-plz", func(_ http.Header, body []byte) []byte {
		at := bytes.Index(body, []byte("authorizations"))
		return append(bytes.Clone(body[:at]), bytes.Replace(body[at:], []byte(`"https:`), []byte(`"http:`), 1)...)
	})(real)
}

// silent takes every request and says nothing.
var silent = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // net/http looks whether the client is still there only from then on
	<-r.Context().Done()
})

// raw answers with octets that are no HTTP.
func raw(octets string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(c, octets)
		c.Close()
	})
}

// inTwoHours is a rate limit until a date.
var inTwoHours = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
	w.WriteHeader(http.StatusTooManyRequests)
})

// badNonces refuses all nonces but every n-th.
func badNonces(n int32) wall {
	return func(real http.Handler) http.Handler {
		var posts atomic.Int32
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && posts.Add(1)%n != 0 {
				w.Header().Set("Replay-Nonce", nonceOf(real))
				always(400, `{"type":"urn:ietf:params:acme:error:badNonce","detail":"not this one","status":400}`).ServeHTTP(w, r)
				return
			}
			real.ServeHTTP(w, r)
		})
	}
}

// withoutNonce gives none, or an empty one.
func withoutNonce(empty bool) wall {
	return func(real http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			real.ServeHTTP(stripped{w, empty}, r)
		})
	}
}

type stripped struct {
	http.ResponseWriter
	empty bool
}

func (s stripped) WriteHeader(status int) {
	s.Header().Del("Replay-Nonce")
	if s.empty {
		s.Header().Set("Replay-Nonce", "")
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s stripped) Write(b []byte) (int, error) {
	if s.Header().Get("Replay-Nonce") != "" {
		s.WriteHeader(http.StatusOK)
	}
	return s.ResponseWriter.Write(b)
}

// counting counts the octets that a server writes.
type counting struct {
	net.Listener
	written *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), l.written}, nil
}

type countingConn struct {
	*net.TCPConn
	written *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// ReadFrom keeps io.Copy from going past Write.
func (c countingConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}
