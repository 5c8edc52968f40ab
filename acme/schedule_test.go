package acme

import (
	"crypto/ecdsa"
	"crypto/x509"
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
