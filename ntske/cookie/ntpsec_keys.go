package cookie

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"ntsagent/ntske/aead"
)

const (
	ntpsecKeys    = 10 // pairs that NTPsec 1.2.2 and newer hold
	ntpsecOldKeys = 2  // pairs that NTPsec up to 1.2.1 holds
)

// ParseKeys reads a whole key file of ntpd, strictly:
//
//	T: 1795415824     seconds since 1970 of the last rotation; 0 = ntpd never rotates
//	L: 32             octets of a key: 32, 48 or 64
//	I: 269032419      id, decimal         up to ten pairs, newest first
//	K: 9e23f9…        2·L hex digits
//
// The first key mints, so it is the last and the current one of the ring.
//
// NTPsec up to 1.2.1 writes two pairs over the old file in place and does not cut it: when the new ids have
// fewer digits, the end of the old file stays behind the second pair. Such a rest, a few hex digits and a line
// feed, is passed over, as ntpd itself does.
func (NTPsec) ParseKeys(file []byte) (*Ring, error) {
	if len(file) == 0 {
		return nil, fmt.Errorf("ntpd key file: %w", errEmptyKeys)
	}
	lines := ntpsecLines{rest: file}
	if t, err := lines.next("T: "); err != nil {
		return nil, err
	} else if _, ok := decimal(t, 64); !ok {
		return nil, lines.fault("is not T: and a time in seconds")
	}
	alg, err := lines.length()
	if err != nil {
		return nil, err
	}
	var keys []*Key
	for len(keys) == 0 || len(lines.rest) > 0 {
		if len(keys) == ntpsecOldKeys && isLeftOver(lines.rest) {
			break
		}
		if len(keys) == ntpsecKeys {
			return nil, fmt.Errorf("ntpd key file: line %d is one too many: ntpd holds %d keys", lines.n+1, ntpsecKeys)
		}
		k, err := lines.key(alg)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	slices.Reverse(keys)
	return NewRing(keys, len(keys)-1)
}

// isLeftOver tells whether b can be what an ntpd up to 1.2.1 left of a longer file.
func isLeftOver(b []byte) bool {
	const longest = 3*9 + 1 // T and two ids may each have lost 9 digits; the line feed
	digits, ok := bytes.CutSuffix(b, []byte("\n"))
	return ok && len(b) <= longest && !bytes.ContainsFunc(digits, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'f')
	})
}

// ntpsecLines takes a key file apart, line by line.
type ntpsecLines struct {
	rest []byte
	n    int // lines taken
}

// next takes one line and returns what follows the name.
func (l *ntpsecLines) next(name string) ([]byte, error) {
	line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
	l.n++
	if !ok {
		return nil, l.fault("does not end with a line feed; the file may be cut off")
	}
	l.rest = rest
	value, ok := bytes.CutPrefix(line, []byte(name))
	if !ok {
		return nil, l.fault(fmt.Sprintf("does not start with %q", name))
	}
	return value, nil
}

// fault speaks of the line taken last. problem must hold nothing of a key.
func (l *ntpsecLines) fault(problem string) error {
	return fmt.Errorf("ntpd key file: line %d %s", l.n, problem)
}

func (l *ntpsecLines) length() (aead.ID, error) {
	value, err := l.next("L: ")
	if err != nil {
		return 0, err
	}
	for _, alg := range ntpsecAEADs {
		if string(value) == strconv.Itoa(alg.KeyLen()) {
			return alg, nil
		}
	}
	return 0, l.fault("is not L: and 32, 48 or 64")
}

// key takes the two lines of a key.
func (l *ntpsecLines) key(alg aead.ID) (*Key, error) {
	value, err := l.next("I: ")
	if err != nil {
		return nil, err
	}
	id, ok := decimal(value, 32)
	if !ok {
		return nil, l.fault("is not I: and an id of 32 bits")
	}
	if value, err = l.next("K: "); err != nil {
		return nil, err
	}
	var room [64]byte
	defer clear(room[:])
	octets := room[:alg.KeyLen()]
	if len(value) != hex.EncodedLen(len(octets)) {
		return nil, l.fault(fmt.Sprintf("has a key of %d characters, not %d", len(value), hex.EncodedLen(len(octets))))
	}
	if _, err := hex.Decode(octets, value); err != nil {
		return nil, l.fault("has a key that is not hex") // not err: it quotes a character of the key
	}
	return NewKey(uint32(id), alg, octets)
}

// decimal reads a number without sign or leading zeros.
func decimal(b []byte, bits int) (uint64, bool) {
	n, err := strconv.ParseUint(string(b), 10, bits)
	return n, err == nil && strconv.FormatUint(n, 10) == string(b)
}
