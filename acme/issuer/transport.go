package issuer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"

	"ntsagent/acme"
)

const (
	maxBody  = 1 << 20
	maxTotal = 4 << 20 // of all answers in one Issue, where lego asks again and again; a hundred times what one takes

	// What lego sleeps before its second look at a challenge; later sleeps grow up to ten times that. It would take the server's
	// word without bounds, and five seconds when there is none.
	minPoll, maxPoll = time.Second, 5 * time.Second
)

// newTransport makes the connections to the ACME server; nil roots are the system's.
func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  20 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        10 * time.Second,
		MaxIdleConns:           4,
	}
}

// session carries the requests of one Issue. It adds what lego lacks: a context, a bound on what is read, and plain words for
// answers that are not ACME. It reads each body whole, because lego does not close the bodies of errors.
type session struct {
	ctx     context.Context // of the Issue; lego's requests have none
	base    http.RoundTripper
	timeout time.Duration // of one request with its whole answer

	finalizing func() error // called before the CA is asked to sign; nil = nobody counts

	mu         sync.Mutex
	signing    signing                  // whether the CA was asked to sign, and said no
	wait       time.Duration            // what the last answer asked us to wait
	retryAfter time.Duration            // the longest wait that was asked for
	last       error                    // how the last request ended; where lego keeps an error's words only, its type is found here
	total      int                      // octets of answers so far
	found      *legoacme.ProblemDetails // what is wrong with a challenge that the CA leaves open; nil = nothing
	fault      error                    // the last thing that went wrong, which lego may have tried again; nil = nothing has
}

// signing is what is known of the certificate an order was for.
type signing int

const (
	notAsked    signing = iota
	askedToSign         // it may exist, whatever became of the answer
	declined            // the CA said no
)

// client makes the http.Client of one Issue. It must not be used twice: lego wraps the transport of each client it is given.
func (s *session) client() *http.Client {
	return &http.Client{
		Transport: s,
		// No step of ACME needs a redirect; a POST would come out of one as a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// RoundTrip implements http.RoundTripper.
func (s *session) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := s.roundTrip(req)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
	if err != nil && s.ctx.Err() == nil {
		s.fault = err
	}
	return resp, err
}

func (s *session) roundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, notHTTPS(req.URL.Redacted())
	}
	if s.octets(0) > maxTotal {
		return nil, &acme.Error{Class: acme.ClassMalformed, Hint: hintNotACME,
			Err: fmt.Errorf("%s %s: the answers so far are larger than %d bytes", req.Method, req.URL.Redacted(), maxTotal)}
	}
	final := asksToSign(req)
	if final && s.finalizing != nil {
		if err := s.finalizing(); err != nil {
			return nil, err
		}
	}
	if final {
		s.setSigning(askedToSign)
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	resp, err := s.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if final && resp.StatusCode >= 400 && resp.StatusCode < 500 {
		s.setSigning(declined)
	}
	body, err := s.read(ctx, req, resp)
	if err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	wait := parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	s.mu.Lock()
	s.wait = wait
	s.mu.Unlock()
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		s.mu.Lock()
		s.retryAfter = max(s.retryAfter, wait)
		s.mu.Unlock()
	}
	if resp.StatusCode >= 300 {
		return s.refuse(req, resp, body)
	}
	if req.Method == http.MethodHead && resp.Header.Get("Replay-Nonce") == "" {
		return nil, &acme.Error{Class: acme.ClassMalformed, Hint: hintNotACME, Err: fmt.Errorf("%s %s: no nonce", req.Method, req.URL.Redacted())}
	}
	if at := resp.Header.Get("Location"); at != "" && !secure(at) {
		return nil, notHTTPS(at)
	}
	if err := s.order(body); err != nil {
		return nil, &acme.Error{Class: acme.ClassMalformed, Hint: hintNotACME, Err: fmt.Errorf("%s %s: %w", req.Method, req.URL.Redacted(), err)}
	}
	s.look(body)
	resp.Header.Set("Retry-After", strconv.Itoa(int(min(max(wait, minPoll), maxPoll)/time.Second)))
	return resp, nil
}

// read takes the whole body of an answer, as long as ctx lasts, and counts it.
func (s *session) read(ctx context.Context, req *http.Request, resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	s.octets(len(body))
	if err == nil {
		err = ctx.Err() // a server that sees us hang up may end an answer that it had not ended
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", req.Method, req.URL.Redacted(), err)
	}
	if len(body) > maxBody {
		return nil, &acme.Error{Class: acme.ClassMalformed, Hint: hintNotACME,
			Err: fmt.Errorf("%s %s: answer larger than %d bytes", req.Method, req.URL.Redacted(), maxBody)}
	}
	return body, nil
}

// secure tells whether a link that a server gave is one we would follow. A link is refused when it is given: the order that it
// belongs to may count by the time it is used.
func secure(link string) bool {
	u, err := url.Parse(link)
	return err == nil && u.Scheme == "https" && u.Host != ""
}

func notHTTPS(link string) *acme.Error {
	return &acme.Error{Class: acme.ClassMalformed, Err: fmt.Errorf("%.200q is not https", link), Hint: hintNotACME}
}

// order looks for an order (RFC 8555 section 7.1.3) in an answer, whose links must be safe. Ours name one host, which takes
// one authorization. lego would start a goroutine and sleep for each that is listed: hours of them fit into an answer.
func (s *session) order(body []byte) error {
	var order struct {
		Authorizations []json.RawMessage `json:"authorizations"`
		Finalize       string            `json:"finalize"`
		Certificate    string            `json:"certificate"`
	}
	if json.Unmarshal(body, &order) != nil {
		return nil
	}
	if n := len(order.Authorizations); n > 1 {
		return fmt.Errorf("an order of one name with %d authorizations", n)
	}
	links := []string{order.Finalize, order.Certificate}
	for _, a := range order.Authorizations {
		var link string
		if err := json.Unmarshal(a, &link); err != nil {
			return err
		}
		links = append(links, link)
	}
	for _, link := range links {
		if link != "" && !secure(link) {
			return notHTTPS(link)
		}
	}
	return nil
}

// asksToSign tells whether a request asks the CA to sign: by what it holds, for a server may spell a link in many ways, and give
// more than one.
func asksToSign(req *http.Request) bool {
	if req.Method != http.MethodPost || req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	if err != nil {
		return false
	}
	defer body.Close()
	var jws struct {
		Payload string `json:"payload"`
	}
	var payload struct {
		CSR string `json:"csr"` // RFC 8555 section 7.4
	}
	if json.NewDecoder(body).Decode(&jws) != nil {
		return false
	}
	b, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	return err == nil && json.Unmarshal(b, &payload) == nil && payload.CSR != ""
}

// octets counts n more octets of answers and gives their sum.
func (s *session) octets(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += n
	return s.total
}

func (s *session) setSigning(to signing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signing = to
}

func (s *session) signed() signing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signing
}

// lastWait is what the last answer asked us to wait, 0 = nothing.
func (s *session) lastWait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wait
}

// refuse lets problem documents (RFC 7807) through to lego and makes everything else that is not success an error.
func (s *session) refuse(req *http.Request, resp *http.Response, body []byte) (*http.Response, error) {
	if resp.StatusCode >= 400 && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		s.note(req, resp, body)
		return resp, nil
	}
	e := &acme.Error{Class: acme.ClassMalformed, Hint: hintNotACME, RetryAfter: s.asked(),
		Err: fmt.Errorf("%s %s: %s", req.Method, req.URL.Redacted(), resp.Status)}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		e.Class, e.Hint = acme.ClassRateLimited, hintWait
	case resp.StatusCode >= 500:
		e.Class, e.Hint = acme.ClassNetwork, hintServerDown
	case resp.StatusCode < 400:
		e.Err = errors.Join(e.Err, fmt.Errorf("redirected to %s", resp.Header.Get("Location")))
	}
	return nil, e
}

// note keeps what a problem document says, in case that lego tries again until the time is over.
func (s *session) note(req *http.Request, resp *http.Response, body []byte) {
	var p legoacme.ProblemDetails
	if json.Unmarshal(body, &p) != nil {
		return
	}
	p.HTTPStatus, p.Method, p.URL = resp.StatusCode, req.Method, req.URL.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = &p
}

// lastFault is the last thing that went wrong, nil when nothing has.
func (s *session) lastFault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// asked is the longest wait the server has asked for in this session.
func (s *session) asked() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retryAfter
}

// lastError is how the last request ended.
func (s *session) lastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// parseRetryAfter reads a Retry-After field (RFC 9110 section 10.2.3): seconds or a date. What is absent, past or nonsense is 0,
// and no answer is longer than a day.
func parseRetryAfter(v string, now time.Time) time.Duration {
	const day = 24 * time.Hour
	if n, err := strconv.ParseUint(v, 10, 64); err == nil {
		if n >= uint64(day/time.Second) {
			return day
		}
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), day)
	}
	return 0
}
