package challenge

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// wellKnown is where a CA looks for tokens (RFC 8555 §8.3).
const wellKnown = "/.well-known/acme-challenge/"

// Bounds on one connection to the HTTP-01 port: a CA sends one small request and reads 87 octets.
const (
	httpTimeout    = 5 * time.Second
	maxHeaderBytes = 8 << 10
)

// ServeHTTP answers a CA's HTTP-01 request for a pending token with exactly its key authorization, and any other
// request with a status, an empty body and a closed connection. The first rule that a request breaks decides:
//
//	400  the form is wrong, Host empty or malformed     (hostcheck.Set.Check)
//	421  Host is not one of our names, or the token is pending for another of them
//	405  the method is neither GET nor HEAD
//	404  nothing is pending at exactly this request-target, compared octet by octet before any decoding
//
// It must be the server's one handler: http.ServeMux in front of it would redirect before the Host is looked at.
func (r *Responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	hangUp(w, req)
	name, status := r.names.Check(req)
	if status != 0 {
		r.refuseHTTP(w, req, status)
		return
	}
	proof := r.proofAt(req)
	switch {
	case proof != nil && proof.name != name:
		r.refuseHTTP(w, req, http.StatusMisdirectedRequest)
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD") // RFC 9110 §15.5.6
		r.refuseHTTP(w, req, http.StatusMethodNotAllowed)
	case proof == nil:
		r.refuseHTTP(w, req, http.StatusNotFound)
	default:
		r.answerHTTP(w, req, proof)
	}
}

// proofAt is what is pending at exactly this request-target, whoever it is for; nil = nothing.
func (r *Responder) proofAt(req *http.Request) *tokenProof {
	token, ok := strings.CutPrefix(req.RequestURI, wellKnown)
	if !ok {
		return nil
	}
	return r.pending.Load().tokens[token]
}

// hangUp has the connection close behind the answer, and reads no body before it.
func hangUp(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Connection", "close")
	if req.ContentLength != 0 {
		// No request of ours has a body. net/http would wait for this one before it answers; where there is no connection
		// below w the call fails, and there is nothing to wait for.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
}

func (r *Responder) answerHTTP(w http.ResponseWriter, req *http.Request, proof *tokenProof) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(proof.keyAuth)))
	w.WriteHeader(http.StatusOK)
	if req.Method == http.MethodGet {
		w.Write([]byte(proof.keyAuth)) // a CA that went away notices itself
	}
	r.answered.Add(1)
	r.log.Debug("http-01 answered", "name", proof.name, "method", req.Method, "peer", req.RemoteAddr)
}

func (r *Responder) refuseHTTP(w http.ResponseWriter, req *http.Request, status int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
	r.refuse("http request refused", "status", status, "host", quote(req.Host), "peer", req.RemoteAddr)
}

// NewHTTPServer makes the server for the HTTP-01 port around h: HTTP/1 only, one request per connection, five seconds
// for everything, 8 KiB of header (net/http adds 4 KiB of grace), and its complaints about peers at debug level. Requests
// that net/http refuses by itself keep its answer. Whoever listens bounds the number of connections.
func NewHTTPServer(h http.Handler, log hclog.Logger) *http.Server {
	s := &http.Server{
		Handler:                      h,
		DisableGeneralOptionsHandler: true, // OPTIONS * is ours to refuse
		ReadHeaderTimeout:            httpTimeout,
		ReadTimeout:                  httpTimeout,
		WriteTimeout:                 httpTimeout,
		IdleTimeout:                  httpTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		Protocols:                    new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	s.SetKeepAlivesEnabled(false)
	return s
}

// quote makes a peer's words fit for one short log value.
func quote(s string) string {
	const shown = 64
	return strconv.QuoteToASCII(s[:min(len(s), shown)])
}
