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
	s := serving(fine, fine)
	s.Renew = do
	c := NewClient(agent(t, s))
	want := Wish{Name: "alice.example", Force: true}
	if out, err := c.Renew(t.Context(), want); err != nil || got != want || out.Certificate.Serial != "2a" || !out.NotDue {
		t.Errorf("%+v was wished for, and %+v came of it, %v", got, out, err)
	}
	for _, class := range []error{ErrTemporary, ErrPointless, ErrFailed} {
		fails = Refuse(class, "in words of its own")
		if _, err := c.Renew(t.Context(), want); !errors.Is(err, class) || err.Error() != "in words of its own" {
			t.Errorf("%v came back as %v", class, err)
		}
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
