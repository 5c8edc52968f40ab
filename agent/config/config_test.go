package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ntsagent/hostcheck"
)

func name(t testing.TB, s string) hostcheck.Name {
	t.Helper()
	n, err := hostcheck.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fixtures reads testdata files by suffix; there must be some.
func fixtures(t testing.TB, suffix string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*" + suffix)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no testdata/*%s: %v", suffix, err)
	}
	files := map[string][]byte{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(p)] = b
	}
	return files
}

func TestGoodFilesParseAndShowGivesThemBack(t *testing.T) {
	for file, b := range fixtures(t, ".good.yaml") {
		t.Run(file, func(t *testing.T) {
			c, err := Parse(file, b)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse("shown", Show(c))
			if err != nil {
				t.Fatalf("Show is not valid: %v\n%s", err, Show(c))
			}
			if !reflect.DeepEqual(c, again) {
				t.Errorf("Parse(Show(c)) is another configuration\n%s", Show(c))
			}
		})
	}
}

// TestBadFilesSayWhatIsWrong holds every bad file to the lines "# error:" at
// its end, which are the whole error text without the file's name.
func TestBadFilesSayWhatIsWrong(t *testing.T) {
	for file, b := range fixtures(t, ".bad.yaml") {
		t.Run(file, func(t *testing.T) {
			var want []string
			for line := range strings.Lines(string(b)) {
				if text, ok := strings.CutPrefix(line, "# error: "); ok {
					want = append(want, file+strings.TrimSuffix(text, "\n"))
				}
			}
			if len(want) == 0 {
				t.Error("the file names no error")
			}
			c, err := Parse(file, b)
			if err == nil {
				t.Fatalf("accepted:\n%s", Show(c))
			}
			if got := err.Error(); got != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			var one *Error
			if !errors.As(err, &one) || one.File != file {
				t.Errorf("errors.As finds no *Error of this file in %T", err)
			}
		})
	}
}

func TestTheExampleIsTheDefaultsWithWhatOnlyTheOperatorKnows(t *testing.T) {
	const unedited = "example.yaml:6: names[0]: alice.members.pool.example is the name that the example has in place of yours; write the host name of this server"
	if _, err := Parse("example.yaml", Example()); err == nil || err.Error() != unedited {
		t.Errorf("the example as it is: %v, want %s", err, unedited)
	}
	tested := strings.ReplaceAll(string(Example()), "https://acme-v02.api.letsencrypt.org/", "https://pebble.example/")
	if _, err := Parse("example.yaml", []byte(tested)); err != nil {
		t.Errorf("the example's name at another CA: %v", err)
	}
	c, err := Parse("example.yaml", bytes.ReplaceAll(Example(), []byte("alice.members.pool.example"), []byte("alice.example")))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Names = []hostcheck.Name{name(t, "alice.example")}
	want.ACME.Email = "ops@alice.example"
	want.ACME.AgreeToTerms = true
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the example differs from the defaults:\n%s\nwant\n%s", Show(c), Show(want))
	}
	for _, key := range knownKeys(reflect.TypeFor[Config](), "") {
		last := key[strings.LastIndexByte(key, '.')+1:]
		if strings.HasPrefix(key, "pools.") {
			continue // a list that is empty in the example
		}
		if !strings.Contains(string(Example()), last+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

func TestValuesArriveTyped(t *testing.T) {
	b := fixtures(t, "lab.good.yaml")["lab.good.yaml"]
	c, err := Parse("lab", b)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct{ what, got, want any }{
		{"a host name", c.Names[0], name(t, "lab.ntsagent.example")},
		{"a duration", c.KE.Timeout, 500 * time.Millisecond},
		{"hours", c.Keys.RotateEvery, 36 * time.Hour},
		{"an address and port", c.Daemon.Address, netip.MustParseAddrPort("[::1]:11123")},
		{"port 0 may be listed twice", len(c.KE.Listen), 3},
		{"no rate", c.KE.Limits.PerPrefix, Rate{}},
		{"the rate that stays at its default", Default().KE.Limits.PerPrefix, Rate{1, time.Second}},
		{"an emptied list", len(c.ACME.HTTP01.Listen), 0},
		{"AEADs", c.KE.AEADs[0], uint16(30)},
		{"auto AEADs", Default().KE.AEADs == nil, true},
	} {
		if v.got != v.want {
			t.Errorf("%s: got %v, want %v", v.what, v.got, v.want)
		}
	}
}

func TestNamesBecomeALabels(t *testing.T) {
	c, err := Parse("x", []byte("names: [ZEIT.Bücher.example., xn--bcher-kva.example]\nacme: {agree_to_terms: true}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"zeit.xn--bcher-kva.example", "xn--bcher-kva.example"} {
		if got := c.Names[i].String(); got != want {
			t.Errorf("name %d is %s, want %s", i, got, want)
		}
	}
}

func TestCertificateFilesComeInTheOrderOfTheNames(t *testing.T) {
	for file, want := range map[string][]CertificateFiles{
		"minimal.good.yaml": nil,
		"files-one-name.good.yaml": {{name(t, "alice.members.pool.example"),
			"/etc/letsencrypt/live/alice/fullchain.pem", "/etc/letsencrypt/live/alice/privkey.pem"}},
		"files-several-names.good.yaml": {{name(t, "alice.example"), "/a/cert.pem", "/a/key.pem"},
			{name(t, "bob.example"), "/b/cert.pem", "/b/key.pem"}},
	} {
		c, err := Parse(file, fixtures(t, ".good.yaml")[file])
		if err != nil {
			t.Fatal(err)
		}
		if got := c.CertificateFiles(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", file, got, want)
		}
	}
}

func TestDurationsAndRatesAreWrittenAsTheyAreRead(t *testing.T) {
	for _, text := range []string{"500ms", "3s", "1m", "90m", "24h", "7d", "1m30s"} {
		d, err := parseDuration(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if again, _ := parseDuration(formatDuration(d.(time.Duration))); again != d {
			t.Errorf("%s is written %s", text, formatDuration(d.(time.Duration)))
		}
	}
	for _, text := range []string{"0", "1/s", "30/m", "6/h"} {
		r, err := parseRate(text)
		if err != nil || formatRate(r.(Rate)) != text {
			t.Errorf("%s is written %v (%v)", text, r, err)
		}
	}
	for _, text := range []string{"", "-3s", "d", "1.5d", "99999d", "auto"} {
		if d, err := parseDuration(text); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
	for _, text := range []string{"", "1", "0/s", "-1/s", "1/d", "/s", "1/s/s"} {
		if r, err := parseRate(text); err == nil {
			t.Errorf("%q was read as %v", text, r)
		}
	}
}

func TestLoadSaysWhatIsWrongWithTheFileItself(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("#"), maxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{filepath.Join(dir, "none.yaml"), "/none.yaml: no such file; write one with: ntsagent config example > "},
		{dir, ": not a regular file"},
		{large, "/large.yaml: larger than 256 KiB"},
	} {
		_, err := Load(c.path)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Load(%s) said %v, want %q", c.path, err, c.want)
		}
	}
	closed := unread("c.yaml", &fs.PathError{Op: "open", Path: "c.yaml", Err: fs.ErrPermission}) // to root no file is
	if !errors.Is(closed, fs.ErrPermission) || closed.Error() != "c.yaml: permission denied; run as root or as the agent's user" {
		t.Errorf("got %v", closed)
	}
	if _, err := Parse("x", bytes.Repeat([]byte("#"), maxSize+1)); err == nil {
		t.Error("Parse took more than the cap")
	}
}

func TestJSONHasTheKeysOfTheFile(t *testing.T) {
	b, err := json.Marshal(Default())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		KE struct {
			Timeout string
			Cookies int
			AEADs   string
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.KE.Timeout != "3s" || got.KE.Cookies != 8 || got.KE.AEADs != "auto" {
		t.Errorf("got %+v from %s", got, b)
	}
}

func FuzzParse(f *testing.F) {
	for _, suffix := range []string{".good.yaml", ".bad.yaml"} {
		for _, b := range fixtures(f, suffix) {
			f.Add(b)
		}
	}
	f.Add(Example())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("fuzz.yaml", b)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "fuzz.yaml:") {
					t.Errorf("an error is more than one line: %q", err)
				}
			}
			return
		}
		again, err := Parse("shown", Show(c))
		if err != nil {
			t.Fatalf("Show is not valid: %v\n%s", err, Show(c))
		}
		if !reflect.DeepEqual(c, again) {
			t.Errorf("Parse(Show(c)) differs:\n%s\n%s", Show(c), Show(again))
		}
	})
}

func TestAnExportIsReadAsItIsWritten(t *testing.T) {
	c, err := Parse("x", fixtures(t, "export.good.yaml")["export.good.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	want := c.Certificate.Export[0]
	if got, err := ParseExport(want.String()); err != nil || !reflect.DeepEqual(got, want) || got.Mode != 0o600 || got.Group != "ntpsec" {
		t.Errorf("%s is read as %+v, %v", want, got, err)
	}
	for s, problem := range map[string]string{
		"":     "no name given",
		"name": "expected keys with values",
		`{"name": "alice.example", "cert": "/c", "key": "k"}`:                       "not an absolute path",
		`{"name": "alice.example", "cert": "/c", "key": "/k", "mode": "0777"}`:      "not for a private key",
		`{"name": "alice.example", "cert": "/c", "key": "/k", "run": "x"}`:          "unknown key",
		`{"name": "alice.example", "cert": "/c", "key": "/k", "unit": "a.service"}`: "belongs to then: restart",
		`{"name": "alice.example", "cert": "/c", "key": "/k", "then": "restart"}`:   "needs the unit",
	} {
		if _, err := ParseExport(s); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseExport(f *testing.F) {
	f.Add(`{"name": "alice.example", "cert": "/c", "key": "/k", "mode": "0600", "then": "sighup"}`)
	f.Add("{name: alice.example, cert: /c, key: /k, then: restart, command: [/sbin/rc-service, chronyd, 'a b']}")
	f.Add("{name: alice.example, cert: /c, key: /k, owner: root, group: \"7\", mode: 440, pid_file: /p}")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseExport(s)
		if err != nil {
			return
		}
		if again, err := ParseExport(e.String()); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q became %s, which is read as %s, %v", s, e, again, err)
		}
	})
}

// TestFallbackIsAnotherCAHoweverItIsSpelled: one CA with two budgets would be asked for twice what it allows.
func TestFallbackIsAnotherCAHoweverItIsSpelled(t *testing.T) {
	for _, tt := range []struct {
		name, primary, fallback string
		bad                     bool
	}{
		{"another CA", "https://ca.example/dir", "https://other.example/dir", false},
		{"another port", "https://ca.example/dir", "https://ca.example:14000/dir", false},
		{"another address", "https://[::1]:14000/dir", "https://127.0.0.1:14000/dir", false},
		{"a query", "https://ca.example/dir", "https://other.example/dir?of=us", false},
		{"the same", "https://ca.example/dir", "https://ca.example/dir", true},
		{"the port that goes without saying", "https://ca.example/dir", "https://ca.example:443/dir", true},
		{"the other way round", "https://ca.example:0443/dir", "https://ca.example/dir", true},
		{"no port after a colon", "https://ca.example/dir", "https://ca.example:/dir", true},
		{"a host in capitals", "https://ca.example/dir", "https://CA.example/dir", true},
		{"a scheme in capitals", "https://ca.example/dir", "HTTPS://ca.example/dir", true},
		{"a name with its dot", "https://ca.example/dir", "https://ca.example./dir", true},
		{"an address in another form", "https://[::1]/dir", "https://[0:0::1]/dir", true},
		{"two slashes", "https://ca.example/dir", "https://ca.example//dir", true},
		{"another path", "https://ca.example/dir", "https://ca.example/other", true},
		{"an empty query", "https://ca.example/dir", "https://other.example/dir?", true},
		{"a fragment", "https://ca.example/dir", "https://other.example/dir#x", true},
		{"an empty fragment of the CA of choice", "https://ca.example/dir#", "https://other.example/dir", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("a.yaml", fmt.Appendf(nil, "names: [alice.pool.example]\nacme:\n  agree_to_terms: true\n  directory: %q\n  fallback_directory: %q\n", tt.primary, tt.fallback))
			if (err != nil) != tt.bad {
				t.Errorf("%s with %s: %v, want an error: %v", tt.primary, tt.fallback, err, tt.bad)
			}
		})
	}
}
