package status

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
)

// Server answers on the control socket. All funcs must be set and safe for
// concurrent use. It speaks HTTP with JSON bodies:
//
//	GET  /status                the Document
//	POST /reload  /keys/rotate  root and the agent's own user only
//	POST /certificates/VERB     the same; a Wish comes and an Outcome goes
type Server struct {
	Status func() Document
	Reload func(ctx context.Context) error // a config.Error among its errors means: the file is bad
	Rotate func(ctx context.Context) error // ErrPointless among its errors: the daemon rotates its keys itself
	Log    hclog.Logger

	Renew, Revoke, Request, Import func(ctx context.Context, w Wish) (Outcome, error)
}

// answerLimit is how long a peer that does not read may hold a descriptor.
const answerLimit = 10 * time.Second

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

// Serve answers on ln until ctx ends, lets running requests finish within five
// seconds, and closes ln. Rotating keys takes as long as proving them does.
func (s Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler(uint32(os.Geteuid())),
		ConnContext:       withPeer,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          s.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	stopped := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(drain) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(ln)
	if release() { // ctx has not ended: Serve failed by itself
		return err
	}
	<-stopped
	return nil
}

func (s Server) handler(self uint32) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.Status()) })
	post := func(path string, do deed) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if !mayChange(r.Context(), self) {
				reply(w, http.StatusForbidden, failure{"not permitted; run as root or as the agent's user"})
				return
			}
			s.change(w, r, do)
		})
	}
	post("/reload", plainly(s.Reload))
	post("/keys/rotate", plainly(s.Rotate))
	post("/certificates/renew", wishing(s.Renew))
	post("/certificates/revoke", wishing(s.Revoke))
	post("/certificates/request", wishing(s.Request))
	post("/certificates/import", wishing(s.Import))
	return mux
}

// deed is what a POST does, and what it tells.
type deed func(w http.ResponseWriter, r *http.Request) (answer any, err error)

// plainly is for what needs nothing said and has nothing to tell.
func plainly(do func(context.Context) error) deed {
	return func(_ http.ResponseWriter, r *http.Request) (any, error) { return struct{}{}, do(r.Context()) }
}

// wishing is for what is done about one certificate.
func wishing(do func(context.Context, Wish) (Outcome, error)) deed {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxWish))
		dec.DisallowUnknownFields() // half a wish must not be granted
		var wish Wish
		if err := dec.Decode(&wish); err != nil {
			return nil, Refuse(ErrFailed, "the agent does not understand what is wished for: "+oneLine(err.Error())+"; are program and agent of one version?")
		}
		return do(r.Context(), wish)
	}
}

func (s Server) change(w http.ResponseWriter, r *http.Request, do deed) {
	answer, err := do(w, r)
	var invalid *config.Error
	switch {
	case err == nil:
		reply(w, http.StatusOK, answer)
	case errors.As(err, &invalid):
		reply(w, http.StatusUnprocessableEntity, failure{err.Error()})
	case errors.Is(err, ErrFailed):
		reply(w, http.StatusBadGateway, failure{err.Error()})
	case errors.Is(err, ErrPointless):
		reply(w, http.StatusConflict, failure{err.Error()})
	default:
		reply(w, http.StatusServiceUnavailable, failure{err.Error()})
	}
}

func reply(w http.ResponseWriter, code int, value any) {
	// Where there is no connection below w nobody can keep us waiting.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerLimit))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A peer that has gone is its own affair.
	_ = json.NewEncoder(w).Encode(value)
}
