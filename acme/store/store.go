// Package store keeps the ACME account and the certificates of an agent on disk so that no crash loses them.
//
//	DIR/accounts/HOST-HASH/{key.pem, account.json}             one per directory URL
//	DIR/names/NAME/pending.key                                 the key of the order that is under way
//	DIR/names/NAME/csr.key                                     the key of a request that an operator has signed elsewhere
//	DIR/names/NAME/generations/N/{privkey.pem, fullchain.pem}  complete pairs, the newest three and the one that ends last
//	DIR/names/NAME/current -> generations/N                    the pair that is in use
//	DIR/names/NAME/renewal.json                                what the last attempts came to
//
// A generation is written under a temporary name, flushed, and renamed whole; only then does `current` move, by the rename of
// a new symbolic link. So a reader of `current`, this agent or another program, sees the old pair or the new one. A key is on
// disk before a certificate for it is ordered. Folders are 0700 and files 0600.
package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"ntsagent/acme/disk"
	"ntsagent/hostcheck"
)

const (
	dirMode  os.FileMode = 0o700
	fileMode os.FileMode = 0o600

	// tmpPrefix begins every name that may be left behind by a crash; package disk uses the same one.
	tmpPrefix = ".ntsagent-tmp-"

	maxKeyFile   = 16 << 10
	maxJSONFile  = 64 << 10
	maxChainFile = 1 << 20
)

// Store is the folder of one agent. It is safe for concurrent use by one process; two processes are kept apart by the lock
// that the agent takes on its state folder.
type Store struct {
	dir string
	mu  sync.Mutex
}

// Open makes dir usable: it creates the folders, removes whatever an interrupted write left behind, finishes a generation
// that was complete but not yet in use, and points `current` at a matching pair again if it does not name one. It never
// removes the pair in use.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	for _, d := range []string{dir, filepath.Join(dir, "accounts"), filepath.Join(dir, "names")} {
		if err := disk.MkdirAll(d, dirMode); err != nil {
			return nil, fmt.Errorf("make certificate store: %w", err)
		}
	}
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("sweep certificate store %s: %w", dir, err)
	}
	names, err := os.ReadDir(filepath.Join(dir, "names"))
	if err != nil {
		return nil, fmt.Errorf("list certificate store: %w", err)
	}
	for _, e := range names {
		if !e.IsDir() {
			continue
		}
		if err := repair(filepath.Join(dir, "names", e.Name())); err != nil {
			return nil, fmt.Errorf("repair certificates of %s: %w", e.Name(), err)
		}
	}
	return s, nil
}

// sweep removes every temporary file, link and folder of ours below dir. Symbolic links are removed, never followed.
func sweep(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == dir || !strings.HasPrefix(d.Name(), tmpPrefix) {
			return nil
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if d.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
}

// nameDir is the folder of one name. A hostcheck.Name holds only letters, digits, hyphens and single dots, so it is safe as a
// file name.
func (s *Store) nameDir(name hostcheck.Name) (string, error) {
	if name.IsZero() {
		return "", fmt.Errorf("certificate store: no name given")
	}
	dir := filepath.Join(s.dir, "names", name.String())
	if err := disk.MkdirAll(filepath.Join(dir, "generations"), dirMode); err != nil {
		return "", fmt.Errorf("make folder of %s: %w", name, err)
	}
	return dir, nil
}

// setAside renames a file that cannot be understood to NAME.corrupt-N, so that a person can look at it and the agent goes on.
func setAside(path string) error {
	for n := 1; n < 1000; n++ {
		aside := fmt.Sprintf("%s.corrupt-%d", path, n)
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err := os.Rename(path, aside); err != nil {
			return err
		}
		return disk.SyncDir(filepath.Dir(path))
	}
	return fmt.Errorf("too many %s.corrupt-N files", path)
}
