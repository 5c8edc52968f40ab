package feed

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
	"ntsagent/acme/live"
	"ntsagent/agent/config"
	"ntsagent/hostcheck"
)

// CertificateOptions say from where to where a certificate goes.
type CertificateOptions struct {
	config.Export
	Pair  []byte    // the private key, then the chain, PEM; nil = read From
	From  string    // path of such a file; "-" = Stdin
	Stdin io.Reader // for From "-"

	// For config.ThenRestart:
	KE     netip.AddrPort // where the daemon exchanges keys
	Record string         // RestartRecord
}

// Format prints where it goes and no key, for every verb.
func (o CertificateOptions) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "certificate of %s for %s", o.Name, o.Cert)
}

// Args are the arguments of `ntsagent` that mean these options, the pair apart:
// it comes by the standard input.
func (o CertificateOptions) Args() []string {
	return []string{"feed", "certificate", "--from", "-", "--export", o.Export.String()}
}

// maxPair is more than a key and the longest chain that is served.
const maxPair = 1 << 20

// Certificate replaces the key of another program, then its certificate, and
// tells it: only a pair that could be served for the name. The certificate is
// written anew even if it is the same, for ntpd looks at its times. As root it
// works in root's folders alone; in one of another user it does so as that user,
// in a process of its own. A daemon that may not be restarted yet is a *Waiting.
//
// The order is what keeps ntpd well. It loads both when the certificate's times
// have changed, so that a new key beside the old certificate does not count; a
// new certificate beside the old key would leave it unable to serve anybody, and
// to see the right key when that comes.
//
// No two files change at once, nor are they read at once. Both are on the disk
// whole before the first is renamed, and the second is renamed right after it:
// only a daemon that starts just then, or after we were killed just then, finds
// what does not belong together. None is told before both are in place, and the
// next look writes both anew.
func Certificate(ctx context.Context, o CertificateOptions) error {
	pair, err := o.pair()
	if err != nil {
		return err
	}
	leaf, chain, key, err := splitPair(o.Name, pair)
	if err != nil {
		return err
	}
	uid, gid, err := ownerOf(filepath.Dir(o.Cert))
	if err != nil {
		return err
	}
	as := o
	if os.Geteuid() == 0 && uid != 0 {
		if o.Then == config.ThenRestart { // which takes root
			as.Then, as.Unit, as.Command = config.ThenNone, "", nil
		}
		err = runAs(ctx, uid, gid, as.Args(), pair)
	} else if err = o.install(ctx, chain, key); err == nil && o.Then == config.ThenSIGHUP {
		err = hangUp(o.PIDFile)
	}
	if err != nil || o.Then != config.ThenRestart {
		return err
	}
	return o.restart(ctx, leaf)
}

// Leave leaves a pair for `ntsagent feed certificate`, which another user runs.
func Leave(path string, pair []byte) error {
	if err := disk.WriteFile(path, pair, 0o600); err != nil {
		return fmt.Errorf("leave a certificate for its helper: %w%s", err, noRoom(path, err))
	}
	return nil
}

// MayFeedCertificate says whether this process can do all of an export itself: root
// can, and the owner of the folder where nothing has to be restarted.
func MayFeedCertificate(e config.Export) bool {
	uid, _, err := ownerOf(filepath.Dir(e.Cert))
	if e.Then == config.ThenRestart {
		uid = 0
	}
	return err == nil && mayFeed(uint32(os.Geteuid()), uid)
}

func (o CertificateOptions) pair() (b []byte, err error) {
	switch {
	case o.Pair != nil:
		return o.Pair, nil
	case o.From == "-" && o.Stdin != nil:
		b, err = io.ReadAll(io.LimitReader(o.Stdin, maxPair+1))
	default:
		b, err = readUpTo(o.From, maxPair)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Failure{What: "feed certificate", Kind: ErrNoPair, Err: err, Fix: "start ntsagent, and see that it has a certificate: ntsagent status (one that runs as root leaves nothing here: it writes the files itself)"}
	case errors.Is(err, fs.ErrPermission):
		return nil, &Failure{What: "feed certificate", Kind: ErrNotPermitted, Err: err, Fix: "run it as root"}
	case err == nil && len(b) > maxPair:
		err = fmt.Errorf("more than %d bytes", maxPair)
	}
	if err != nil {
		return nil, fmt.Errorf("feed certificate: read the pair: %w", err)
	}
	return b, nil
}

// ErrNoPair says that there is no certificate yet.
var ErrNoPair = errors.New("nothing is left to export")

// splitPair takes a pair apart and holds it to what can be served for the name.
func splitPair(name hostcheck.Name, pair []byte) (leaf *x509.Certificate, chain, key []byte, err error) {
	at := bytes.Index(pair, []byte("-----BEGIN CERTIFICATE-----"))
	if at < 0 {
		return nil, nil, nil, errors.New("feed certificate: what was left holds no certificate; fix: hand over what ntsagent writes, whole")
	}
	key, chain = pair[:at], pair[at:]
	cert, err := live.Verify(name, chain, key, time.Now())
	if err != nil {
		return nil, nil, nil, fmt.Errorf("feed %w; fix: hand over what ntsagent writes, whole", err)
	}
	return cert.Leaf, chain, key, nil
}

// ownerOf is who a folder belongs to.
func ownerOf(dir string) (uid, gid uint32, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, 0, &Failure{What: "feed certificate: " + dir, Kind: ErrFolder, Err: err, Fix: "make it, or correct certificate.export"}
	}
	return st.Uid, groupOf(st.Uid, st.Gid), nil
}

// install writes both files. All that takes time comes first.
func (o CertificateOptions) install(ctx context.Context, chain, key []byte) error {
	own, err := o.owner()
	if err != nil {
		return err
	}
	keyDir, err := openTrusted(filepath.Dir(o.Key))
	if err != nil {
		return err
	}
	defer keyDir.Close()
	certDir, err := openTrusted(filepath.Dir(o.Cert))
	if err != nil {
		return err
	}
	defer certDir.Close()
	unlock, err := lock(ctx, certDir, certDir.Name()) // of two helpers one waits; both go for the certificate
	if err != nil {
		return o.failed(o.Cert, err)
	}
	defer unlock()
	for _, dir := range []*os.Root{keyDir, certDir} {
		if err := disk.Sweep(dir.Name()); err != nil {
			return fmt.Errorf("feed certificate: %w", err)
		}
	}
	if o.Then != config.ThenRestart {
		if err := nextSecond(ctx, certDir, filepath.Base(o.Cert)); err != nil {
			return o.failed(o.Cert, err)
		}
	}
	newKey, err := disk.Stage(keyDir, filepath.Base(o.Key), key, o.Mode, own)
	if err != nil {
		return o.failed(o.Key, err)
	}
	newCert, err := disk.Stage(certDir, filepath.Base(o.Cert), chain, o.Mode, own)
	if err != nil {
		newKey.Discard()
		return o.failed(o.Cert, err)
	}
	if err := disk.CommitAll(newKey, newCert); err != nil {
		return o.failed(o.Cert, err)
	}
	return nil
}

func (o CertificateOptions) failed(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &Failure{What: "feed certificate: write " + path, Kind: ErrNotPermitted, Err: err,
			Fix: "run it as root, and keep the files in a folder of root, where owner and group can be any"}
	}
	return fmt.Errorf("feed certificate: write %s: %w%s", path, err, noRoom(path, err))
}

// noRoom is what to do where err says that a disk takes nothing, "" for others.
func noRoom(path string, err error) string {
	switch dir := filepath.Dir(path); {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "; fix: make room on the file system of " + dir + ": until then the old files stay"
	case errors.Is(err, unix.EROFS):
		return "; fix: make the file system of " + dir + " writable: until then the old files stay"
	}
	return ""
}

// nextSecond waits until a file that is written now has another time than the one
// that is there: ntpd compares seconds. Files are stamped by a clock that stands still
// from tick to tick, and longer on a virtual machine that is not run in time.
func nextSecond(ctx context.Context, dir *os.Root, base string) error {
	info, err := dir.Lstat(base)
	if err != nil {
		return nil // it tells when it is replaced
	}
	there := info.Sys().(*syscall.Stat_t).Ctim.Sec
	for {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			return os.NewSyscallError("clock_gettime", err)
		}
		ahead := there - now.Sec // 1 for a file that had a finer stamp, before the tick of its second
		if ahead < 0 || ahead > 1 {
			return nil
		}
		select {
		case <-time.After(time.Until(time.Unix(there+1, 0)) + time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// owner looks up who the files are for.
func (o CertificateOptions) owner() (*disk.Owner, error) {
	own := &disk.Owner{UID: -1, GID: -1}
	for _, w := range []struct {
		one, name string
		id        *int
		look      func(string) (string, error)
	}{{"an owner", o.Owner, &own.UID, uidOf}, {"a group", o.Group, &own.GID, gidOf}} {
		if w.name == "" {
			continue
		}
		id := w.name
		if _, err := strconv.ParseUint(w.name, 10, 31); err != nil {
			if id, err = w.look(w.name); err != nil {
				return nil, fmt.Errorf("feed certificate: certificate.export: %w; fix: name %s that is there", err, w.one)
			}
		}
		*w.id, _ = strconv.Atoi(id)
	}
	return own, nil
}

func uidOf(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func gidOf(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// openTrusted opens a folder that, with all above it, nobody but root and us can
// change: else what is written there could end elsewhere.
func openTrusted(path string) (*os.Root, error) {
	root, err := disk.OpenTrusted(path)
	if err != nil {
		return nil, &Failure{What: "feed certificate: " + path, Kind: ErrFolder, Err: err,
			Fix: "keep the files in a folder like /etc/ntpsec, which is root's alone"}
	}
	return root, nil
}
