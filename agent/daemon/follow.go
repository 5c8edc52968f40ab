package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"ntsagent/acme/disk"
	"ntsagent/agent/config"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// maxKeyFile bounds the key file of a daemon in octets; the longest of NTPsec
// has some 1,500, and one of ntpd-rs 64 for each key and 20.
const maxKeyFile = 64 << 10

// Followed is a daemon that makes and rotates its cookie keys itself: all that
// has to be known to go after it.
type Followed struct {
	Kind     string         // config.KindNTPsec or config.KindNTPDRS
	Addr     netip.AddrPort // where it answers NTP
	KeysFile string         // where it keeps its keys
	Format   cookie.Format
	Behind   time.Duration // for keyring.FollowConfig.Behind
	Spacing  time.Duration // for keyring.FollowConfig.Spacing
	Rotates  string        // when it does, in words
}

// NTPsec is the ntpd of NTPsec at addr with that key file. It knows a new key
// before that is in its file.
func NTPsec(addr netip.AddrPort, keysFile string) Followed {
	return Followed{
		Kind: config.KindNTPsec, Addr: addr, KeysFile: keysFile, Format: cookie.NTPsec{}, Spacing: unlimited,
		Rotates: "ntpd makes a new key once a day, unless its key file says `T: 0`",
	}
}

// NTPDRS is the ntp-daemon of ntpd-rs at addr with that key file. A new key is
// in its file some microseconds before all its servers know it.
func NTPDRS(addr netip.AddrPort, keysFile string) Followed {
	return Followed{
		Kind: config.KindNTPDRS, Addr: addr, KeysFile: keysFile, Format: cookie.NTPDRS{}, Behind: time.Second, Spacing: unlimited,
		Rotates: "ntpd-rs makes a new key each key-rotation-interval of [keyset] in ntp.toml",
	}
}

// FollowedOf returns what the configuration d says of a daemon that is followed.
func FollowedOf(d config.Daemon) Followed {
	if d.Kind == config.KindNTPsec {
		return NTPsec(d.Address, d.NTPsec.KeysFile)
	}
	return NTPDRS(d.Address, d.NTPDRS.KeysFile)
}

// ReadKeys reads the key file, whole. The error says what to do.
func (f Followed) ReadKeys() ([]byte, error) {
	b, err := disk.ReadFile(f.KeysFile, maxKeyFile)
	if hint := f.hint(err); hint != "" {
		return nil, fmt.Errorf("%w; %s", err, hint)
	}
	return b, err
}

// hint says what to do about a key file that cannot be read.
func (f Followed) hint(err error) string {
	ntpsec := f.Kind == config.KindNTPsec
	switch {
	case errors.Is(err, fs.ErrPermission) && ntpsec:
		return "only ntpd's user may read it, and each rotation makes a new file: have `ntsagent feed ntpsec` export it and set daemon.ntpsec.keys_file to the copy, or run us as root"
	case errors.Is(err, fs.ErrPermission):
		return "let our group read it, with chgrp and chmod 640, which ntpd-rs keeps, and enter its folder"
	case errors.Is(err, fs.ErrNotExist) && ntpsec:
		return "see that daemon.ntpsec.keys_file is the file of `nts cookie` in ntp.conf, or the copy that `ntsagent feed ntpsec` makes of it, and that AppArmor lets ntpd write " + f.KeysFile + "-tmp"
	case errors.Is(err, fs.ErrNotExist):
		return "see that daemon.ntpd_rs.keys_file is the key-storage-path of [keyset] in ntp.toml"
	}
	return ""
}

// Help is what keyring tells an operator about f.
func (f Followed) Help() keyring.Help {
	if f.Kind == config.KindNTPsec {
		return keyring.Help{
			Unseen: fmt.Sprintf("ntpd does not answer %s: see that it runs, that no `restrict` line of ntp.conf keeps %s out, and that daemon.address is right",
				f.Addr, f.Addr.Addr()),
			NoNTS: fmt.Sprintf("ntpd answers plain NTP but nothing with NTS: see that ntp.conf has `nts enable` and that its `nts cookie` is %s, and restart ntpd",
				f.KeysFile),
		}
	}
	return keyring.Help{
		Unseen: fmt.Sprintf("ntpd-rs does not answer %s: see that it runs, that ntp.toml has a [[server]] that listens there and lets %s in, and that daemon.address is right",
			f.Addr, f.Addr.Addr()),
		Refused: fmt.Sprintf("ntpd-rs cannot open cookies made with %s: see that this is the key-storage-path of [keyset] in ntp.toml, and restart ntpd-rs if the file is newer",
			f.KeysFile),
	}
}

// OtherKeys tells that the key file is a whole one and lacks the key: the daemon
// has started without it, or somebody else has written the file.
func (f Followed) OtherKeys(key *cookie.Key) bool {
	b, err := f.ReadKeys()
	if err != nil {
		return false
	}
	ring, err := f.Format.ParseKeys(b)
	if err != nil {
		return false
	}
	held := ring.Find(key.ID())
	return held == nil || held.Fingerprint() != key.Fingerprint()
}

// Hidden tells that the key file, of which before was known, was written since and
// that we may not read it: the daemon may have started without its keys. now is
// what is known of it now; nil = it is not there.
func (f Followed) Hidden(before fs.FileInfo) (now fs.FileInfo, hidden bool) {
	now, err := os.Stat(f.KeysFile)
	if err != nil {
		return nil, false
	}
	if _, err := f.ReadKeys(); !errors.Is(err, fs.ErrPermission) {
		return now, false
	}
	return now, before == nil || !os.SameFile(before, now) || !before.ModTime().Equal(now.ModTime())
}

// Closed tells why the folder of the key file cannot be watched by us; nil = it
// can, or is not there yet.
func (f Followed) Closed() error {
	d, err := os.Open(filepath.Dir(f.KeysFile))
	if err == nil {
		return d.Close()
	}
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// NoRotation is why keys are not rotated on demand, and what to do instead.
func (f Followed) NoRotation() string {
	return fmt.Sprintf("%s rotates its keys itself and the agent follows; %s", f.Kind, f.Rotates)
}
