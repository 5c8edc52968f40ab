package keyring

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"ntsagent/ntske/cookie"
)

// ownFile is what must survive a crash of keys that are ours: the ring, and when
// it was last rotated. On disk it is a head of two lines before the list of keys:
//
//	ntsagent own keys 1
//	rotated 2026-11-23T10:00:00Z
//	keys 10
//	…
type ownFile struct {
	ring    *cookie.Ring
	rotated time.Time // wall time of the last rotation
}

const (
	ownName = "ntsagent own keys "
	ownHead = ownName + "1\nrotated "
)

// ErrDamaged is what OwnConfig.Load wraps when what it found can be no file of
// ours: it is put aside then, as one is whose content is damaged.
var ErrDamaged = errFile

func (f ownFile) append(dst []byte) []byte {
	dst = fmt.Appendf(dst, "%s%s\n", ownHead, formatTime(f.rotated))
	return cookie.Own{}.AppendKeys(dst, f.ring)
}

// parseOwn reads what append wrote, and nothing else. Errors show no key.
func parseOwn(b []byte) (ownFile, error) {
	rest, found := bytes.CutPrefix(b, []byte(ownHead))
	rotated, keys, cut := bytes.Cut(rest, []byte("\n"))
	if version, ok := bytes.CutPrefix(b, []byte(ownName)); ok && !found {
		version, _, _ = bytes.Cut(version, []byte("\n"))
		if n, err := strconv.ParseUint(string(version), 10, 16); err == nil && n > 1 {
			return ownFile{}, fmt.Errorf("%w: it is of format %d, which a newer ntsagent writes", errFile, n)
		}
	}
	if !found || !cut {
		return ownFile{}, fmt.Errorf("%w: it does not begin as one", errFile)
	}
	at, err := parseTime(string(rotated))
	if err != nil {
		return ownFile{}, err
	}
	if at.IsZero() {
		return ownFile{}, fmt.Errorf("%w: no time of the last rotation", errFile)
	}
	ring, err := cookie.Own{}.ParseKeys(keys)
	if err != nil {
		return ownFile{}, fmt.Errorf("%w: %w", errFile, err)
	}
	return ownFile{ring: ring, rotated: at}, nil
}
