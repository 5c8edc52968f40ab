package status

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// good is a document with nothing to complain about, as product.md shows it.
func good() Document {
	return Document{
		Agent: Agent{Version: "1.0.0", PID: 4711, Started: now.Add(-292 * time.Hour), Config: "/etc/ntsagent/ntsagent.yaml"},
		Certificates: []Certificate{{
			Name: "alice.members.pool.example", Source: "acme", Profile: "tlsserver", Issuer: "Let's Encrypt YE1", Serial: "04a1",
			NotBefore: now.Add(-14 * 24 * time.Hour), NotAfter: now.Add(31 * 24 * time.Hour),
			RenewAt: time.Date(2026, 12, 7, 3, 4, 0, 0, time.UTC), LastSuccess: now.Add(-14 * 24 * time.Hour),
		}},
		KeyExchange: KeyExchange{Served: 400000, Refused: map[string]uint64{"tls": 300}, ServedDay: 41231, RefusedDay: 166, P95MS: 6},
		Daemon: Daemon{Kind: "chrony", Address: "127.0.0.1:123", Seen: now.Add(-40 * time.Second),
			Known: true, Synchronised: true, Stratum: 2, OffsetMS: 0.21},
		Keys: Keys{Mode: "lead", State: KeysProven, Current: Key{"10203042", "aaaaaaaa"}, Next: Key{"10203043", "bbbbbbbb"},
			Held:     []Key{{"10203040", "cccccccc"}, {"10203041", "dddddddd"}, {"10203042", "aaaaaaaa"}, {"10203043", "bbbbbbbb"}},
			ProvenAt: now.Add(-40 * time.Second), NextRotation: now.Add(74 * time.Hour)},
		Listeners: []Listener{
			{Service: ServiceKE, Address: "[::]:4460", Open: true}, {Service: ServiceKE, Address: "0.0.0.0:4460", Open: true},
			{Service: ServiceHTTP01, Address: "[::]:80", Open: true}, {Service: ServiceTLSALPN01, Address: "[::]:443", Open: true},
		},
	}
}

// faults are single changes to the good document and what they must lead to.
var faults = []struct {
	name   string
	change func(d *Document)
	state  State
	reason string // part of the first reason
}{
	{"nothing wrong", func(*Document) {}, Healthy, ""},
	{"no certificate yet", func(d *Document) { d.Certificates[0] = Certificate{Name: "a.example"} }, Unhealthy, "no valid certificate"},
	{"certificate expired", func(d *Document) { d.Certificates[0].NotAfter = now }, Unhealthy, "no valid certificate"},
	{"certificate not valid yet", func(d *Document) { d.Certificates[0].NotBefore = now.Add(time.Hour) }, Unhealthy, "no valid certificate"},
	{"one of two names has none", func(d *Document) {
		d.Certificates = append(d.Certificates, Certificate{Name: "bob.example", LastError: "dns: no such host"})
	}, Degraded, "certificate bob.example: none yet: dns: no such host"},
	{"less than a quarter of its life left", func(d *Document) {
		d.Certificates[0].NotAfter, d.Certificates[0].RenewAt = now.Add(4*24*time.Hour), now.Add(-time.Hour)
	}, Degraded, "only 4d left"},
	{"six-day certificate with half its life left", func(d *Document) {
		d.Certificates[0].NotBefore, d.Certificates[0].NotAfter, d.Certificates[0].RenewAt = now.Add(-72*time.Hour), now.Add(72*time.Hour), now
	}, Healthy, ""},
	{"renewal failed", func(d *Document) {
		d.Certificates[0].LastError, d.Certificates[0].Failures = "http-01: 403", 3
	}, Degraded, "renewal failed 3 times, 31d left: http-01: 403"},
	{"renewal failed once", func(d *Document) {
		d.Certificates[0].LastError, d.Certificates[0].Failures = "http-01: 403", 1
	}, Degraded, "renewal failed once, 31d left: http-01: 403"},
	{"a renewal under way", func(d *Document) { d.Certificates[0].OrderingSince = now.Add(-3 * time.Second) }, Healthy, ""},
	{"a first order under way for the second of two names", func(d *Document) {
		d.Certificates = append(d.Certificates, Certificate{Name: "bob.example", OrderingSince: now})
	}, Healthy, ""},
	{"an order under way after a failed one", func(d *Document) {
		d.Certificates = append(d.Certificates, Certificate{Name: "bob.example", OrderingSince: now, LastError: "dns: no such host", Failures: 1})
	}, Degraded, "certificate bob.example: none yet: dns: no such host"},
	{"a certificate from the fallback CA", func(d *Document) { d.Certificates[0].Fallback = true }, Degraded, "from the fallback CA, "},
	{"a first order under way for the only name", func(d *Document) {
		d.Certificates[0] = Certificate{Name: "a.example", OrderingSince: now}
	}, Unhealthy, "no valid certificate"},
	{"keys not proven yet", func(d *Document) { d.Keys.State = KeysStarting }, Unhealthy, "not proven yet"},
	{"a state of keys nobody knows", func(d *Document) { d.Keys.State = "" }, Unhealthy, "not proven yet"},
	{"keys refused", func(d *Document) { d.Keys.State, d.Keys.Why = KeysRefused, "NTS NAK" }, Unhealthy, "refused by the daemon: NTS NAK"},
	{"daemon not to be seen", func(d *Document) { d.Keys.State = KeysUnseen }, Degraded, "cannot see the daemon from here"},
	{"daemon not synchronised", func(d *Document) { d.Daemon.Synchronised = false }, NotSynchronised, "not synchronised"},
	{"daemon's state not known", func(d *Document) { d.Daemon.Known, d.Daemon.Synchronised = false, false }, Healthy, ""},
	{"key exchange listener closed", func(d *Document) { d.Listeners[0].Open = false }, Unhealthy, "listener ntske [::]:4460 is closed"},
	{"key exchange withheld by one family", func(d *Document) {
		d.Listeners[0].Open, d.Listeners[0].Withheld, d.Listeners[0].Reason = false, true, "IPv6: silent"
	}, Degraded, "listener ntske [::]:4460 is closed: IPv6: silent"},
	{"key exchange withheld by both families", func(d *Document) {
		for i := range 2 {
			d.Listeners[i].Open, d.Listeners[i].Withheld = false, true
		}
	}, Unhealthy, "is closed"},
	{"the daemon's configuration works by chance", func(d *Document) { d.Daemon.Faults = []string{"chronyd makes keys of its own"} }, Degraded, "daemon: chronyd makes keys"},
	{"what keys tell is not told again", func(d *Document) {
		d.Keys.State, d.Keys.Why, d.Daemon.Faults = KeysRefused, "it makes its own", []string{"it makes its own"}
	}, Unhealthy, "it makes its own"},
	{"a certificate was revoked", func(d *Document) { d.Certificates[0].Revoked, d.Certificates[0].LastError = "keyCompromise", "403" }, Degraded, "revoked (keyCompromise), serves until another is there: 403"},
	{"operation has ended", func(d *Document) {
		d.Certificates[0] = Certificate{Name: "alice.example", Condition: ConditionCeased, Why: "revoked"}
	}, Unhealthy, "no valid certificate"},
	{"challenge listener closed", func(d *Document) { d.Listeners[2].Open = false }, Degraded, "listener http-01"},
	{"reload refused", func(d *Document) { d.Agent.ReloadError = "x.yaml:3: ke: bad" }, Degraded, "the last reload changed nothing"},
	{"not synchronised outranks degraded", func(d *Document) {
		d.Daemon.Synchronised, d.Agent.ReloadError = false, "bad"
	}, NotSynchronised, "not synchronised"},
	{"unhealthy outranks not synchronised", func(d *Document) {
		d.Daemon.Synchronised, d.Keys.State = false, KeysRefused
	}, Unhealthy, "cookie keys"},
}

func TestJudge(t *testing.T) {
	for _, c := range faults {
		t.Run(c.name, func(t *testing.T) {
			d := good()
			c.change(&d)
			state, reasons := Judge(d, now)
			if state != c.state {
				t.Errorf("state %s, want %s; reasons %q", state, c.state, reasons)
			}
			if c.reason == "" {
				if len(reasons) != 0 {
					t.Errorf("reasons %q, want none", reasons)
				}
			} else if len(reasons) == 0 || !strings.Contains(reasons[0], c.reason) {
				t.Errorf("reasons %q, want first one with %q", reasons, c.reason)
			}
		})
	}
}

func TestAClosedKeyExchangeWithoutCertificateIsSaidOnce(t *testing.T) {
	d := good()
	d.Certificates[0].NotAfter = now.Add(-time.Hour)
	d.Listeners[0].Open, d.Listeners[1].Open = false, false
	_, reasons := Judge(d, now)
	if len(reasons) != 2 { // that there is none, and why of the one name
		t.Errorf("reasons %q", reasons)
	}
}

// TestTextLooksAsPromised compares whole screens with testdata/*.txt.
func TestTextLooksAsPromised(t *testing.T) {
	bad := good()
	bad.Agent.Started = now.Add(-90 * time.Minute)
	bad.Certificates = append(bad.Certificates, Certificate{Name: "bob.example", Source: "files"})
	bad.Certificates[0].LastError, bad.Certificates[0].Failures = "http-01: 403 from 192.0.2.7:80\x1b[31m\nnginx answers", 3
	bad.Certificates[0].NextAttempt = now.Add(2 * time.Hour)
	bad.Certificates[0].Fingerprint, bad.Certificates[0].RenewWhy = "00112233", "when a third of its life is left"
	bad.Listeners[0].Open, bad.Listeners[0].Reason = false, "address in use"
	bad.Keys.State, bad.Keys.Why = KeysUnseen, "no answer to plain NTP from 127.0.0.1:123; allow loopback in chrony.conf"
	bad.Daemon.Synchronised, bad.Daemon.Stratum = false, 0
	bad.LastErrors = []Event{{now.Add(-2 * time.Minute), "certificate renewal failed: name=alice.members.pool.example"}, {now.Add(-time.Hour), "other"}}
	fresh := Document{Agent: Agent{Version: "1.0.0", Started: now}, Certificates: []Certificate{{Name: "a.example", Source: "acme"}},
		Daemon: Daemon{Kind: "chrony", Address: "127.0.0.1:123"}, Keys: Keys{Mode: "lead", State: KeysStarting}}
	for file, got := range map[string]string{
		"healthy.txt":   Text(good().Judged(now)),
		"unhealthy.txt": Text(bad.Judged(now)),
		"fresh.txt":     Text(fresh.Judged(now)),
		"cert.txt":      CertificatesText(bad.Judged(now)),
		"keys.txt":      KeysText(good().Judged(now)),
	} {
		t.Run(file, func(t *testing.T) {
			want, err := os.ReadFile("testdata/" + file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			for line := range strings.Lines(got) {
				if strings.TrimRight(line, " \n")+"\n" != line {
					t.Errorf("a space ends the line %q", line)
				}
			}
		})
	}
}

func TestConditionsOfACertificate(t *testing.T) {
	day := 24 * time.Hour
	for _, tt := range []struct {
		name string
		cert Certificate
		want string
	}{
		{"an expired certificate is no news while the clock is not believed",
			Certificate{Name: "a", NotBefore: now.Add(-90 * day), NotAfter: now.Add(-day), Condition: ConditionClock, Why: "it is before 2026"},
			"certificate a: the clock is not believed: it is before 2026"},
		{"a limit is told of when there is no certificate", Certificate{Name: "a", Condition: "limit reached", Why: "the CA's limit for pool.example is used up"},
			"certificate a: none yet: the CA's limit for pool.example is used up"},
		{"a limit that outlives the certificate worries, however much time is left",
			Certificate{Name: "a", NotBefore: now.Add(-60 * day), NotAfter: now.Add(30 * day), RenewAt: now.Add(31 * day), Condition: "limit reached", Why: "used up"},
			"certificate a: over in 30d, and no other can be ordered before 2026-12-22T12:00Z: used up"},
		{"and so does one that is over just after the end of a short certificate",
			Certificate{Name: "a", NotBefore: now, NotAfter: now.Add(day), RenewAt: now.Add(day + time.Minute), Condition: "budget spent", Why: "used up"},
			"certificate a: over in 1d, and no other can be ordered before 2026-11-22T12:01Z: used up"},
		{"one that ends before the certificate does not",
			Certificate{Name: "a", NotBefore: now, NotAfter: now.Add(day), RenewAt: now.Add(day - time.Minute), Condition: "budget spent", Why: "used up"}, ""},
		{"a limit worries nobody while there is time", Certificate{Name: "a", NotBefore: now.Add(-60 * day), NotAfter: now.Add(30 * day), Condition: "limit reached", Why: "used up"}, ""},
		{"a rehearsal that would spoil the certificate", Certificate{Name: "a", NotBefore: now.Add(-60 * day), NotAfter: now.Add(30 * day), Condition: ConditionAuthority, Why: "a staging CA"},
			"certificate a: not renewed: a staging CA"},
		{"a name that was taken out of the DNS", Certificate{Name: "a", NotBefore: now.Add(-60 * day), NotAfter: now.Add(30 * day), Condition: ConditionWithdrawn, Why: "no address"},
			"certificate a: withdrawn, not renewed, 30d left: no address"},
		{"a name that was taken out of the DNS is the news when little is left, too", Certificate{Name: "a", NotBefore: now.Add(-89 * day), NotAfter: now.Add(day), Condition: ConditionWithdrawn, Why: "no address"},
			"certificate a: withdrawn, not renewed, 1d left: no address"},
		{"a name that is missing worries nobody before it is confirmed", Certificate{Name: "a", NotBefore: now.Add(-60 * day), NotAfter: now.Add(30 * day), Condition: ConditionMissing, Why: "no address", Since: now.Add(-119 * time.Minute)}, ""},
		{"a name that is missing for hours and never confirmed", Certificate{Name: "a", NotBefore: now.Add(-60 * day), NotAfter: now.Add(30 * day), Condition: ConditionMissing, Why: "only one server says so", Since: now.Add(-2 * time.Hour)},
			"certificate a: missing, not renewed, 30d left: only one server says so"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := judgeCertificate(tt.cert, now); got != tt.want {
				t.Errorf("judged %q, want %q", got, tt.want)
			}
		})
	}
}

// TestJSONKeysAreStable is a golden file: a change here is a change for those
// who read the JSON.
func TestJSONKeysAreStable(t *testing.T) {
	got, err := json.MarshalIndent(good().Judged(now), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	empty, err := json.Marshal(Document{}.Judged(now))
	if err != nil || strings.Contains(string(empty), "null") {
		t.Errorf("an empty document has null in it: %s %v", empty, err)
	}
}

func TestRenewalLine(t *testing.T) {
	for _, c := range []struct {
		name string
		cert Certificate
		want string
	}{
		{"a first order under way", Certificate{OrderingSince: now.Add(-3 * time.Second)}, "ordering since 3s"},
		{"a renewal under way", Certificate{OrderingSince: now.Add(-3 * time.Second), LastSuccess: now.Add(-60 * 24 * time.Hour)},
			"ordering since 3s   last: ok, 60d ago"},
		{"one failure", Certificate{LastError: "http-01: 403", LastHint: "nginx answers on port 80", Failures: 1, NextAttempt: now.Add(time.Minute)},
			"last: failed once, next try in 1m   http-01: 403   fix: nginx answers on port 80"},
		{"a second try under way", Certificate{LastError: "http-01: 403", Failures: 2, NextAttempt: now, OrderingSince: now.Add(-time.Second)},
			"ordering since 1s   last: failed 2 times   http-01: 403"},
		{"a limit that others have used up", Certificate{Condition: "limit reached", Why: "the CA's limit for pool.example is used up until 2026-11-25T10:00Z",
			LastSuccess: now.Add(-time.Hour)}, "the CA's limit for pool.example is used up until 2026-11-25T10:00Z   last: ok, 1h ago"},
		{"a name that was taken out of the DNS", Certificate{Condition: ConditionWithdrawn, Why: "since 2026-11-20T10:00Z: no address", LastHint: "ask the pool",
			NextAttempt: now.Add(time.Hour), LastSuccess: now.Add(-time.Hour)}, "since 2026-11-20T10:00Z: no address   fix: ask the pool   looked at again in 1h"},
		{"a clock that is not believed", Certificate{Condition: ConditionClock, Why: "1970 is long over", LastSuccess: now.Add(-time.Hour)},
			"1970 is long over   fix: set this machine's clock   last: ok, 1h ago"},
		{"one that was made elsewhere", Certificate{Source: SourceImported, RenewAt: now.Add(24 * time.Hour), LastSuccess: now.Add(-time.Hour)},
			"renews " + now.Add(24*time.Hour).UTC().Format("Jan 02 15:04") + "   imported 1h ago"},
		{"a clock that is in doubt", Certificate{LastError: "x509: certificate has expired"}, "last: put off   x509: certificate has expired"},
	} {
		if got := renewalText(c.cert, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestANoteOfTheDNSIsShownAndWorriesNobody(t *testing.T) {
	d := good()
	d.Certificates[0].DNSNote = "there is no AAAA record,\nand ::1 is in public_addresses"
	d = d.Judged(now)
	const want = "              DNS: there is no AAAA record, and ::1 is in public_addresses\n"
	if d.State != Healthy || !strings.Contains(Text(d), want) || !strings.Contains(CertificatesText(d), want) {
		t.Errorf("%s\n%s\n%s", d.State, Text(d), CertificatesText(d))
	}
}

func TestACertificateFromTheFallbackCAIsToldAsSuch(t *testing.T) {
	d := good()
	d.Certificates[0].Fallback = true
	d = d.Judged(now)
	want := d.Certificates[0].Issuer + " (fallback CA)"
	if !strings.Contains(Text(d), want) || !strings.Contains(CertificatesText(d), want) {
		t.Errorf("want %q in\n%s\n%s", want, Text(d), CertificatesText(d))
	}
}

func TestWhatAWebServerShowsIsToldWithWhatMendsIt(t *testing.T) {
	d := good()
	d.Certificates[0].WebServer = []Fault{{"port 443 shows the shop", "nginx: server { }"}, {"nobody listens on port 80", "start it"}}
	d.Certificates[0].LastError, d.Certificates[0].LastHint, d.Certificates[0].Failures = "http-01 not tried: nobody listens on port 80", "start it", 1
	d = d.Judged(now)
	text := Text(d)
	for part, n := range map[string]int{"web server: port 443 shows the shop": 1, "to mend: nginx: server { }": 1, "nobody listens on port 80": 1, "start it": 1} {
		if strings.Count(text, part) != n {
			t.Errorf("%q is told %d times, want %d:\n%s", part, strings.Count(text, part), n, text)
		}
	}
	if shown := CertificatesText(d); d.State != Degraded || !strings.Contains(shown, "Web server    port 443 shows the shop\n              to mend: nginx: server { }\n") {
		t.Errorf("%s:\n%s", d.State, shown)
	}
}

func TestALifeIsToldAsItWasMeant(t *testing.T) {
	const day = 24 * time.Hour
	for life, want := range map[time.Duration]string{
		45*day - time.Second: "44d left of 45d", 90 * day: "89d left of 90d", 6*day + 16*time.Hour - time.Second: "6d 15h left of 6d 16h",
		45*day - time.Minute: "44d left of 45d", time.Hour - time.Second: "59m left of 1h",
	} {
		c := Certificate{Issuer: "CA", Source: "acme", NotBefore: now.Add(-time.Second), NotAfter: now.Add(life - time.Second)}
		if got := certificateText(c, false, now); got != "CA, source acme   "+want {
			t.Errorf("%v: %q, want %q", life, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 40 * time.Second: "40s", time.Hour: "1h", 61 * time.Minute: "1h 1m",
		292 * time.Hour: "12d 4h", 31*24*time.Hour + time.Hour: "31d", 90 * time.Second: "1m 30s",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%d) = %q, want %q", d, got, want)
		}
	}
}
