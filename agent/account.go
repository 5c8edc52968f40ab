package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/acme/store"
	"ntsagent/agent/config"
)

// ErrNoAccount says that no CA has given us an account yet.
var ErrNoAccount = errors.New("no account yet")

// Account is the account that certificates are ordered with. No key is in it.
type Account struct {
	URI           string   `json:"uri"` // "" = there is none yet
	Directory     string   `json:"directory"`
	CAAIdentities []string `json:"caa_identities"` // how the CA calls itself in CAA records; empty = it has not said
	CAA           []string `json:"caa"`            // the record to publish for each name; empty where the CA has not said

	Fallback *Account `json:"fallback,omitempty"` // at the fallback CA; nil = none is configured
}

// ReadAccount reads the account of cfg from disk, beside a running agent or without, and that at the fallback CA if one is
// configured. It fails with ErrNoAccount only if there is none at all.
func ReadAccount(cfg *config.Config) (Account, error) {
	if cfg.Certificate.Source != config.SourceACME {
		return Account{}, fmt.Errorf("certificate.source is %s: nothing is ordered, and there is no account", cfg.Certificate.Source)
	}
	a, err := accountAt(cfg, cfg.ACME.Directory)
	if err != nil && !errors.Is(err, ErrNoAccount) {
		return Account{}, err
	}
	if cfg.ACME.FallbackDirectory == "" {
		return a, err
	}
	second, other := accountAt(cfg, cfg.ACME.FallbackDirectory)
	if other != nil && !errors.Is(other, ErrNoAccount) {
		return Account{}, other
	}
	if err != nil && other != nil {
		return Account{}, err
	}
	a.Fallback = &second
	return a, nil
}

// accountAt is the account at one CA. Without one the error is ErrNoAccount, and the Account says where there is none.
func accountAt(cfg *config.Config, directory string) (Account, error) {
	kept, err := store.ReadAccount(acmeDir(cfg), directory)
	if errors.Is(err, fs.ErrNotExist) || err == nil && kept.URI == "" {
		none := Account{Directory: directory, CAAIdentities: []string{}, CAA: []string{}}
		return none, fmt.Errorf("%w at %s: the agent makes it with its first order", ErrNoAccount, directory)
	}
	if err != nil {
		return Account{}, err
	}
	a := Account{URI: kept.URI, Directory: kept.Directory, CAAIdentities: append([]string{}, kept.CAAIdentities...), CAA: []string{}}
	if len(a.CAAIdentities) == 0 {
		return a, nil
	}
	for _, name := range cfg.Names {
		record, err := acme.CAARecord(name, a.CAAIdentities[0], a.URI, cfg.ACME.Challenges)
		if err != nil {
			return Account{}, err
		}
		a.CAA = append(a.CAA, record)
	}
	return a, nil
}

// acmeDir is where accounts and certificates are kept.
func acmeDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "acme") }

// Text is the account for people.
func (a Account) Text() string {
	var b strings.Builder
	a.write(&b, "account")
	if a.Fallback != nil {
		b.WriteByte('\n')
		a.Fallback.write(&b, "fallback")
	}
	return b.String()
}

func (a Account) write(b *strings.Builder, title string) {
	if a.URI == "" {
		fmt.Fprintf(b, "%-10s %s\n%-10s %s\n", title, "none yet: the agent opens it while it runs; its log says what keeps it from that", "directory", a.Directory)
		return
	}
	fmt.Fprintf(b, "%-10s %s\n%-10s %s\n", title, a.URI, "directory", a.Directory)
	if len(a.CAA) == 0 {
		fmt.Fprintf(b, "%-10s %s\n", "caa", "the CA has not said how CAA records name it; it is asked with each order")
	}
	for _, record := range a.CAA {
		fmt.Fprintf(b, "%-10s %s\n", "caa", record)
	}
}

// How long to wait before an account is asked for again.
const firstAsk, lastAsk = time.Minute, 24 * time.Hour

// openAccount opens the account at the fallback CA before it is needed, and tries again later and later until there is one.
func openAccount(ctx context.Context, open func(context.Context) error, log hclog.Logger) error {
	told := ""
	for wait := firstAsk; ; wait = min(4*wait, lastAsk) {
		err := open(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if err.Error() != told {
			told = err.Error()
			e := &acme.Error{Hint: "look at acme.fallback_directory, and at this machine's way out"}
			errors.As(err, &e)
			log.Warn("no account at the fallback CA yet", "cause", told, "hint", e.Hint)
		}
		again := time.NewTimer(time.Duration(float64(wait) * (0.8 + 0.4*rand.Float64())))
		select {
		case <-ctx.Done():
			again.Stop()
			return nil
		case <-again.C:
		}
	}
}
