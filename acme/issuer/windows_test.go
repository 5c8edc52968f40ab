package issuer_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// lines is a log that tells of each line that was written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestHostileRenewalInfo has a CA whose renewal information is nonsense. Nothing is ordered for it, nothing failed for it, the
// certificate is renewed when a third of its life is left, and the CA is asked again when the policy says.
func TestHostileRenewalInfo(t *testing.T) {
	t.Parallel()
	g := newSiege(t)
	window := func(from, to time.Duration, header ...string) http.Handler {
		now := time.Now()
		return always(200, fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, now.Add(from).Format(time.RFC3339), now.Add(to).Format(time.RFC3339)), header...)
	}
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	const none = "no renewal information"
	for _, tt := range []struct {
		name   string
		answer http.Handler
		hurry  time.Duration
		text   string        // of the log
		ask    time.Duration // until it is asked again
		window bool          // is one
	}{
		{"a web page", always(200, "<html>"), 0, none, 6 * time.Hour, false},
		{"half an answer", always(200, `{"suggestedWindow":{"start":"2026-11-01T00`), 0, none, 6 * time.Hour, false},
		{"another type", always(200, `{"suggestedWindow":[1,2]}`), 0, none, 6 * time.Hour, false},
		{"null", always(200, `null`), 0, none, 6 * time.Hour, false},
		{"an end before the start", window(40*day, 30*day), 0, none, 6 * time.Hour, false},
		{"an end that is the start", window(30*day, 30*day), 0, none, 6 * time.Hour, false},
		{"a window of a hundred years that has begun", window(-50*year, 50*year), 0, none, 6 * time.Hour, false},
		{"a window in the year 0", always(200, `{"suggestedWindow":{"start":"0000-01-01T00:00:00Z","end":"0001-01-01T00:00:00Z"}}`), 0, none, 6 * time.Hour, false},
		{"an endless answer", endless, 0, none, 6 * time.Hour, false},
		{"an octet at a time", drip, 2 * time.Second, none, 6 * time.Hour, false},
		{"a reset", reset, 0, none, 6 * time.Hour, false},
		{"a loop of redirects", around, 0, none, 6 * time.Hour, false},
		{"500 with a window that is past", always(500, `{"suggestedWindow":{"start":"2020-11-01T00:00:00Z","end":"2020-11-02T00:00:00Z"}}`), 0, none, 6 * time.Hour, false},
		{"429 for a day and a half", always(429, "{}", "Retry-After: 129600"), 0, none, 24 * time.Hour, false},
		{"503 for two hours", always(503, "<html>", "Retry-After: 7200"), 0, none, 2 * time.Hour, false},
		{"a window with a wait of less than nothing", window(30*day, 31*day, "Retry-After: -5"), 0, "renewal time from the CA", 6 * time.Hour, true},
		{"a window with a wait of a second", window(30*day, 31*day, "Retry-After: 1"), 0, "renewal time from the CA", time.Minute, true},
		{"a window with a wait of ten years", window(30*day, 31*day, "Retry-After: 315360000"), 0, "renewal time from the CA", 24 * time.Hour, true},
		{"a window after the certificate", window(2*year, 3*year), 0, "renewal time from the CA", 6 * time.Hour, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := g.pitch(t, at("/draft-ietf-acme-ari-03/", tt.answer), 10*day)
			if err := c.store.SaveRenewal(c.name, store.Renewal{Ordered: c.directory}); err != nil {
				t.Fatal(err)
			}
			before := c.files(t)
			delete(before, "names/"+c.name.String()+"/renewal.json")
			i := c.issuerOf(t)
			i.Hurry(0, tt.hurry, 0)
			log := make(lines, 100)
			m := acme.NewManager(acme.Config{Name: c.name, Issuer: i, Store: c.store, Live: live.NewSet([]hostcheck.Name{c.name}), Directory: c.directory,
				Log: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug}), Roll: func() float64 { return 0.5 },
				Event: func(e acme.Event) {
					if e.Kind != acme.Installed {
						t.Errorf("event %s: %s", e.Kind, e.Text)
					}
				}})
			began := time.Now().Round(0)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { m.Run(ctx) })
			var line string
			for deadline := time.After(time.Minute); !strings.Contains(line, tt.text); {
				select {
				case line = <-log:
				case <-deadline:
					t.Fatalf("the log has nothing with %q", tt.text)
				}
			}
			cancel()
			running.Wait()
			ended := time.Now().Round(0)
			c.mustBeUntouched(t, before)
			r, err := c.store.Renewal(c.name)
			if err != nil {
				t.Fatal(err)
			}
			if w := r.Window; w.AskAt.Before(began.Add(tt.ask)) || w.AskAt.After(ended.Add(tt.ask)) || w.At.IsZero() == tt.window {
				t.Errorf("window %+v, want to ask again in %v, and a point in it: %v", w, tt.ask, tt.window)
			}
			want := acme.RenewAt(c.leaf)
			if tt.window {
				want = earlier(want, r.Window.At)
			}
			if s := m.State(); !s.RenewAt.Equal(want) || s.Failures != 0 || s.LastError != "" || !s.NextAttempt.Equal(want) {
				t.Errorf("state %+v, want to renew at %v", s, want)
			}
			if n := strings.Count(strings.TrimSpace(line), "\n"); n > 0 || strings.ContainsAny(line, "\x1b\x00") || len(line) > 900 {
				t.Errorf("log line %q", line)
			}
			if r, w := c.requests.Load(), c.written.Load(); r > 3 || w > 32<<20 {
				t.Errorf("%d requests and %d octets of answers", r, w)
			}
		})
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
