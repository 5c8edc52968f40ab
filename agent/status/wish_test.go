package status

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAWishReachesTheAgentAndItsOutcomeComesBack(t *testing.T) {
	var got Wish
	var fails error
	do := func(_ context.Context, w Wish) (Outcome, error) {
		got = w
		return Outcome{Certificate: Certificate{Name: w.Name, Serial: "2a"}, NotDue: true}, fails
	}
	for verb, row := range map[string]struct {
		server func(*Server)
		ask    func(*Client, context.Context, Wish) (Outcome, error)
	}{
		"renew":   {func(s *Server) { s.Renew = do }, (*Client).Renew},
		"revoke":  {func(s *Server) { s.Revoke = do }, (*Client).Revoke},
		"request": {func(s *Server) { s.Request = do }, (*Client).Request},
		"import":  {func(s *Server) { s.Import = do }, (*Client).Import},
	} {
		t.Run(verb, func(t *testing.T) {
			fails = nil
			s := serving(fine, fine)
			row.server(&s)
			c := NewClient(agent(t, s))
			want := Wish{Name: "alice.example", Force: true, Serial: "0a", Reason: "superseded", Chain: strings.Repeat("A\n", 300_000)}
			if out, err := row.ask(c, t.Context(), want); err != nil || got != want || out.Certificate.Serial != "2a" || !out.NotDue {
				t.Errorf("what was wished for came as one of %d octets, and %+v came of it, %v", len(got.Chain), out, err)
			}
			want.Chain = "" // a long one takes the race detector long, and the server waits 10 s for it
			for _, class := range []error{ErrTemporary, ErrPointless, ErrFailed} {
				fails = Refuse(class, "in words of its own")
				if _, err := row.ask(c, t.Context(), want); !errors.Is(err, class) || err.Error() != "in words of its own" {
					t.Errorf("%v came back as %v", class, err)
				}
			}
		})
	}
}

func TestAWishThatIsNotUnderstoodIsNotGranted(t *testing.T) {
	root := context.WithValue(t.Context(), peerKey{}, uint32(0))
	s := serving(fine, fine)
	s.Renew = func(context.Context, Wish) (Outcome, error) {
		t.Error("granted")
		return Outcome{}, nil
	}
	for what, body := range map[string]string{
		"nothing": "", "no JSON": "renew please", "a wish of a later version": `{"name": "alice.example", "dry_run": true}`,
		"a wish cut short": `{"name": "al`, "far too much": `{"name": "` + strings.Repeat("a", 3<<20) + `"}`,
	} {
		w := httptest.NewRecorder()
		s.handler(0).ServeHTTP(w, httptest.NewRequestWithContext(root, "POST", "/certificates/renew", strings.NewReader(body)))
		if err := refusal(w.Code, w.Body.Bytes()); w.Code == http.StatusOK || !errors.Is(err, ErrFailed) || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%s: %d %v", what, w.Code, err)
		}
	}
}
