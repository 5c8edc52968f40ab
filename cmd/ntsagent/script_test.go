package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/rogpeppe/go-internal/testscript"

	"ntsagent/agent/config"
	"ntsagent/agent/status"
)

// TestMain makes the real main a command of the scripts, and adds helpers:
// `exits` runs ntsagent and prints its exit code after its output, `standin`
// answers on a control socket as an agent would, `await` waits until it does.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ntsagent": main,
		"exits": func() {
			code := execute(context.Background(), os.Args[1:], os.Stdout, os.Stdout)
			os.Stdout.WriteString("exit " + string(rune('0'+code)) + "\n")
		},
		"standin": standIn,
		"await":   await,
	})
}

// TestScripts runs testdata/script/*.txtar, one for each promise.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// A Unix socket's path is short; a script's folder may not be.
			dir, err := os.MkdirTemp("", "ntsagent")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("SOCKET", filepath.Join(dir, "s"))
			// Scripts write DIR for this folder in their configurations.
			paths, err := filepath.Glob(env.Getenv("WORK") + "/*.yaml")
			for _, path := range paths {
				b, readErr := os.ReadFile(path)
				b = bytes.ReplaceAll(b, []byte("DIR"), []byte(dir))
				err = errors.Join(err, readErr, os.WriteFile(path, b, 0o600))
			}
			return err
		},
	})
}

// standIn is an agent with nothing behind its control socket: UNHEALTHY, or beside
// a daemon that it follows, when its second argument says so, and with a
// configuration that cannot be reloaded.
func standIn() {
	ln, err := status.Listen(os.Args[1])
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	part := ""
	if len(os.Args) > 2 {
		part = os.Args[2]
	}
	rotate := func(context.Context) error {
		if part == "following" {
			return fmt.Errorf("%w: ntpd-rs rotates its keys itself", status.ErrPointless)
		}
		return nil
	}
	doc := func() status.Document {
		now := time.Now()
		d := status.Document{
			Agent:        status.Agent{Version: "1.0.0", Started: now},
			Certificates: []status.Certificate{{Name: "alice.example", Source: "acme", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour)}},
			Keys: status.Keys{Mode: "lead", State: status.KeysProven, ProvenAt: now, Current: status.Key{ID: "0a0b0c0d", Fingerprint: "deadbeef"},
				Held: []status.Key{{ID: "0a0b0c0d", Fingerprint: "deadbeef"}}},
		}
		switch part {
		case "unhealthy":
			d.Keys.State = status.KeysRefused
		case "following":
			d.Keys.Mode = "follow"
		case "two names", "one fails":
			d.Certificates = append(d.Certificates, status.Certificate{Name: "bob.example", Source: "acme"})
			d.Certificates[0].Serial, d.Certificates[0].Issuer = "0a", "Fake CA"
		}
		return d.Judged(now)
	}
	revoke := func(_ context.Context, w status.Wish) (status.Outcome, error) {
		out := status.Outcome{Certificate: doc().Certificates[0], Revoked: w.Serial}
		if w.Reason == "cessationOfOperation" {
			out.Copies = []string{"/etc/ntp/cert.pem"}
		} else {
			out.Missing = "certificate not obtained: nobody there; fix: be there"
		}
		return out, nil
	}
	never := func(context.Context, status.Wish) (status.Outcome, error) {
		return status.Outcome{}, status.Refuse(status.ErrFailed, "the agent was asked")
	}
	renew := func(_ context.Context, w status.Wish) (status.Outcome, error) {
		c := doc().Certificates[0]
		c.Serial, c.Issuer, c.RenewAt = "0a", "Fake CA", c.NotBefore.AddDate(0, 2, 0)
		switch {
		case part == "unhealthy", part == "one fails" && w.Name == "bob.example":
			return status.Outcome{}, status.Refuse(status.ErrTemporary, "certificate not ordered before 2026-12-01T00:00Z: used up; fix: wait")
		case part == "following":
			return status.Outcome{}, status.Refuse(status.ErrFailed, "certificate not obtained: nobody there; fix: be there")
		}
		return status.Outcome{Certificate: c, NotDue: !w.Force, Hint: "--force orders now"}, nil
	}
	bad := &config.Error{File: "/etc/ntsagent/ntsagent.yaml", Line: 12, Key: "ke.timout", Problem: "unknown key", Hint: "did you mean ke.timeout?"}
	err = status.Server{
		Status: doc,
		Reload: func(context.Context) error { return bad },
		Rotate: rotate,
		Renew:  renew, Revoke: revoke, Request: never, Import: never,
		Log: hclog.NewNullLogger(),
	}.Serve(ctx, ln)
	if err != nil {
		panic(err)
	}
}

// await returns when somebody answers on the control socket.
func await() {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	client := status.NewClient(os.Args[1])
	again := time.NewTicker(5 * time.Millisecond)
	for ctx.Err() == nil {
		if _, err := client.Status(ctx); err == nil {
			return
		}
		<-again.C
	}
	os.Exit(1)
}
