package store

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"ntsagent/acme/disk"
)

// Account is the agent's account at one ACME server. The key is the account: the URI is only where the server keeps it and
// may be empty until the server has told it.
type Account struct {
	URI       string // account URL (RFC 8555 section 7.3), "" while not known
	Directory string // the directory URL it belongs to
	Email     string // contact given at registration
	Key       crypto.Signer

	CAAIdentities []string // how CAA records name the CA (RFC 8555 section 9.7.6), as its directory last said
}

// Format prints an account without its key under every verb.
func (a Account) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "account %s at %s", a.URI, a.Directory)
}

// accountFile is account.json. KeySHA256 ties it to key.pem: a URI that belongs to another key is not used.
type accountFile struct {
	Schema    int    `json:"schema"`
	Directory string `json:"directory"`
	URI       string `json:"uri"`
	Email     string `json:"email"`
	KeySHA256 string `json:"key_sha256"`

	CAAIdentities []string `json:"caa_identities,omitempty"`
}

// Account returns the account for a directory URL, or an error that is os.ErrNotExist when there is none. A key that cannot be
// read is an error and never replaced: the pool or a CAA record may be bound to it. A damaged account.json is set aside and the
// account comes back without URI, which the server tells again for the key.
func (s *Store) Account(directory string) (Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.accountDir(directory)
	keyPath := filepath.Join(dir, "key.pem")
	b, err := disk.ReadFile(keyPath, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, jerr := os.Lstat(filepath.Join(dir, "account.json")); jerr == nil {
			return Account{}, fmt.Errorf("account key %s is missing beside its account.json: "+
				"restore it from a backup, or remove %s to register anew", keyPath, dir)
		}
		return Account{}, fmt.Errorf("no account for %s: %w", directory, fs.ErrNotExist)
	}
	if err != nil {
		return Account{}, fmt.Errorf("read account key: %w", err)
	}
	key, err := decodeKey(b)
	if err != nil {
		return Account{}, fmt.Errorf("read account key %s: %w: restore it from a backup, or remove %s to register anew", keyPath, err, dir)
	}
	a := Account{Directory: directory, Key: key}
	f, err := readAccountFile(filepath.Join(dir, "account.json"))
	if err != nil {
		return Account{}, err
	}
	if fp, err := fingerprint(key); err == nil && f.KeySHA256 == fp && f.Directory == directory {
		a.URI, a.Email, a.CAAIdentities = f.URI, f.Email, f.CAAIdentities
	}
	return a, nil
}

// ReadAccount is what the store in dir says of the account for a directory URL, without its key, which it does not touch. It
// changes nothing, so that it may run beside the agent. os.ErrNotExist says that there is no account yet.
func ReadAccount(dir, directory string) (Account, error) {
	path := filepath.Join((&Store{dir: dir}).accountDir(directory), "account.json")
	b, err := disk.ReadFile(path, maxJSONFile)
	if err != nil {
		return Account{}, fmt.Errorf("read account: %w", err)
	}
	var f accountFile
	if err := json.Unmarshal(b, &f); err != nil || f.Schema != 1 || f.Directory != directory {
		return Account{}, fmt.Errorf("read account: %s is damaged: the agent mends it with its next order", path)
	}
	return Account{URI: f.URI, Directory: f.Directory, Email: f.Email, CAAIdentities: f.CAAIdentities}, nil
}

// readAccountFile returns account.json, or its zero value when it is missing or damaged.
func readAccountFile(path string) (accountFile, error) {
	var f accountFile
	b, err := disk.ReadFile(path, maxJSONFile)
	if errors.Is(err, fs.ErrNotExist) {
		return accountFile{}, nil
	}
	if err != nil {
		return accountFile{}, fmt.Errorf("read account: %w", err)
	}
	if err := json.Unmarshal(b, &f); err != nil || f.Schema != 1 {
		if err := setAside(path); err != nil {
			return accountFile{}, fmt.Errorf("set damaged account file %s aside: %w", path, err)
		}
		return accountFile{}, nil
	}
	return f, nil
}

// SaveAccount makes an account durable, the key first. It refuses to put another key over the one that is there.
func (s *Store) SaveAccount(a Account) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.accountDir(a.Directory)
	if err := disk.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("make account folder: %w", err)
	}
	keyPEM, err := EncodeKey(a.Key)
	if err != nil {
		return err
	}
	keyPath := filepath.Join(dir, "key.pem")
	have, err := disk.ReadFile(keyPath, maxKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := disk.WriteFile(keyPath, keyPEM, fileMode); err != nil {
			return fmt.Errorf("keep account key: %w", err)
		}
	case err != nil:
		return fmt.Errorf("read account key: %w", err)
	case string(have) != string(keyPEM):
		return fmt.Errorf("account key %s differs from the one to save: remove %s to register anew", keyPath, dir)
	}
	fp, err := fingerprint(a.Key)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "account.json"), accountFile{
		Schema: 1, Directory: a.Directory, URI: a.URI, Email: a.Email, KeySHA256: fp, CAAIdentities: a.CAAIdentities,
	})
}

// accountDir names the folder of a directory URL: readable by its host, told apart by a hash of the whole URL.
func (s *Store) accountDir(directory string) string {
	host := "unknown"
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		host = strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-':
				return r
			}
			return '_'
		}, strings.ToLower(u.Host))
	}
	if len(host) > 100 {
		host = host[:100]
	}
	sum := sha256.Sum256([]byte(directory))
	// The prefix keeps a host that begins with a dot from making a hidden or a parent folder.
	return filepath.Join(s.dir, "accounts", "at-"+host+"-"+hex.EncodeToString(sum[:8]))
}

// fingerprint is the SHA-256 of a public key's SubjectPublicKeyInfo, in hex.
func fingerprint(key crypto.Signer) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode account public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// writeJSON makes v durable at path.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return disk.WriteFile(path, append(b, '\n'), fileMode)
}

var _ fmt.Formatter = Account{}
