package status

import (
	"strings"
	"testing"
	"time"
)

func TestACauseStandsOnceOnTheScreen(t *testing.T) {
	for _, c := range []struct {
		name, cause string
		change      func(d *Document)
	}{
		{"the gateway's port is taken", "address already in use; ss names it", func(d *Document) {
			*d = fronting()
			d.Listeners[0].Open, d.Listeners[1].Open = false, false
			d.Listeners[0].Reason = "address already in use; ss names it"
			d.Keys.State, d.Keys.Why = KeysUnseen, "it does not listen"
		}},
		{"a certificate is refused", "is valid for bob.example only", func(d *Document) {
			d.Certificates[0] = Certificate{Name: "a.example", LastError: "is valid for bob.example only", Failures: 1}
			d.LastErrors = []Event{{now.Add(-time.Minute), "certificate a.example: is valid for bob.example only"}}
		}},
		{"the daemon refuses the keys", "let it say ntsrotate 0", func(d *Document) {
			d.Keys.State, d.Keys.Why = KeysRefused, "let it say ntsrotate 0"
		}},
		{"the daemon is silent", "chronyd does not answer", func(d *Document) {
			d.Keys.State, d.Keys.Why, d.Daemon.LastError = KeysUnseen, "chronyd does not answer", "chronyd does not answer"
		}},
	} {
		d := good()
		c.change(&d)
		if text := Text(d.Judged(now)); strings.Count(text, c.cause) != 1 {
			t.Errorf("%s: %q stands %d times in\n%s", c.name, c.cause, strings.Count(text, c.cause), text)
		}
	}
	d := good()
	d.LastErrors = []Event{{now.Add(-time.Minute), "certificate a.example: it is over"}}
	if text := Text(d.Judged(now)); !strings.Contains(text, "it is over") {
		t.Errorf("an error that is over is not told:\n%s", text)
	}
}

func TestAGuessThatWorksIsNotSentToAReload(t *testing.T) {
	d := good()
	d.Daemon.Auto = &Auto{Why: "nothing ran"}
	if text := Text(d.Judged(now)); !strings.Contains(text, "taken for chrony: nothing ran; it works as one; write daemon.kind") {
		t.Errorf("got\n%s", text)
	}
	d.Keys.State = KeysStarting
	if text := Text(d.Judged(now)); !strings.Contains(text, "; reload when it runs, or write daemon.kind") {
		t.Errorf("got\n%s", text)
	}
}

func TestAWarningIsToldAndChangesNoState(t *testing.T) {
	d := good()
	d.Warnings, d.KeyExchange.Announces = []string{"ke.ntp.port: 124"}, "port 124"
	d = d.Judged(now)
	if text := Text(d); d.State != Healthy || !strings.Contains(text, "\nNotices       ke.ntp.port: 124\n") || !strings.Contains(text, "   announces port 124") {
		t.Errorf("%s\n%s", d.State, text)
	}
}
