package agent

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"ntsagent/acme/store"
	"ntsagent/agent/config"
	"ntsagent/hostcheck"
)

func TestReadAccountTellsOfBothCAs(t *testing.T) {
	t.Parallel()
	name, err := hostcheck.ParseName("alice.example")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{Names: []hostcheck.Name{name}, StateDir: t.TempDir(), Certificate: config.Certificate{Source: config.SourceACME},
		ACME: config.ACME{Directory: "https://ca.example/dir", FallbackDirectory: "https://other.example/dir", Challenges: []string{config.ChallengeHTTP01}}}
	if _, err := ReadAccount(cfg); !errors.Is(err, ErrNoAccount) {
		t.Errorf("before there is one: %v", err)
	}
	s, err := store.Open(acmeDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	open := func(directory, ca string) {
		t.Helper()
		key, err := store.NewKey(store.P256)
		if err == nil {
			err = s.SaveAccount(store.Account{URI: "https://" + ca + "/acct/7", Directory: directory, Key: key, CAAIdentities: []string{ca}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	open(cfg.ACME.Directory, "ca.example")
	a, err := ReadAccount(cfg)
	if err != nil || a.Fallback == nil || a.Fallback.URI != "" || !strings.Contains(a.Text(), "fallback   none yet") {
		t.Fatalf("%+v, %v: %s; want to be told that the fallback has none", a, err, a.Text())
	}
	open(cfg.ACME.FallbackDirectory, "other.example")
	if a, err = ReadAccount(cfg); err != nil {
		t.Fatal(err)
	}
	const want = `account    https://ca.example/acct/7
directory  https://ca.example/dir
caa        alice.example. CAA 0 issue "ca.example; validationmethods=http-01; accounturi=https://ca.example/acct/7"

fallback   https://other.example/acct/7
directory  https://other.example/dir
caa        alice.example. CAA 0 issue "other.example; validationmethods=http-01; accounturi=https://other.example/acct/7"
`
	if got := a.Text(); got != want {
		t.Errorf("text =\n%s\nwant\n%s", got, want)
	}
	b, err := json.Marshal(a)
	if err != nil || strings.Count(string(b), `"caa":["alice.example. CAA 0 issue`) != 2 || !strings.Contains(string(b), `"fallback":{"uri":"https://other.example/acct/7"`) {
		t.Errorf("JSON = %s, %v", b, err)
	}
	cfg.ACME.FallbackDirectory = ""
	if a, err = ReadAccount(cfg); err != nil || a.Fallback != nil || strings.Contains(a.Text(), "fallback") {
		t.Errorf("without a fallback: %+v, %v", a, err)
	}
}
