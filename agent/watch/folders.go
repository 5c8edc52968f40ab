package watch

import (
	"os"
	"path/filepath"
	"strings"
)

// maxLinks bounds the symlinks followed for one path, like the kernel's limit.
const maxLinks = 40

// folders lists the folders in which something has to happen for the file at
// path to become another one: the one that holds the file, and the one that
// holds each symlink on the way. Where the way ends early, at something that
// does not exist, it is the last folder that does. All are free of symlinks.
func folders(path string) []string {
	var found []string
	at := "/" // the folder reached so far, free of symlinks
	rest := split(path)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return append(found, at)
		case info.Mode()&os.ModeSymlink != 0:
			found = append(found, at)
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return found
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(split(target), rest...)
		case info.IsDir():
			at = next
		default: // the file itself, or a file where a folder should be
			return append(found, at)
		}
	}
	return append(found, at)
}

// split cuts a path into its names; ".." stays, for only the symlinks on the
// way tell where it leads.
func split(path string) []string {
	var names []string
	for _, name := range strings.Split(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}
