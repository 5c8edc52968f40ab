package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ntsagent/ntske/cookie"
)

// file is what must survive a crash: the keys, when they were last rotated, and
// what the daemon has shown to hold. On disk it is a head of five lines before
// the key file in the daemon's format:
//
//	ntsagent keys 1
//	rotated 2026-11-23T10:00:00Z
//	proven-at 2026-11-23T10:00:02Z
//	minting 1a2b3c4e
//	proven 1a2b3c4c 1a2b3c4d 1a2b3c4e 1a2b3c4f
//	NKS0
//	…
//
// "-" stands for none. A file without the head holds keys of unknown standing.
type file struct {
	ring     *cookie.Ring
	rotated  time.Time // wall time of the last rotation
	provenAt time.Time // wall time of the last complete proof; zero = never handed over
	minting  uint32    // the key we mint under, or did before proven was emptied; 0 = never
	proven   []uint32  // keys the daemon has opened and not refused since, in ring order
}

const fileHead = "ntsagent keys 1"

var errFile = errors.New("not a key file of ours")

// mintingKey is the key to mint under as far as the file tells; nil = none.
func (f file) mintingKey() *cookie.Key {
	if !slices.Contains(f.proven, f.minting) {
		return nil
	}
	return f.ring.Find(f.minting)
}

// pending tells that the ring's current key waits for its hand-over and proof.
func (f file) pending() bool { return f.minting != f.ring.Current().ID() || f.mintingKey() == nil }

// published is the ring that mints under the minting key; nil = none.
func (f file) published() *cookie.Ring {
	key := f.mintingKey()
	switch {
	case key == nil:
		return nil
	case key == f.ring.Current():
		return f.ring
	}
	ring, err := cookie.NewRing(f.ring.Keys(), slices.Index(f.ring.Keys(), key))
	if err != nil {
		return nil // cannot be: the keys come from a valid ring
	}
	return ring
}

// next is the key after the current one; nil if the ring holds none.
func (f file) next() *cookie.Key {
	keys := f.ring.Keys()
	i := slices.Index(keys, f.ring.Current()) + 1
	if i == len(keys) {
		return nil
	}
	return keys[i]
}

// withProven returns f with the ids added to what is proven.
func (f file) withProven(ids ...uint32) file {
	return f.keepProven(func(id uint32) bool { return slices.Contains(f.proven, id) || slices.Contains(ids, id) })
}

// withRefused returns f with nothing proven, so with nothing to mint under.
func (f file) withRefused() file {
	f.proven = nil
	return f
}

// withAccepted returns f as the daemon has shown at now to hold it. A key that
// becomes current late serves for a whole interval all the same: cookies under
// the one before must not lose theirs.
func (f file) withAccepted(now time.Time) file {
	current := f.ring.Current().ID()
	if f.minting != current {
		f.rotated = wall(now)
	}
	f.minting, f.provenAt = current, wall(now)
	return f
}

// withRing returns f rotated to ring at now; what was proven of it stays so.
func (f file) withRing(ring *cookie.Ring, now time.Time) file {
	f.ring, f.rotated = ring, wall(now)
	return f.keepProven(func(id uint32) bool { return slices.Contains(f.proven, id) })
}

func (f file) keepProven(keep func(uint32) bool) file {
	var proven []uint32
	for _, key := range f.ring.Keys() {
		if keep(key.ID()) {
			proven = append(proven, key.ID())
		}
	}
	f.proven = proven
	return f
}

// wall strips the monotonic reading and what the file cannot hold.
func wall(t time.Time) time.Time { return t.UTC().Round(0).Truncate(time.Second) }

func (f file) append(dst []byte, format cookie.Chrony) ([]byte, error) {
	minting := "-"
	if f.ring.Find(f.minting) != nil {
		minting = hexID(f.minting)
	}
	proven := "-"
	if len(f.proven) > 0 {
		ids := make([]string, len(f.proven))
		for i, id := range f.proven {
			ids[i] = hexID(id)
		}
		proven = strings.Join(ids, " ")
	}
	dst = fmt.Appendf(dst, "%s\nrotated %s\nproven-at %s\nminting %s\nproven %s\n",
		fileHead, formatTime(f.rotated), formatTime(f.provenAt), minting, proven)
	return format.AppendKeys(dst, f.ring), nil
}

// parseFile reads what append wrote, or a bare key file of the daemon's format.
func parseFile(format cookie.Chrony, b []byte) (file, error) {
	var f file
	head, keys, found := cutHead(b)
	ring, err := format.ParseKeys(keys)
	if err != nil {
		return file{}, fmt.Errorf("%w: %w", errFile, err)
	}
	f.ring = ring
	if !found {
		return f, nil
	}
	if f.rotated, err = parseTime(head[0]); err != nil {
		return file{}, err
	}
	if f.provenAt, err = parseTime(head[1]); err != nil {
		return file{}, err
	}
	for _, id := range strings.Split(head[3], " ") {
		if head[3] == "-" {
			break
		}
		n, err := parseID(id)
		if err != nil || ring.Find(n) == nil || slices.Contains(f.proven, n) {
			return file{}, fmt.Errorf("%w: proven key %q is not one of its keys", errFile, id)
		}
		f.proven = append(f.proven, n)
	}
	if head[2] != "-" {
		f.minting, err = parseID(head[2])
		if err != nil || f.ring.Find(f.minting) == nil {
			return file{}, fmt.Errorf("%w: minting key %q is not one of its keys", errFile, head[2])
		}
	}
	return f.withProven(), nil
}

// cutHead splits off the head and returns the values of its four fields.
func cutHead(b []byte) (values [4]string, rest []byte, found bool) {
	rest, found = bytes.CutPrefix(b, []byte(fileHead+"\n"))
	if !found {
		return values, b, false
	}
	for i, name := range []string{"rotated ", "proven-at ", "minting ", "proven "} {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		value, named := bytes.CutPrefix(line, []byte(name))
		if !ok || !named {
			return values, b, false // then it is no key file either
		}
		values[i], rest = string(value), after
	}
	return values, rest, true
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func parseTime(s string) (time.Time, error) {
	if s == "-" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || formatTime(t) != s {
		return time.Time{}, fmt.Errorf("%w: time %q", errFile, s)
	}
	return t.UTC(), nil
}

func hexID(id uint32) string { return fmt.Sprintf("%08x", id) }

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || hexID(uint32(n)) != s {
		return 0, fmt.Errorf("%w: key id %q", errFile, s)
	}
	return uint32(n), nil
}
