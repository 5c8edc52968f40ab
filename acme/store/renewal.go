package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"ntsagent/acme/disk"
	"ntsagent/hostcheck"
)

// Renewal is what an agent must remember of its attempts to obtain a certificate, so that a restart does not forget how often
// it has failed. Times are wall-clock times.
type Renewal struct {
	Failures     int       // attempts since the last success
	FirstFailure time.Time // of this row of failures
	LastFailure  time.Time
	NextAttempt  time.Time // not before this; zero = no restriction. Holds its jitter
	RetryAfter   time.Time // not before this, in the CA's own words; zero = none
	LastError    string    // one line: what failed
	LastHint     string    // one line: what to do
	LastSuccess  time.Time
}

// renewalFile is renewal.json.
type renewalFile struct {
	Schema       int       `json:"schema"`
	Failures     int       `json:"failures"`
	FirstFailure time.Time `json:"first_failure,omitzero"`
	LastFailure  time.Time `json:"last_failure,omitzero"`
	NextAttempt  time.Time `json:"next_attempt,omitzero"`
	RetryAfter   time.Time `json:"retry_after,omitzero"`
	LastError    string    `json:"last_error,omitempty"`
	LastHint     string    `json:"last_hint,omitempty"`
	LastSuccess  time.Time `json:"last_success,omitzero"`
}

// Renewal returns what is remembered of name; the zero value when nothing is. A file that cannot be understood is set aside
// and counts as nothing: the certificate itself decides then.
func (s *Store) Renewal(name hostcheck.Name) (Renewal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return Renewal{}, err
	}
	path := filepath.Join(dir, "renewal.json")
	b, err := disk.ReadFile(path, maxJSONFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Renewal{}, nil
	}
	if err != nil {
		return Renewal{}, fmt.Errorf("read renewal state: %w", err)
	}
	r, ok := parseRenewal(b)
	if !ok {
		if err := setAside(path); err != nil {
			return Renewal{}, fmt.Errorf("set damaged renewal state %s aside: %w", path, err)
		}
		return Renewal{}, nil
	}
	return r, nil
}

// parseRenewal reads renewal.json; false means that it is damaged. Times that could not be written again count as damage: they
// would keep every later state from being saved.
func parseRenewal(b []byte) (Renewal, bool) {
	var f renewalFile
	if err := json.Unmarshal(b, &f); err != nil || f.Schema != 1 || f.Failures < 0 {
		return Renewal{}, false
	}
	for _, t := range []*time.Time{&f.FirstFailure, &f.LastFailure, &f.NextAttempt, &f.RetryAfter, &f.LastSuccess} {
		*t = t.UTC()
		if y := t.Year(); !t.IsZero() && (y < 1970 || y > 9000) {
			return Renewal{}, false
		}
	}
	return Renewal{f.Failures, f.FirstFailure, f.LastFailure, f.NextAttempt, f.RetryAfter, f.LastError, f.LastHint, f.LastSuccess}, true
}

// encodeRenewal writes what parseRenewal reads.
func encodeRenewal(r Renewal) renewalFile {
	utc := func(t time.Time) time.Time { return t.Round(0).UTC() }
	return renewalFile{1, r.Failures, utc(r.FirstFailure), utc(r.LastFailure), utc(r.NextAttempt), utc(r.RetryAfter),
		r.LastError, r.LastHint, utc(r.LastSuccess)}
}

// SaveRenewal makes r durable.
func (s *Store) SaveRenewal(name hostcheck.Name, r Renewal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "renewal.json"), encodeRenewal(r))
}
