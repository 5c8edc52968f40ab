package status

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheStatusOfADaemonThatServesOurCertificate(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	cert := Certificate{Name: "alice.example", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour)}
	for sentence, c := range map[string]struct {
		export Export
		valid  bool
		state  State
		reason string // of the first
		text   string // of the line of the key exchange
	}{
		"it serves it": {Export{Served: now.Add(-12 * time.Second)}, true, Healthy, "", "ntpsec serves it with our certificate, seen 12s ago"},
		"it was not asked yet": {Export{}, true, Unhealthy, "the daemon has not been seen to serve our certificate yet",
			"left to ntpsec, not seen yet"},
		"there is no certificate": {Export{}, false, Unhealthy, "no valid certificate for the daemon to serve", "left to ntpsec, not seen yet"},
		"it serves an older one": {Export{Problem: "older; fix: x", Served: now.Add(-time.Hour)}, true, Degraded, "export to : older; fix: x",
			"ntpsec serves it, not with our certificate"},
		"it was restarted today": {Export{Served: now.Add(-time.Minute), Waits: now.Add(3 * time.Hour)}, true, Healthy, "",
			"ntpsec serves it with the certificate before, seen 1m ago; it is restarted for the new one, once a day at most, in 3h"},
		"it serves nobody":         {Export{Problem: "down", Hurts: true, Served: now}, true, Unhealthy, "down", "NOT served by ntpsec"},
		"it could not be written":  {Export{Failed: "full", Served: now}, true, Degraded, "export to : full", "ntpsec serves it with our certificate, seen 0s ago"},
		"nor is the old one right": {Export{Failed: "full", Problem: "old", Hurts: true}, true, Unhealthy, "full; old", "NOT served by ntpsec"},
	} {
		d := Document{
			Time: now, Daemon: Daemon{Kind: "ntpsec", Address: "127.0.0.1:123"}, Exports: []Export{c.export},
			Keys: Keys{Mode: ModeCertificate, State: KeysNone},
		}
		if c.valid {
			d.Certificates = []Certificate{cert}
		}
		state, reasons := Judge(d, now)
		if state != c.state || c.reason == "" && len(reasons) > 0 || c.reason != "" && !slices.Contains(reasons, c.reason) {
			t.Errorf("%s: %s, %q", sentence, state, reasons)
		}
		text := Text(d)
		if !strings.Contains(text, "Key exchange  "+c.text+"\n") || !strings.Contains(text, "Cookie keys   the daemon's own, nobody else needs them\n") {
			t.Errorf("%s:\n%s", sentence, text)
		}
	}
}

func TestAnExportBesideOurOwnKeyExchangeIsLookedAtOnlyWhenItFails(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := Document{
		Certificates: []Certificate{{Name: "alice.example", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour)}},
		Keys:         Keys{Mode: "lead", State: KeysProven}, Exports: []Export{{Cert: "/srv/c"}},
	}
	if state, reasons := Judge(d, now); state != Healthy {
		t.Errorf("%s, %q", state, reasons)
	}
	d.Exports[0].Failed = "full"
	if state, reasons := Judge(d, now); state != Degraded || !slices.Equal(reasons, []string{"export to /srv/c: full"}) {
		t.Errorf("%s, %q", state, reasons)
	}
}
