package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ntsagent/acme/disk"
)

// Undo is what Revert would do.
type Undo struct {
	Changes []Change   `json:"changes"`
	Notes   []string   `json:"notes"`   // what is left as it is, and why
	Changed string     `json:"changed"` // how files differ from what was applied; then nothing is undone
	Restart [][]string `json:"restart"`
	r       record
}

// PlanRevert finds out how to put back what was there before Apply. It changes
// nothing. Files that were changed since make it an error that is ErrChanged, and
// Undo.Changed says how.
func PlanRevert(h Host, stateDir string) (Undo, error) {
	t, s := h.files(), h.store(stateDir)
	u := Undo{Changes: []Change{}, Notes: []string{}}
	var err error
	if u.r, err = s.load(); err != nil {
		return u, err
	}
	if len(u.r.Files) == 0 {
		return u, &Failure{What: "revert", Kind: ErrNotApplied, Fix: "nothing needs to be done"}
	}
	u.Restart = restartCommands(u.r.Unit, u.r.Reload)
	var changed []string
	for i := len(u.r.Files) - 1; i >= 0; i-- { // what names a file goes before the file
		e := u.r.Files[i]
		differs, err := u.file(t, s, e)
		if err != nil {
			return u, err
		}
		if differs {
			changed = append(changed, e.Path)
		}
	}
	if len(changed) > 0 {
		u.Changes = []Change{}
		return u, &Failure{What: "revert " + strings.Join(changed, ", "), Kind: ErrChanged,
			Fix: "take out what is ours yourself (what stands between our markers, or the whole file where it begins by saying so), then: ntsagent daemon revert"}
	}
	return u, nil
}

// file looks at one file; true = it is neither as it was nor as we left it.
func (u *Undo) file(t tree, s store, e entry) (differs bool, err error) {
	now, err := t.readIfThere(e.Path)
	if err != nil {
		return false, err
	}
	sum := checksum(now)
	switch {
	case sum == e.Before:
		return false, nil
	case e.Pair && t.trusts("revert", e.Path) != nil: // versions before kept them in chronyd's folder
		u.Notes = append(u.Notes, e.Path+" is where others than root can write: it stays, and is of no use")
		return false, nil
	case sum == e.After:
		before := []byte(nil)
		if e.Before != "" {
			if before, err = s.kept(e.Before); err != nil {
				return false, &Failure{What: "revert " + e.Path, Kind: ErrInTheWay, Err: err, Fix: "take out what is ours by hand"}
			}
		}
		c := Change{Path: e.Path, Old: now, New: before, Perm: e.Mode, GID: e.GID}
		if e.Pair {
			c.pair = &pair{}
		}
		u.Changes = append(u.Changes, c)
		return false, nil
	case e.Pair && now != nil:
		u.Notes = append(u.Notes, e.Path+" is no longer the one that was made: it stays")
		return false, nil
	case now == nil && e.Before == "", e.Block && !hasBlock(now):
		u.Notes = append(u.Notes, e.Path+": what is ours was taken out already")
		return false, nil
	}
	if now == nil {
		u.Notes = append(u.Notes, e.Path+" is gone: it stays so; its copy is in "+filepath.Join(s.dir, e.Before))
		return false, nil
	}
	after, err := s.kept(e.After)
	if err != nil {
		after = nil // then all of it is shown
	}
	u.Changed += unifiedDiff(e.Path+" (as applied)", e.Path+" (now)", after, now)
	return true, nil
}

// Diff is what Revert would do, as `diff -u` prints it.
func (u Undo) Diff() string {
	var out strings.Builder
	for _, c := range u.Changes {
		if c.pair != nil {
			fmt.Fprintf(&out, "--- %s\n+++ /dev/null\n(a certificate or its key, not shown)\n", c.Path)
			continue
		}
		out.WriteString(unifiedDiff(nameOf(c.Path, c.Old), nameOf(c.Path, c.New), c.Old, c.New))
	}
	return out.String()
}

// Revert does what u says and forgets what was applied.
func Revert(h Host, u Undo, stateDir string) error {
	t, s := h.files(), h.store(stateDir)
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, c := range u.Changes {
		if err := t.mayWrite(c); err != nil {
			return err
		}
	}
	for _, c := range u.Changes {
		if err := t.undo(c, u.r.entry(c.Path)); err != nil {
			return permission("revert "+c.Path, err)
		}
	}
	return permission("forget what was applied", s.clear(u.r))
}

// undo puts one file back, with the owner and mode it had.
func (t tree) undo(c Change, e *entry) error {
	if c.New == nil {
		if err := t.remove(c.Path); err != nil {
			return err
		}
		dir := t.at(filepath.Dir(c.Path))
		if e.MadeDir && os.Remove(dir) == nil { // unless somebody put more into it
			return disk.SyncDir(filepath.Dir(dir))
		}
		return nil
	}
	dir, err := disk.OpenTrusted(t.at(filepath.Dir(c.Path)))
	if err != nil {
		return err
	}
	defer dir.Close()
	return writeAs(dir, filepath.Base(c.Path), c.New, e.Mode, e.UID, e.GID)
}
