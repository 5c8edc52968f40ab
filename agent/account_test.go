package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
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
	turned := *cfg // the account at hand is that of the fallback
	turned.ACME.Directory, turned.ACME.FallbackDirectory = cfg.ACME.FallbackDirectory, cfg.ACME.Directory
	open(cfg.ACME.Directory, "ca.example")
	a, err := ReadAccount(&turned)
	if err != nil || a.URI != "" || a.Directory != turned.ACME.Directory || !strings.Contains(a.Text(), "account    none yet") ||
		a.Fallback == nil || !strings.Contains(a.Text(), `0 issue "ca.example; `) {
		t.Fatalf("%+v, %v: %s; want to be told of the fallback's alone", a, err, a.Text())
	}
	a, err = ReadAccount(cfg)
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

func TestAccountAtTheFallbackIsAskedForLaterAndLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var asked []time.Time
		open := func(context.Context) error {
			asked = append(asked, time.Now())
			switch len(asked) {
			case 8:
				return nil
			case 4:
				return errors.New("deadline exceeded")
			}
			return &acme.Error{Class: acme.ClassAccount, Err: errors.New("wants a binding"), Hint: "set acme.fallback_eab"}
		}
		if err := openAccount(t.Context(), open, hclog.New(&hclog.LoggerOptions{Output: &log})); err != nil || len(asked) != 8 {
			t.Fatalf("%v after %d attempts", err, len(asked))
		}
		for n, want := range []time.Duration{time.Minute, 4 * time.Minute, 16 * time.Minute, 64 * time.Minute, 256 * time.Minute, 1024 * time.Minute, 24 * time.Hour} {
			if wait := asked[n+1].Sub(asked[n]); wait < want*8/10 || wait > want*12/10 {
				t.Errorf("wait %d = %v, want about %v", n, wait, want)
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 3 || strings.Count(log.String(), "hint=\"set acme.fallback_eab\"") != 2 {
			t.Errorf("told %d times, want each cause when it is new: %s", n, &log)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := openAccount(ctx, func(context.Context) error { return errors.New("no") }, hclog.NewNullLogger()); err != nil || ctx.Err() == nil {
			t.Errorf("it ended with %v before its context", err)
		}
	})
}
