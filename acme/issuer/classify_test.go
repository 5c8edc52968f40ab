package issuer

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/hostcheck"
)

func TestProblemClass(t *testing.T) {
	for _, tt := range []struct {
		name      string
		p         legoacme.ProblemDetails // Type without its urn
		class     acme.Class
		otherKind bool // another type of challenge may help
	}{
		{"a validation that met another web server", legoacme.ProblemDetails{Type: "unauthorized"}, acme.ClassUnauth, true},
		{"a wrong answer", legoacme.ProblemDetails{Type: "incorrectResponse"}, acme.ClassUnauth, true},
		{"a validation that did not get through", legoacme.ProblemDetails{Type: "connection"}, acme.ClassConnection, true},
		{"a validation whose handshake failed", legoacme.ProblemDetails{Type: "tls"}, acme.ClassTLS, true},
		{"a CAA record that names the other challenge", legoacme.ProblemDetails{Type: "caa"}, acme.ClassCAA, true},
		{"a name that cannot be looked up", legoacme.ProblemDetails{Type: "dns"}, acme.ClassDNS, false},
		{"a request that the account may not make", legoacme.ProblemDetails{Type: "unauthorized", Method: "POST"}, acme.ClassAccount, false},
		{"an unknown account", legoacme.ProblemDetails{Type: "accountDoesNotExist", Method: "POST"}, acme.ClassAccount, false},
		{"new terms", legoacme.ProblemDetails{Type: "userActionRequired", Method: "POST"}, acme.ClassAccount, false},
		{"a limit", legoacme.ProblemDetails{Type: "rateLimited", Method: "POST"}, acme.ClassRateLimited, false},
		{"a name the CA does not like", legoacme.ProblemDetails{Type: "rejectedIdentifier", Method: "POST"}, acme.ClassMalformed, false},
		{"a type from the future", legoacme.ProblemDetails{Type: "somethingNew", Method: "POST", HTTPStatus: 400}, acme.ClassMalformed, false},
		{"a fault of the server", legoacme.ProblemDetails{Type: "somethingNew", Method: "POST", HTTPStatus: 502}, acme.ClassNetwork, false},
		{"a compound of others", legoacme.ProblemDetails{Type: "compound", Method: "POST", SubProblems: []legoacme.SubProblem{{Type: errNS + "caa"}}}, acme.ClassCAA, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.p.Type = errNS + tt.p.Type
			// lego hands errors up wrapped, and joined.
			err := fmt.Errorf("error: one or more domains had a problem:\n%w", fmt.Errorf("invalid authorization: %w", &tt.p))
			if got, _ := explain(err); got != tt.class {
				t.Errorf("class = %s, want %s", got, tt.class)
			}
			if got := validationFailed(err); got != tt.otherKind {
				t.Errorf("another challenge may help = %v, want %v", got, tt.otherKind)
			}
		})
	}
}

func TestWhatIsWrongWithAnOpenChallengeIsTold(t *testing.T) {
	silence := errors.New("[alice.example] acme: the server didn't respond to our request (status=pending)")
	const problem = `"error":{"type":"urn:ietf:params:acme:error:connection","detail":"nobody listens","method":"POST"}`
	for _, tt := range []struct {
		name, body string
		class      acme.Class
		otherKind  bool
	}{
		{"a challenge that is open", `{"type":"http-01","status":"pending","token":"x",` + problem + `}`, acme.ClassConnection, true},
		{"one of an authorization", `{"status":"pending","challenges":[{"status":"pending","token":"y"},{"status":"processing","token":"x",` + problem + `}]}`, acme.ClassConnection, true},
		{"one that is closed", `{"type":"http-01","status":"invalid","token":"x",` + problem + `}`, acme.ClassNetwork, false},
		{"an order", `{"status":"pending",` + problem + `}`, acme.ClassNetwork, false},
		{"no challenge", `[]`, acme.ClassNetwork, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(session)
			s.look([]byte(tt.body))
			s.look([]byte(`{"status":"pending","challenges":[{"status":"pending","token":"y"}]}`))
			err := s.why(silence)
			class, text := explain(err)
			if class != tt.class || validationFailed(err) != tt.otherKind || tt.otherKind != strings.Contains(text, "nobody listens") {
				t.Errorf("class %s, another challenge may help %v: %s", class, validationFailed(err), text)
			}
			if other := errors.New("no way out"); s.why(other) != other {
				t.Error("another failure was explained by it")
			}
			s.forget()
			if s.why(silence) != silence {
				t.Error("it was not forgotten")
			}
		})
	}
}

func TestEveryClassHasAHintOfOneLine(t *testing.T) {
	name, err := hostcheck.ParseName("alice.members.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, class := range []acme.Class{acme.ClassNetwork, acme.ClassRateLimited, acme.ClassConnection, acme.ClassUnauth, acme.ClassDNS, acme.ClassCAA,
		acme.ClassTLS, acme.ClassMalformed, acme.ClassAccount, acme.ClassClock, acme.ClassInternal} {
		for _, kind := range []string{HTTP01, TLSALPN01} {
			h := hint(class, kind, name)
			if h == "" || strings.Contains(h, "\n") || len(h) > 200 {
				t.Errorf("%s: hint %q", class, h)
			}
			seen[h] = true
		}
	}
	if len(seen) < 14 {
		t.Errorf("%d different hints, want 14: connection, unauthorized and tls name the port", len(seen))
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"":                              0,
		"120":                           2 * time.Minute,
		"0":                             0,
		"-5":                            0,
		"soon":                          0,
		"1.5":                           0,
		"315360000":                     24 * time.Hour,
		"99999999999999999999":          0,
		"18446744073709551615":          24 * time.Hour,
		"Mon, 23 Nov 2026 13:00:00 GMT": time.Hour,
		"Mon, 23 Nov 2026 11:00:00 GMT": 0,
		"Sun, 23 Nov 2036 11:00:00 GMT": 24 * time.Hour,
	} {
		if got := parseRetryAfter(in, now); got != want {
			t.Errorf("parseRetryAfter(%q) = %v, want %v", in, got, want)
		}
	}
}

func TestLegoLogIsDebugAndTellsNoKeyAuthorization(t *testing.T) {
	var out bytes.Buffer
	l := legoLog{hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug, DisableTime: true})}
	secret := "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
	l.Print("[INFO] acme: token ", secret)
	l.Println("[WARN]", secret)
	l.Printf("[INFO] [%s] two\nlines", secret)
	l.Fatal("end ", secret)
	l.Fatalln(secret)
	l.Fatalf("%s", secret)
	if got := out.String(); strings.Contains(got, secret) || strings.Contains(got, secret[44:]) || strings.Count(got, "[DEBUG]") != 6 {
		t.Errorf("log = %s", got)
	}
	out.Reset()
	quiet := legoLog{hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info})}
	quiet.Print("[WARN] nothing of this")
	if out.Len() > 0 {
		t.Errorf("log at info level = %s", out.String())
	}
}

// FuzzCheckChain: what is accepted holds one to ten certificates and nothing else.
func FuzzCheckChain(f *testing.F) {
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("der")})
	f.Add(one)
	f.Add(bytes.Repeat(one, maxChain))
	f.Add(bytes.Repeat(one, maxChain+1))
	f.Add(append(one, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("der")})...))
	f.Add([]byte("<html>"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkChain(b) != nil {
			return
		}
		n := 0
		for rest := b; ; n++ {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				t.Fatalf("accepted a %s", block.Type)
			}
		}
		if n < 1 || n > maxChain {
			t.Fatalf("accepted %d certificates", n)
		}
	})
}

// FuzzParseRetryAfter: no answer is negative or longer than a day.
func FuzzParseRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Mon, 23 Nov 2026 13:00:00 GMT")
	f.Add("-1")
	f.Fuzz(func(t *testing.T, v string) {
		if d := parseRetryAfter(v, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)); d < 0 || d > 24*time.Hour {
			t.Fatalf("parseRetryAfter(%q) = %v", v, d)
		}
	})
}

func TestOnlyNamesOfADirectoryCanStandInACAARecord(t *testing.T) {
	said := []string{"LetsEncrypt.org", `x"; y`, "", "pki.goog", "a b", strings.Repeat("a.", 200) + "b"}
	if got, want := caaIdentities(said), []string{"letsencrypt.org", "pki.goog"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := caaIdentities(slices.Repeat([]string{"ca.example"}, 1000)); len(got) != maxIdentities {
		t.Errorf("%d names kept of a thousand", len(got))
	}
}

func TestTheFailuresOfTwoChallengesAreToldApart(t *testing.T) {
	both := combine(&acme.Error{Class: acme.ClassConnection, Err: errors.New("http-01: refused")}, &acme.Error{Class: acme.ClassUnauth, Err: errors.New("tls-alpn-01: 403")})
	if got := both.Error(); got != "http-01: refused; tls-alpn-01: 403" {
		t.Errorf("told %q", got)
	}
}
