package setup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"ntsagent/acme/disk"
)

// record is what was done, and how to undo it. It is a file of ours, written
// before any other is. Root goes by it, so it holds no command, and it is read only
// where nobody but root and we can have written it.
type record struct {
	Version int        `json:"version"`
	Files   []entry    `json:"files"`
	Unit    string     `json:"unit"`              // what is restarted, one of those we know; "" = none
	Reload  bool       `json:"reload"`            // systemd reads its units again before
	Restart [][]string `json:"restart,omitempty"` // of version 1
}

const recordVersion = 2

// entry is one file that was written. What it was and what it became are kept
// beside the record, named by their checksum.
type entry struct {
	Path    string      `json:"path"`
	Before  string      `json:"before"` // SHA-256; "" = not there
	After   string      `json:"after"`
	Mode    fs.FileMode `json:"mode"` // of Before
	UID     int         `json:"uid"`
	GID     int         `json:"gid"`
	Block   bool        `json:"block"`    // ours is between markers
	Pair    bool        `json:"pair"`     // a certificate or its key
	MadeDir bool        `json:"made_dir"` // its folder is ours as well
}

// store is the folder of the record and the copies.
type store struct {
	dir string
	fix string // what to do if others can write there
}

// RecordDir is where the record of what was applied is kept: beside the agent's
// state, not in it, for that belongs to the user the agent runs as, and who can
// write the record can have root write any file.
func RecordDir(stateDir string) string { return filepath.Clean(stateDir) + "-setup" }

// store is where the record is: where versions before kept it, if one is there and
// no newer one.
func (h Host) store(stateDir string) store {
	there := func(s store) bool {
		_, err := os.Lstat(filepath.Join(s.dir, recordName))
		return !errors.Is(err, fs.ErrNotExist)
	}
	now := store{h.files().at(RecordDir(stateDir)), "let it, and all folders above it, belong to root and be writable by nobody else"}
	old := store{h.files().at(filepath.Join(stateDir, "setup")), ""}
	if there(now) || !there(old) {
		return now
	}
	old.fix = fmt.Sprintf("an older version kept it there: see that %s names what you applied and nothing else, then, as root: cp -r %s %s", recordName, old.dir, now.dir)
	return old
}

const recordName = "applied.json"

// load returns the record, an empty one if there is none.
func (s store) load() (record, error) {
	b, err := disk.ReadTrusted(filepath.Join(s.dir, recordName), maxConf)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record{Version: recordVersion}, nil
	case errors.Is(err, disk.ErrUntrusted):
		return record{}, s.untrusted(err)
	}
	if err != nil {
		return record{}, permission("read what was applied", err)
	}
	r, err := parseRecord(b)
	if err != nil {
		return record{}, &Failure{What: "read what was applied, " + filepath.Join(s.dir, recordName), Kind: ErrInTheWay, Err: err,
			Fix: "put the files back by hand from their copies beside it, then remove it"}
	}
	return r, nil
}

func (s store) untrusted(err error) error {
	return &Failure{What: "go by what was applied, in " + s.dir, Kind: ErrInTheWay, Err: err, Fix: s.fix}
}

// parseRecord is strict: what it names is overwritten.
func parseRecord(b []byte) (record, error) {
	var r record
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return record{}, err
	}
	if dec.More() {
		return record{}, errors.New("more behind its end")
	}
	switch {
	case r.Version == 1:
		r.Version, r.Unit, r.Reload, r.Restart = recordVersion, unitIn(r.Restart), len(r.Restart) > 1, nil
	case r.Version != recordVersion || r.Restart != nil:
		return record{}, fmt.Errorf("version %d is not known here", r.Version)
	case r.Unit != "" && !knownUnit(r.Unit):
		return record{}, fmt.Errorf("the unit %q is not known here", r.Unit)
	}
	for _, e := range r.Files {
		if !filepath.IsAbs(e.Path) || filepath.Clean(e.Path) != e.Path {
			return record{}, fmt.Errorf("%q is no path", e.Path)
		}
		for _, sum := range []string{e.Before, e.After} {
			if _, err := hex.DecodeString(sum); err != nil || sum != "" && len(sum) != 2*sha256.Size {
				return record{}, fmt.Errorf("%s: %q is no checksum", e.Path, sum)
			}
		}
	}
	return r, nil
}

func (r record) bytes() []byte {
	b, _ := json.MarshalIndent(r, "", "  ") // of plain values
	return append(b, '\n')
}

func (s store) save(r record) error {
	return disk.WriteFile(filepath.Join(s.dir, recordName), r.bytes(), 0o600)
}

// keep stores a copy; nil needs none.
func (s store) keep(data []byte) (sum string, err error) {
	if data == nil {
		return "", nil
	}
	sum = checksum(data)
	return sum, disk.WriteFile(filepath.Join(s.dir, sum), data, 0o600)
}

// kept is the copy of that checksum, and nothing else.
func (s store) kept(sum string) ([]byte, error) {
	b, err := disk.ReadTrusted(filepath.Join(s.dir, sum), maxConf)
	if err != nil {
		return nil, err
	}
	if checksum(b) != sum {
		return nil, fmt.Errorf("the copy %s is damaged", filepath.Join(s.dir, sum))
	}
	if b == nil {
		b = []byte{}
	}
	return b, nil
}

// clear removes the record first, then the copies.
func (s store) clear(r record) error {
	if err := os.Remove(filepath.Join(s.dir, recordName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range r.Files {
		for _, sum := range []string{e.Before, e.After} {
			if sum == "" {
				continue
			}
			if err := os.Remove(filepath.Join(s.dir, sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return disk.SyncDir(s.dir)
}

// entry finds what is recorded of a file, nil if nothing is.
func (r *record) entry(path string) *entry {
	i := slices.IndexFunc(r.Files, func(e entry) bool { return e.Path == path })
	if i < 0 {
		return nil
	}
	return &r.Files[i]
}

// checksum of a file; "" = it is not there.
func checksum(data []byte) string {
	if data == nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// permission turns an error for want of rights into a Failure.
func permission(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return &Failure{What: what, Kind: ErrNotPermitted, Err: err, Fix: "run as root"}
	}
	return fmt.Errorf("%s: %w", what, err)
}
