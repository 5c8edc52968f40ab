package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A trusted path is one that nobody but root and we can lead elsewhere: each folder on the way, each link and what is
// at its end belongs to root or to us, and nobody else may write to it. A folder with the sticky bit may be on the way,
// for there others make files, but move none of ours.

// ErrUntrusted says that another user could change a file, or lead its path elsewhere; the text says where.
var ErrUntrusted = errors.New("somebody else could change it")

// ErrExposed says that others may read a secret; the text says where.
var ErrExposed = errors.New("not secret")

// OpenTrusted opens a folder of a trusted path.
func OpenTrusted(path string) (*os.Root, error) {
	real, err := trusted(path, unix.S_IFDIR)
	if err != nil {
		return nil, err
	}
	return os.OpenRoot(real) // what has been looked at, as nobody else can have changed it
}

// OpenTrustedFile opens a regular file of a trusted path for reading.
func OpenTrustedFile(path string) (*os.File, error) {
	real, err := trusted(path, unix.S_IFREG)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(real, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// ReadTrusted is ReadFile for a trusted path.
func ReadTrusted(path string, maxBytes int64) ([]byte, error) {
	f, err := OpenTrustedFile(path)
	if err != nil {
		return nil, err // which names the path
	}
	defer f.Close()
	return readAll(f, path, maxBytes)
}

func readAll(f *os.File, path string, maxBytes int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if int64(len(data)) > maxBytes {
		return nil, fmt.Errorf("read file %s: larger than %d bytes", path, maxBytes)
	}
	return data, nil
}

// ReadSecret is ReadTrusted for a file that nobody but its owner and its group may read.
func ReadSecret(path string, maxBytes int64) ([]byte, error) {
	f, err := OpenTrustedFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return nil, fmt.Errorf("%w: everybody may read %s, it has mode %04o", ErrExposed, path, mode)
	}
	return readAll(f, path, maxBytes)
}

// MkdirTrusted is MkdirAll and OpenTrusted: nothing is made where somebody else could lead it elsewhere.
func MkdirTrusted(path string, perm os.FileMode) (*os.Root, error) {
	if err := MayMkdir(path); err != nil {
		return nil, err
	}
	if err := MkdirAll(path, perm); err != nil {
		return nil, err
	}
	return OpenTrusted(path)
}

// MayMkdir tells whether the folder at path, or the first above it that is there, is trusted.
func MayMkdir(path string) error {
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		_, err := trusted(dir, unix.S_IFDIR)
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return err
		}
	}
}

// maxLinks bounds the symbolic links on one path, as the kernel does.
const maxLinks = 40

// trusted resolves a path to one without links, from the top: what it looks at next is in a folder that only root and we
// can change, so that nothing it has looked at changes behind it.
func trusted(path string, kind uint32) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	at, rest, links := "/", strings.Split(path, "/"), 0
	st, err := look(at)
	for len(rest) > 0 && err == nil {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			st, err = look(at)
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return "", fmt.Errorf("%s is no folder", at)
		}
		next := filepath.Join(at, name)
		var entry unix.Stat_t
		if entry, err = look(next); err != nil {
			break
		}
		if entry.Mode&unix.S_IFMT != unix.S_IFLNK {
			at, st = next, entry
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many links", path)
		}
		var target string
		if target, err = os.Readlink(next); err != nil {
			break
		}
		if strings.HasPrefix(target, "/") {
			at = "/"
			if st, err = look(at); err != nil {
				break
			}
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	switch {
	case err != nil:
		return "", err
	case st.Mode&unix.S_IFMT == kind && st.Mode&0o022 == 0:
		return at, nil
	case st.Mode&unix.S_IFMT == kind:
		return "", others(at, st)
	case kind == unix.S_IFDIR:
		return "", fmt.Errorf("%s is no folder", at)
	}
	return "", fmt.Errorf("%s is no regular file", at)
}

// look is Lstat of one step, if only root or we could have made it, and nobody else can change what is in it.
func look(path string) (st unix.Stat_t, err error) {
	if err := unix.Lstat(path, &st); err != nil {
		return st, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return st, fmt.Errorf("%w: %s belongs to user %d", ErrUntrusted, path, st.Uid)
	case kind == unix.S_IFLNK || st.Mode&0o022 == 0:
		return st, nil
	case kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0:
		return st, nil // on the way; at the end it is not
	}
	return st, others(path, st)
}

func others(path string, st unix.Stat_t) error {
	return fmt.Errorf("%w: others may write to %s, it has mode %04o", ErrUntrusted, path, st.Mode&0o7777)
}
