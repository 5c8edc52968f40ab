package keyring

import (
	"bytes"
	"fmt"
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

const ownHead = "ntsagent own keys 1\nrotated "

func (f ownFile) append(dst []byte) []byte {
	dst = fmt.Appendf(dst, "%s%s\n", ownHead, formatTime(f.rotated))
	return cookie.Own{}.AppendKeys(dst, f.ring)
}

// parseOwn reads what append wrote, and nothing else. Errors show no key.
func parseOwn(b []byte) (ownFile, error) {
	rest, found := bytes.CutPrefix(b, []byte(ownHead))
	rotated, keys, cut := bytes.Cut(rest, []byte("\n"))
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
