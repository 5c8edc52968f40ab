package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/agent/config"
	"ntsagent/hostcheck"
)

// slowCA answers no order before its context ends.
type slowCA struct{}

func (slowCA) Issue(ctx context.Context, _ acme.Order) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (slowCA) RenewalInfo(context.Context, *x509.Certificate) (acme.RenewalInfo, error) {
	return acme.RenewalInfo{}, acme.ErrNoRenewalInfo
}

func (slowCA) Revoke(context.Context, *x509.Certificate, acme.Reason) error {
	return &acme.Error{Class: acme.ClassInternal, Err: errors.New("not here")}
}

func TestTheStatusTellsOfAnOrderUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name, err := hostcheck.ParseName("alice.example")
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(filepath.Join(t.TempDir(), "acme"))
		if err != nil {
			t.Fatal(err)
		}
		m := acme.NewManager(acme.Config{Name: name, Issuer: slowCA{}, Store: s, Live: live.NewSet([]hostcheck.Name{name}), Log: hclog.NewNullLogger()})
		ctx, cancel := context.WithCancel(t.Context())
		go m.Run(ctx)
		started := time.Now()
		time.Sleep(3 * time.Second)
		got := (&certs{managers: []*acme.Manager{m}}).report()
		cancel()
		synctest.Wait()
		if len(got) != 1 || !got[0].OrderingSince.Equal(started) || got[0].Failures != 0 || got[0].LastError != "" {
			t.Errorf("during an order the status has %+v, want ordering since %v and no failure", got, started)
		}
	})
}

func TestWhatIsAnnouncedIsTold(t *testing.T) {
	for want, ntp := range map[string]config.NTP{
		"": {}, "port 124": {Port: 124}, "ntp.example": {Host: "ntp.example"}, "ntp.example port 124": {Host: "ntp.example", Port: 124},
	} {
		if got := announced(ntp); got != want {
			t.Errorf("%+v: %q, want %q", ntp, got, want)
		}
	}
}
