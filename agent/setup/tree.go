package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
)

var errGone = fmt.Errorf("%w", fs.ErrNotExist)

// has tells whether something is at path. A place we may not look into counts as nothing.
func (t tree) has(path string) bool {
	if b, ok := t.over[path]; ok {
		return b != nil
	}
	_, err := os.Stat(t.at(path))
	return err == nil
}

func (t tree) isDir(path string) bool {
	info, err := os.Stat(t.at(path))
	return err == nil && info.IsDir()
}

// first is the first of paths that is there, "" if none.
func (t tree) first(paths ...string) string {
	for _, p := range paths {
		if t.has(p) {
			return p
		}
	}
	return ""
}

// list returns the paths of a folder's files whose names end in suffix, sorted.
// A folder that is not there is empty.
func (t tree) list(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(t.at(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, replaced := t.over[path]; !replaced && strings.HasSuffix(path, suffix) {
			paths = append(paths, path)
		}
	}
	for path, b := range t.over {
		if b != nil && filepath.Dir(path) == filepath.Clean(dir) && strings.HasSuffix(path, suffix) {
			paths = append(paths, path)
		}
	}
	sort.Strings(paths)
	return paths, nil
}

// glob returns the paths that match a pattern, sorted.
func (t tree) glob(pattern string) ([]string, error) {
	found, err := filepath.Glob(t.at(pattern))
	if err != nil {
		return nil, err
	}
	root := t.at("/")
	var paths []string
	for _, f := range found {
		path := "/" + strings.TrimPrefix(strings.TrimPrefix(f, root), "/")
		if _, replaced := t.over[path]; !replaced {
			paths = append(paths, path)
		}
	}
	for path, b := range t.over {
		if ok, _ := filepath.Match(pattern, path); ok && b != nil {
			paths = append(paths, path)
		}
	}
	sort.Strings(paths)
	return paths, nil
}

// trusts refuses a path that users other than root and us could change, or lead
// elsewhere: what root does there would be done where they want. A path that
// cannot be looked at, or is not there, is left to whoever uses it.
func (t tree) trusts(do, path string) error {
	err := disk.MayMkdir(filepath.Dir(t.at(path)))
	if err == nil {
		var f *os.File
		if f, err = disk.OpenTrustedFile(t.at(path)); err == nil {
			return f.Close()
		}
	}
	if !errors.Is(err, disk.ErrUntrusted) {
		return nil
	}
	return &Failure{What: do + " " + path, Kind: ErrInTheWay, Err: err,
		Fix: "let it, and all folders above it, belong to root and be writable by nobody else"}
}

// owner is who a file or folder belongs to; false = it is not there.
func (t tree) owner(path string) (uid, gid int, ok bool) {
	var st unix.Stat_t
	if err := unix.Stat(t.at(path), &st); err != nil {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}
