package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"ntsagent/acme/disk"
	"ntsagent/hostcheck"
)

// Renewal is what an agent must remember of its attempts to obtain a certificate, so that a restart does not forget how often
// it has failed and what the CA still allows. Times are wall-clock times.
type Renewal struct {
	Directory    string         `json:"directory,omitempty"`    // URL of the CA that the failures, waits and counts are of
	Failures     int            `json:"failures"`               // attempts since the last success that count as failed
	Row          map[string]int `json:"row,omitempty"`          // attempts since the last success by class of error, those that do not count included
	FirstFailure time.Time      `json:"first_failure,omitzero"` // of this row of failures
	LastFailure  time.Time      `json:"last_failure,omitzero"`
	NextAttempt  time.Time      `json:"next_attempt,omitzero"` // not before this; zero = no restriction. Holds its jitter
	RetryAfter   time.Time      `json:"retry_after,omitzero"`  // not before this, in the CA's own words; zero = none
	LastError    string         `json:"last_error,omitempty"`  // one line: what failed
	LastHint     string         `json:"last_hint,omitempty"`   // one line: what to do
	LastSuccess  time.Time      `json:"last_success,omitzero"`

	Window      Window      `json:"window,omitzero"`       // renewal information (RFC 9773) on the certificate in use
	Issued      []time.Time `json:"issued,omitempty"`      // when the CA was asked to sign, the newest
	Validations []time.Time `json:"validations,omitempty"` // when a validation failed, the newest
	Limit       Limit       `json:"limit,omitzero"`        // a limit of the CA that is not ours alone
	Origin      Origin      `json:"origin,omitzero"`       // where the certificate in use came from
	Ordered     string      `json:"ordered,omitempty"`     // directory URL that the last order went to
	LastGood    time.Time   `json:"last_good,omitzero"`    // when the clock was last known to be right

	// Other is the same of another CA: its failures, waits and counts. What is of the certificate or the clock (LastSuccess,
	// Window, Origin, Ordered, LastGood, Revoked, Ceased, Left) is above alone. Other of it is nil.
	Other *Renewal `json:"other,omitempty"`

	// Left has the same of CAs that are not in the configuration any more, those that went last first: they count on.
	Left []Renewal `json:"left,omitempty"`

	Revoked []Revocation `json:"revoked,omitempty"` // by the operator's wish
	Ceased  time.Time    `json:"ceased,omitzero"`   // since when nothing is ordered any more, for operation has ended; zero = it has not
}

// Revocation is that of one certificate.
type Revocation struct {
	Certificate string    `json:"certificate"`
	At          time.Time `json:"at"`
	Reason      string    `json:"reason"`
	Key         string    `json:"key,omitempty"` // fingerprint of a key that must not be used again, "" = it may

	Open      bool   `json:"open,omitempty"`      // the CA is yet to answer that it did
	Directory string `json:"directory,omitempty"` // URL of the CA that is asked
}

// Window is what the CA says of the time of renewal, and the point in it that was drawn.
type Window struct {
	Certificate string    `json:"certificate,omitempty"` // the certificate it is about
	Start       time.Time `json:"start,omitzero"`        // zero = the CA has not said
	End         time.Time `json:"end,omitzero"`
	At          time.Time `json:"at,omitzero"`
	AskAt       time.Time `json:"ask_at,omitzero"` // when to ask again
	Why         string    `json:"why,omitempty"`   // URL with the CA's explanation
}

// Limit is a limit of the CA on a whole domain, which others have used up.
type Limit struct {
	Domain string    `json:"domain,omitempty"`
	Until  time.Time `json:"until,omitzero"` // zero = no limit is known of
}

// Origin names a certificate and the directory URL of the CA that made it, "" where that is not known.
type Origin struct {
	Certificate string        `json:"certificate,omitempty"`
	Directory   string        `json:"directory,omitempty"`
	Life        time.Duration `json:"life,omitempty"`     // of the certificate, in nanoseconds; 0 = not known
	Imported    bool          `json:"imported,omitempty"` // an operator has brought it from elsewhere
}

// MaxTimes bounds a list of times. No limit of a CA that is kept needs more than the newest few.
const MaxTimes = 32

// maxLeft bounds Left.
const maxLeft = 4

// renewalFile is renewal.json. Fields are added to its schema and never change their meaning: an older agent reads what it
// knows of a newer one's, and a newer one finds the fields it misses empty.
type renewalFile struct {
	Schema int `json:"schema"`
	Renewal
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
	if err := json.Unmarshal(b, &f); err != nil || f.Schema != 1 {
		return Renewal{}, false
	}
	apart := f.Left
	if f.Other != nil {
		apart = append(slices.Clip(apart), *f.Other)
	}
	if !f.sound() || slices.ContainsFunc(apart, func(r Renewal) bool { return r.Other != nil || len(r.Left) > 0 || !r.sound() }) {
		return Renewal{}, false
	}
	if len(f.Revoked) > MaxTimes {
		return Renewal{}, false
	}
	r := settled(f.Renewal)
	for _, t := range r.times() {
		if y := t.Year(); !t.IsZero() && (y < 1970 || y > 9000) {
			return Renewal{}, false
		}
	}
	return r, true
}

// sound tells whether the numbers make sense.
func (r *Renewal) sound() bool {
	for class, n := range r.Row {
		if n < 0 || len(class) > 40 || !utf8.ValidString(class) || len(r.Row) > MaxTimes {
			return false
		}
	}
	return r.Failures >= 0 && r.Origin.Life >= 0
}

// settled is r in the one form that is written: UTC, no monotonic clock, lists that are bounded and nil when empty.
func settled(r Renewal) Renewal {
	r.Row = maps.Clone(r.Row)
	if len(r.Row) == 0 {
		r.Row = nil
	}
	for _, list := range []*[]time.Time{&r.Issued, &r.Validations} {
		*list = append([]time.Time(nil), (*list)[max(0, len(*list)-MaxTimes):]...)
	}
	r.Revoked = append([]Revocation(nil), r.Revoked...)
	if r.Other != nil {
		other := settled(*r.Other)
		r.Other = &other
	}
	r.Left = append([]Renewal(nil), r.Left[:min(len(r.Left), maxLeft)]...)
	for i, left := range r.Left {
		r.Left[i] = settled(left)
	}
	for _, t := range r.times() {
		*t = t.Round(0).UTC()
	}
	return r
}

// times are all times in r, in place.
func (r *Renewal) times() []*time.Time {
	all := []*time.Time{&r.FirstFailure, &r.LastFailure, &r.NextAttempt, &r.RetryAfter, &r.LastSuccess, &r.LastGood,
		&r.Window.Start, &r.Window.End, &r.Window.At, &r.Window.AskAt, &r.Limit.Until, &r.Ceased}
	for i := range r.Revoked {
		all = append(all, &r.Revoked[i].At)
	}
	for _, list := range [][]time.Time{r.Issued, r.Validations} {
		for i := range list {
			all = append(all, &list[i])
		}
	}
	if r.Other != nil {
		all = append(all, r.Other.times()...)
	}
	for i := range r.Left {
		all = append(all, r.Left[i].times()...)
	}
	return all
}

// encodeRenewal writes what parseRenewal reads.
func encodeRenewal(r Renewal) renewalFile { return renewalFile{1, settled(r)} }

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
