package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/live"
	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/hostcheck"
)

func TestWhyThereIsNoCertificateIsKnownAtOnceAndLoggedWhenItLasts(t *testing.T) {
	name, err := hostcheck.ParseName("alice.pool.test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		var events status.Events
		files := config.CertificateFiles{Name: name, Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
		s := newFileSource(files, live.NewSet([]hostcheck.Name{name}), hclog.New(&hclog.LoggerOptions{Output: &said, Level: hclog.Info}), func() {}, &events)
		go s.load(t.Context())
		synctest.Wait()
		if state := s.state.Load(); !strings.Contains(state.err, "no such file") || state.failures != 1 || len(events.List()) > 0 {
			t.Errorf("at once: %+v, events %+v", state, events.List())
		}
		<-time.After(10 * time.Second) // of the bubble
		synctest.Wait()
		if state := s.state.Load(); state.failures != 1 || strings.Count(said.String(), "[ERROR]") != 1 ||
			!strings.Contains(said.String(), "there is no certificate before them") {
			t.Errorf("at last: %+v, logged %q", state, said.String())
		}
		if all := events.List(); len(all) != 1 || !strings.HasPrefix(all[0].What, "certificate alice.pool.test: ") {
			t.Errorf("events %+v", all)
		}
	})
}

func TestAFaultOfACertificateIsToldBesideItsName(t *testing.T) {
	name, err := hostcheck.ParseName("alice.pool.test")
	if err != nil {
		t.Fatal(err)
	}
	s := &fileSource{files: config.CertificateFiles{Name: name}}
	if got := s.cause(errors.New("certificate for alice.pool.test: is valid for b.test only")); got != "is valid for b.test only" {
		t.Errorf("got %q", got)
	}
	got := s.cause(fmt.Errorf("certificate key: %w", &fs.PathError{Op: "open", Path: "/k", Err: fs.ErrPermission}))
	if !strings.HasPrefix(got, "certificate key: open /k: permission denied; fix: let user ") {
		t.Errorf("got %q", got)
	}
}
