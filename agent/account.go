package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"ntsagent/acme"
	"ntsagent/acme/store"
	"ntsagent/agent/config"
)

// ErrNoAccount says that no CA has given us an account yet.
var ErrNoAccount = errors.New("no account yet")

// Account is the account that certificates are ordered with. No key is in it.
type Account struct {
	URI           string   `json:"uri"`
	Directory     string   `json:"directory"`
	CAAIdentities []string `json:"caa_identities"` // how the CA calls itself in CAA records; empty = it has not said
	CAA           []string `json:"caa"`            // the record to publish for each name; empty where the CA has not said
}

// ReadAccount reads the account of cfg from disk, beside a running agent or without.
func ReadAccount(cfg *config.Config) (Account, error) {
	if cfg.Certificate.Source != config.SourceACME {
		return Account{}, fmt.Errorf("certificate.source is %s: nothing is ordered, and there is no account", cfg.Certificate.Source)
	}
	kept, err := store.ReadAccount(acmeDir(cfg), cfg.ACME.Directory)
	if errors.Is(err, fs.ErrNotExist) || err == nil && kept.URI == "" {
		return Account{}, fmt.Errorf("%w at %s: the agent makes it with its first order", ErrNoAccount, cfg.ACME.Directory)
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
	fmt.Fprintf(&b, "%-10s %s\n%-10s %s\n", "account", a.URI, "directory", a.Directory)
	if len(a.CAA) == 0 {
		fmt.Fprintf(&b, "%-10s %s\n", "caa", "the CA has not said how CAA records name it; it is asked with each order")
	}
	for _, record := range a.CAA {
		fmt.Fprintf(&b, "%-10s %s\n", "caa", record)
	}
	return b.String()
}
