package acme

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"ntsagent/acme/store"
)

func curveOf(c *x509.Certificate) string {
	if k, ok := c.PublicKey.(*ecdsa.PublicKey); ok {
		return k.Curve.Params().Name
	}
	return ""
}

func TestDue(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	leaf := func(age, left time.Duration) *x509.Certificate {
		return &x509.Certificate{NotBefore: now.Add(-age), NotAfter: now.Add(left)}
	}
	for _, tt := range []struct {
		name string
		leaf *x509.Certificate
		r    store.Renewal
		want time.Duration // from now; 0 = at once
	}{
		{"no certificate and no history orders at once", nil, store.Renewal{}, 0},
		{"a young certificate waits until a third is left", leaf(30*day, 60*day), store.Renewal{}, 30 * day},
		{"a certificate with a third left is due", leaf(60*day, 30*day), store.Renewal{}, 0},
		{"an expired certificate is due", leaf(91*day, -day), store.Renewal{}, 0},
		{"a failure is waited out", leaf(61*day, 29*day), store.Renewal{Failures: 1, LastFailure: now, NextAttempt: now.Add(time.Minute)}, time.Minute},
		{"a wait that ends before the renewal time does not bring it forward", leaf(30*day, 60*day), store.Renewal{NextAttempt: now.Add(time.Minute)}, 30 * day},
		{"a day's wait shrinks to six hours late in life", leaf(80*day, 10*day), store.Renewal{Failures: 4, LastFailure: now.Add(-time.Hour), NextAttempt: now.Add(day)}, 5 * time.Hour},
		{"a day's wait ends when it is late in life", leaf(72*day-time.Hour, 18*day+time.Hour), store.Renewal{Failures: 4, LastFailure: now, NextAttempt: now.Add(day)}, 6 * time.Hour},
		{"and so it does in a life of a day", leaf(16*time.Hour, 8*time.Hour), store.Renewal{Failures: 4, LastFailure: now, NextAttempt: now.Add(day)}, 3*time.Hour + 12*time.Minute},
		{"what the server asked for does not shrink", leaf(80*day, 10*day), store.Renewal{Failures: 4, LastFailure: now, NextAttempt: now.Add(day), RetryAfter: now.Add(day)}, day},
		{"a time written under a wrong clock is ignored", nil, store.Renewal{Failures: 1, LastFailure: now.AddDate(80, 0, 0), NextAttempt: now.AddDate(80, 0, 0)}, 0},
		{"a server's time written under a wrong clock is ignored", nil, store.Renewal{Failures: 1, LastFailure: now, RetryAfter: now.AddDate(80, 0, 0)}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := max(due(now, tt.leaf, tt.r).Sub(now), 0); got != tt.want {
				t.Errorf("due in %v, want %v", got, tt.want)
			}
		})
	}
}

// TestTheLastFifthOfAnyLifeHasSeveralAttempts has a CA that is never to be reached for a validation, which is backed off from
// the longest, in lives of all CAs.
func TestTheLastFifthOfAnyLifeHasSeveralAttempts(t *testing.T) {
	for _, tt := range []struct {
		name        string
		life        time.Duration
		longest     time.Duration // wait in the last fifth
		least, most int           // attempts in it
	}{
		{"a life of an hour", time.Hour, 12 * time.Minute, 1, 2},
		{"a life of a day", 24 * time.Hour, 72 * time.Minute, 4, 7},
		{"a life of 160 hours", 160 * time.Hour, 6 * time.Hour, 5, 9},
		{"a life of 90 days", 90 * day, 6 * time.Hour, 72, 104},
	} {
		for _, roll := range []float64{0, 0.5, 0.999} {
			born := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
			leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: born, NotAfter: born.Add(tt.life)}
			var r store.Renewal
			attempts, last, gap := 0, leaf.NotAfter.Add(-tt.life/5), time.Duration(0)
			for now := born; ; {
				if now = later(now, due(now, leaf, r)); !now.Before(leaf.NotAfter) {
					break
				}
				if leaf.NotAfter.Sub(now) <= tt.life/5 {
					attempts, gap, last = attempts+1, max(gap, now.Sub(last)), now
				}
				r = afterFailure(now, leaf, r, &Error{Class: ClassConnection, Validations: 1, Err: errors.New("port 80 is closed")}, roll)
			}
			if gap = max(gap, leaf.NotAfter.Sub(last)); gap > tt.longest || attempts < tt.least || attempts > tt.most {
				t.Errorf("%s, jitter %v: %d attempts, the longest wait %v; want %d to %d and %v", tt.name, roll, attempts, gap, tt.least, tt.most, tt.longest)
			}
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                           "plain",
		"two\r\nlines\tand\x1b[31mcolour": "two lines and [31mcolour",
		"\u2028para\u2029graph\x00":       "para graph",
		"bad\xff\xfeutf8":                 "bad utf8",
		strings.Repeat("ü", 5000):         strings.Repeat("ü", maxText/2) + "…",
		strings.Repeat("a", maxText):      strings.Repeat("a", maxText),
	} {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%.40q) = %.80q, want %.80q", in, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[time.Duration]string{
		-time.Second: "0s", 59700 * time.Millisecond: "1m", 40 * time.Second: "40s", 9 * time.Minute: "9m", 2 * time.Hour: "2h", 100 * time.Minute: "1h40m", 24*time.Hour + 20*time.Second: "24h",
		48 * time.Hour: "2d", 1440*time.Hour - time.Second: "59d",
	} {
		if got := short(in); got != want {
			t.Errorf("short(%v) = %q, want %q", in, got, want)
		}
	}
}
