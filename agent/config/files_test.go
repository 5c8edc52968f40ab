package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesThatOrdersWouldFailForAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return path
	}
	const key = "c2VjcmV0LWtleS1vZi0zMi1vY3RldHMtb3Itc28="
	good, missing := file("good", key+"\n", 0o640), filepath.Join(dir, "missing")
	eab := func(path string) string { return "eab: {kid: k, hmac_file: " + path + "}" }
	for _, c := range []struct{ name, acme, warns string }{
		{"a key as the CA gave it", eab(good), ""},
		{"no key file", eab(missing), "acme.eab.hmac_file: there is no file " + missing + "; "},
		{"a key that everybody may read", eab(file("open", key, 0o644)), "mode 0644"},
		{"a key in hexadecimal with colons", eab(file("hex", "73:65:63:72", 0o600)), "is not base64url"},
		{"a key in plain base64", eab(file("plain", "c2Vj+cmV0/", 0o600)), "is not base64url"},
		{"an empty key file", eab(file("empty", "\n", 0o600)), "is not base64url"},
		{"a file of another kind", eab(file("long", strings.Repeat("A", maxHMACFile+1), 0o600)), "is not base64url"},
		{"a folder in place of the key", eab(dir), "is not a regular file"},
		{"the fallback's key", "fallback_directory: https://ca.example/dir, fallback_eab: {kid: k, hmac_file: " + missing + "}", "acme.fallback_eab.hmac_file: there is no file "},
		{"a folder for proofs", "http01: {mode: webroot, webroot: " + dir + "}", ""},
		{"no folder for proofs", "http01: {mode: webroot, webroot: " + missing + "}", "acme.http01.webroot: there is no folder " + missing + "; make it, "},
		{"a file in its place", "http01: {mode: webroot, webroot: " + good + "}", "is not a folder"},
	} {
		cfg, err := Parse("test", []byte("names: [alice.example]\nacme: {agree_to_terms: true, "+c.acme+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(cfg.FileWarnings(), "\n")
		if (got != "") != (c.warns != "") || !strings.Contains(got, c.warns) || strings.Contains(got, "\n") || strings.Contains(got, "secret") || strings.Contains(got, "c2Vj") {
			t.Errorf("%s: %q, want one line with %q", c.name, got, c.warns)
		}
	}
	cfg := Config{Certificate: Certificate{Source: SourceFiles}, ACME: ACME{EAB: EAB{KID: "k", HMACFile: missing}}}
	if got := cfg.FileWarnings(); got != nil {
		t.Errorf("nothing is ordered, and it warns %q", got)
	}
}
