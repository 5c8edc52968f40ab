package issuer_test

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"ntsagent/acme/challenge"
	"ntsagent/hostcheck"
)

// TestMain lets more tests run side by side than there are processors: they spend their time waiting for a validation. It turns
// the test binary into an agent to be killed when its parent asks for it.
func TestMain(m *testing.M) {
	if job := os.Getenv(homeEnv); job != "" {
		if err := obtain(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

var nullLog = hclog.NewNullLogger()

// keyAuthorization is token "." thumbprint (RFC 8555 section 8.1), which nobody but the CA is to see.
var keyAuthorization = regexp.MustCompile(`[A-Za-z0-9_-]{22,}\.[A-Za-z0-9_-]{43}`)

// always answers every request alike; header is lines of "Name: value".
func always(status int, body string, header ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, h := range header {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	})
}

// at lets h answer what has prefix in its path, the real server all else.
func at(prefix string, h http.Handler) func(http.Handler) http.Handler {
	return func(real http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, prefix) {
				w.Header().Set("Replay-Nonce", nonceOf(real))
				h.ServeHTTP(w, r)
				return
			}
			real.ServeHTTP(w, r)
		})
	}
}

// nonceOf is a nonce of the real server.
func nonceOf(real http.Handler) string {
	rec := httptest.NewRecorder()
	real.ServeHTTP(rec, httptest.NewRequest(http.MethodHead, "/nonce-plz", nil))
	return rec.Header().Get("Replay-Nonce")
}

// goDown ends a server whose port stays this test's: a server of another one would answer there. Nor does it answer itself any
// more: a process that is just being started has all our sockets until it runs, and closing one is not its end before that.
func goDown(t *testing.T, s *server) {
	t.Helper()
	raw, err := s.tcp.SyscallConn()
	if err == nil {
		down := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		err = errors.Join(down, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// record notes the paths that the CA asks port 80 for.
func (w *world) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.asked = append(w.asked, r.URL.Path)
		w.mu.Unlock()
		next.ServeHTTP(rw, r)
	})
}

// mustHaveNoProof looks for a proof that was left up for name, on both faces of the responder.
func (w *world) mustHaveNoProof(t *testing.T, name hostcheck.Name) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range w.asked {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RequestURI, r.Host = path, name.String()
		rec := httptest.NewRecorder()
		w.responder.ServeHTTP(rec, r)
		if rec.Code != http.StatusNotFound {
			t.Errorf("%s is still answered with %d", path, rec.Code)
		}
	}
	c, err := tls.Dial("tcp", w.tlsAddr, &tls.Config{ServerName: name.String(), NextProtos: []string{challenge.ALPN}, InsecureSkipVerify: true})
	if err == nil {
		c.Close()
		t.Error("a challenge certificate is still shown")
	}
}
