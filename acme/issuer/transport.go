package issuer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"ntsagent/acme"
)

const (
	requestTimeout = 30 * time.Second // one request with its whole answer
	maxBody        = 1 << 20

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
	ctx  context.Context // of the Issue; lego's requests have none
	base http.RoundTripper

	finalizing func() error // called before the CA is asked to sign; nil = nobody counts

	mu         sync.Mutex
	finalize   string        // where to ask the CA to sign, known when the order is
	signing    signing       // how far that has come
	wait       time.Duration // what the last answer asked us to wait
	retryAfter time.Duration // the longest wait that was asked for
	last       error         // how the last request ended; where lego keeps an error's words only, its type is found here
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
	return resp, err
}

func (s *session) roundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, &acme.Error{Class: acme.ClassMalformed, Err: fmt.Errorf("%s is not https", req.URL.Redacted()), Hint: hintNotACME}
	}
	final := s.isFinal(req)
	if final && s.finalizing != nil {
		if err := s.finalizing(); err != nil {
			return nil, err
		}
	}
	if final {
		s.setSigning(askedToSign)
	}
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	resp, err := s.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if final && resp.StatusCode >= 400 && resp.StatusCode < 500 {
		s.setSigning(declined)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", req.Method, req.URL.Redacted(), err)
	}
	if len(body) > maxBody {
		return nil, &acme.Error{Class: acme.ClassMalformed, Hint: hintNotACME,
			Err: fmt.Errorf("%s %s: answer larger than %d bytes", req.Method, req.URL.Redacted(), maxBody)}
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
	if n := s.order(body); n > 1 {
		return nil, &acme.Error{Class: acme.ClassMalformed, Hint: hintNotACME,
			Err: fmt.Errorf("%s %s: an order of one name with %d authorizations", req.Method, req.URL.Redacted(), n)}
	}
	resp.Header.Set("Retry-After", strconv.Itoa(int(min(max(wait, minPoll), maxPoll)/time.Second)))
	return resp, nil
}

// order looks for an order (RFC 8555 section 7.1.3) in an answer, keeps where to finalize it, and counts its authorizations, 0
// for any other answer. Ours name one host, which takes one. lego would start a goroutine and sleep for each that is listed:
// hours of them fit into an answer.
func (s *session) order(body []byte) (authorizations int) {
	var order struct {
		Authorizations []json.RawMessage `json:"authorizations"`
		Finalize       string            `json:"finalize"`
	}
	if json.Unmarshal(body, &order) != nil {
		return 0
	}
	if order.Finalize != "" {
		s.mu.Lock()
		s.finalize = order.Finalize
		s.mu.Unlock()
	}
	return len(order.Authorizations)
}

// isFinal tells whether a request asks the CA to sign.
func (s *session) isFinal(req *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return req.Method == http.MethodPost && s.finalize != "" && req.URL.String() == s.finalize
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
