package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"ntsagent/acme/disk"
	"ntsagent/acme/dnscheck"
	"ntsagent/hostcheck"
)

// standingFile is dns.json.
type standingFile struct {
	Schema int `json:"schema"`
	dnscheck.State
}

// Standing returns where name stood with the DNS; the zero value when nothing is known, or the file cannot be understood and
// was set aside.
func (s *Store) Standing(name hostcheck.Name) (dnscheck.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return dnscheck.State{}, err
	}
	path := filepath.Join(dir, "dns.json")
	b, err := disk.ReadFile(path, maxJSONFile)
	if errors.Is(err, fs.ErrNotExist) {
		return dnscheck.State{}, nil
	}
	if err != nil {
		return dnscheck.State{}, fmt.Errorf("read DNS state: %w", err)
	}
	var f standingFile
	if err := json.Unmarshal(b, &f); err != nil || f.Schema != 1 || !f.Valid() {
		if err := setAside(path); err != nil {
			return dnscheck.State{}, fmt.Errorf("set damaged DNS state %s aside: %w", path, err)
		}
		return dnscheck.State{}, nil
	}
	return f.State, nil
}

// SaveStanding makes st durable.
func (s *Store) SaveStanding(name hostcheck.Name, st dnscheck.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "dns.json"), standingFile{1, st})
}
