package issuer_test

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
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

// goDown ends a server and keeps everybody else from its port: a server of another test would answer there.
func goDown(t *testing.T, s *httptest.Server) {
	t.Helper()
	at := s.Listener.Addr().(*net.TCPAddr)
	defer s.Close()    // which waits for its connections,
	s.Listener.Close() // so that this must come first, and its port be taken at once
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	// A socket that is bound and does not listen. Connections of the past must not keep it out, nor it let others in.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())})
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}
	if err != nil {
		t.Fatalf("hold port %d: %v", at.Port, err)
	}
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
