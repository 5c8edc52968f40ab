package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
	"ntsagent/ntske/cookie"
)

// What can be wrong with an export, for errors.Is.
var (
	ErrNoKeys = errors.New("ntpd has no key file")
	ErrFolder = errors.New("not a folder to export to")
)

// ExportOptions say which key file of an ntpd of NTPsec is copied where.
type ExportOptions struct {
	From string // `nts cookie` of ntp.conf, 0600 and ntpd's
	To   string // the copy, 0640; its folder belongs to ntpd's user, and to the agent's group
}

// Args are the arguments of `ntsagent` that mean these options.
func (o ExportOptions) Args() []string {
	return []string{"feed", "ntpsec", "--from", o.From, "--to", o.To}
}

// exportLooks is how often an ntpd up to 1.2.1, which writes over its file in
// place, is given the time to finish; lookAgain apart.
const (
	exportLooks = 5
	lookAgain   = 100 * time.Millisecond
)

// NTPsec copies the key file of ntpd for the agent's group: whole or not at all,
// and nothing is written when the copy is good already. A copy whose original is
// gone is removed, which is ErrNoKeys. As root beside an ntpd of another user it
// does so as that user, in a process of its own.
//
// Neither side gains by it. The folder's parent is the agent's, who could put
// another folder or a link in its place: only a folder that belongs to us, that
// nobody else writes to and that is not the original's is written to, and it is
// held open from then on. What ntpd's user could put in its own folder is for
// the agent a file like any other that it reads and does not trust.
func NTPsec(ctx context.Context, o ExportOptions) error {
	uid, gid, err := exportsAs(o)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 && uid != 0 {
		return runAs(ctx, uid, gid, o.Args(), nil)
	}
	return export(ctx, o)
}

// exportsAs is the user ntpd runs as: the one its key folder belongs to, and where
// that is gone the one the copy's does.
func exportsAs(o ExportOptions) (uid, gid uint32, err error) {
	var st unix.Stat_t
	err = unix.Stat(filepath.Dir(o.From), &st)
	if errors.Is(err, fs.ErrNotExist) {
		err = unix.Lstat(filepath.Dir(o.To), &st)
	}
	if err != nil {
		return 0, 0, &Failure{What: "feed ntpsec: find the folders of " + o.From + " and " + o.To, Kind: ErrNoKeys, Err: err,
			Fix: "see that --from is the file of `nts cookie` in ntp.conf"}
	}
	return st.Uid, groupOf(st.Uid, st.Gid), nil
}

func export(ctx context.Context, o ExportOptions) error {
	dir, err := openExport(o)
	if err != nil {
		return err
	}
	defer dir.Close()
	defer dir.file.Close()
	unlock, err := lock(ctx, dir.Root, filepath.Dir(o.To))
	if err != nil {
		return fmt.Errorf("feed ntpsec: %w", err)
	}
	defer unlock()
	if err := disk.Sweep(dir.path()); err != nil {
		return fmt.Errorf("feed ntpsec: %w", err)
	}
	keys, err := wholeKeys(ctx, o.From)
	base := filepath.Base(o.To)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := dir.remove(base); err != nil {
			return err
		}
		return &Failure{What: "feed ntpsec: read " + o.From, Kind: ErrNoKeys,
			Fix: "start ntpd, which makes one, and see that --from is the file of `nts cookie` in ntp.conf; there is no copy until then"}
	case err != nil:
		return err
	case dir.holds(base, keys):
		return nil
	}
	s, err := disk.Stage(dir.Root, base, keys, 0o640, nil)
	if err == nil {
		err = s.Commit()
	}
	if err != nil {
		return fmt.Errorf("feed ntpsec: write %s: %w", o.To, err)
	}
	return nil
}

// wholeKeys reads a key file that parses as a whole one.
func wholeKeys(ctx context.Context, path string) ([]byte, error) {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for look := 1; ; look++ {
		b, err := readSource(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return nil, &Failure{What: "feed ntpsec", Kind: ErrNotPermitted, Err: err, Fix: "run it as ntpd's user or as root"}
		case errors.Is(err, fs.ErrNotExist):
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("feed ntpsec: %w", err)
		}
		if len(b) > maxSource {
			err = fmt.Errorf("more than %d bytes", maxSource)
		} else if _, err = (cookie.NTPsec{}).ParseKeys(b); err == nil {
			return b, nil
		}
		if look == exportLooks {
			return nil, &Failure{What: "feed ntpsec: " + path, Kind: ErrSource, Err: err,
				Fix: "see that --from is the file of `nts cookie` in ntp.conf; if it is damaged, restart ntpd, which writes a new one; a copy that was good stays"}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("feed ntpsec: wait for a whole key file: %w", ctx.Err())
		case <-again.C:
		}
	}
}

// exportDir is the folder of the copy, held open.
type exportDir struct {
	*os.Root
	file  *os.File // the same folder
	group uint32
}

// path reaches the folder that is held, whatever its name leads to by now.
func (d exportDir) path() string { return fmt.Sprintf("/proc/self/fd/%d", d.file.Fd()) }

// openExport opens the folder of the copy and looks at it: see NTPsec.
func openExport(o ExportOptions) (exportDir, error) {
	path := filepath.Dir(o.To)
	made := fmt.Sprintf("make it: install -d -o %s -g ntsagent -m 2750 %s", userName(), path)
	refuse := func(format string, args ...any) (exportDir, error) {
		return exportDir{}, &Failure{What: "feed ntpsec: " + path, Kind: ErrFolder, Err: fmt.Errorf(format, args...), Fix: made}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return refuse("%w", err)
	}
	d := exportDir{file: f}
	var st, original unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return refuse("%w", err)
	}
	d.group = st.Gid
	same := unix.Stat(filepath.Dir(o.From), &original) == nil && st.Dev == original.Dev && st.Ino == original.Ino
	switch {
	case int(st.Uid) != os.Geteuid():
		err = fmt.Errorf("it belongs to user %d, not to %s", st.Uid, userName())
	case st.Mode&0o022 != 0:
		err = fmt.Errorf("others may write to it, it has mode %04o", st.Mode&0o7777)
	case st.Mode&unix.S_ISGID == 0 && int(st.Gid) != os.Getegid():
		err = fmt.Errorf("the copy would not get its group, it has mode %04o", st.Mode&0o7777)
	case same:
		err = errors.New("it is the folder of the original")
	}
	if err == nil {
		d.Root, err = os.OpenRoot(d.path())
	}
	if err != nil {
		f.Close()
		return refuse("%w", err)
	}
	return d, nil
}

// holds tells that the copy is there, as it has to be.
func (d exportDir) holds(base string, keys []byte) bool {
	f, err := d.OpenFile(base, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode != unix.S_IFREG|0o640 || st.Gid != d.group || int(st.Uid) != os.Geteuid() {
		return false
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	return err == nil && bytes.Equal(b, keys)
}

// remove removes the copy, durably.
func (d exportDir) remove(base string) error {
	switch err := d.Remove(base); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("feed ntpsec: remove the copy: %w", err)
	}
	return d.file.Sync()
}
