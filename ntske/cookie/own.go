package cookie

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"ntsagent/ntske/aead"
)

// Own is how we write cookies and keys where the keys are ours alone: cookies as chronyd writes them, so that
// moving to chronyd can keep them valid, and a list of up to MostKeys keys. The last key of a ring mints.
//
//	keys 2
//	1a2b3c4c 15 5c5c…
//	1a2b3c4d 15 a1a1…
//
// A row is the id in 8 hex digits, the IANA number of the AEAD and the key in hex, oldest first.
type Own struct{ Chrony }

// How many keys a ring of Own is kept at, once there have been so many rotations.
const (
	LeastKeys = 2
	MostKeys  = 64
)

// AEADs lists the algorithms of sessions that cookies can carry: a server of ours speaks them all.
func (o Own) AEADs() []aead.ID { return o.Carries() }

// NewRing makes a fresh ring of one random key.
func (Own) NewRing(rand io.Reader) (*Ring, error) {
	var id [4]byte
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return nil, fmt.Errorf("make cookie keys: %w", err)
	}
	k, err := chronyFresh(binary.BigEndian.Uint32(id[:]), aead.SIVCMAC256, rand)
	if err != nil {
		return nil, err
	}
	return NewRing([]*Key{k}, 0)
}

// Next makes the ring after r: its newest keys, of which keep are left at the most with the fresh one that mints.
func (Own) Next(r *Ring, keep int, rand io.Reader) (*Ring, error) {
	keys := r.Keys()
	if extra := len(keys) + 1 - max(keep, LeastKeys); extra > 0 {
		keys = keys[extra:]
	}
	fresh, err := chronyFresh(keys[len(keys)-1].id+1, aead.SIVCMAC256, rand)
	if err != nil {
		return nil, err
	}
	return NewRing(append(keys, fresh), len(keys))
}

// AppendKeys appends r as a list of keys. r must come from ParseKeys, NewRing or Next.
func (Own) AppendKeys(dst []byte, r *Ring) []byte {
	dst = fmt.Appendf(dst, "keys %d\n", len(r.keys))
	for _, k := range r.keys {
		dst = fmt.Appendf(dst, "%08x %d %x\n", k.id, uint16(k.alg), k.secret().octets)
	}
	return dst
}

// ParseKeys reads a whole list of keys, octet for octet as AppendKeys writes it. Errors tell the line and no key.
func (f Own) ParseKeys(file []byte) (*Ring, error) {
	body, whole := bytes.CutSuffix(file, []byte("\n"))
	lines := bytes.Split(body, []byte("\n"))
	count, head := bytes.CutPrefix(lines[0], []byte("keys "))
	n, err := strconv.ParseUint(string(count), 10, 8)
	switch {
	case !whole:
		return nil, errors.New("cookie keys: the last line has no end; the file may be cut off")
	case !head || err != nil || n < 1 || n > MostKeys:
		return nil, fmt.Errorf("cookie keys: line 1 is not the number of keys, from 1 to %d", MostKeys)
	case int(n) != len(lines)-1:
		return nil, fmt.Errorf("cookie keys: %d of %d are there; the file may be cut off", len(lines)-1, n)
	}
	keys := make([]*Key, 0, n)
	for i, line := range lines[1:] {
		k, err := ownRow(line)
		if err != nil {
			return nil, fmt.Errorf("cookie keys: line %d %w", i+2, err)
		}
		keys = append(keys, k)
	}
	r, err := NewRing(keys, len(keys)-1)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(f.AppendKeys(nil, r), file) {
		return nil, errors.New("cookie keys: not written the way we write them")
	}
	return r, nil
}

// ownRow reads the row of one key. Its errors go on from "line n".
func ownRow(line []byte) (*Key, error) {
	row := bytes.Split(line, []byte(" "))
	if len(row) != 3 {
		return nil, errors.New("is not ID AEAD KEY")
	}
	id, err := strconv.ParseUint(string(row[0]), 16, 32)
	if err != nil || len(row[0]) != 8 {
		return nil, errors.New("does not start with an id of 8 hex digits")
	}
	known := []aead.ID{aead.SIVCMAC256, aead.GCMSIV128}
	i := slices.IndexFunc(known, func(a aead.ID) bool { return string(row[1]) == strconv.Itoa(int(a)) })
	if i < 0 {
		return nil, errors.New("does not hold a known AEAD number")
	}
	var room [32]byte
	defer clear(room[:])
	b := room[:known[i].KeyLen()]
	if len(row[2]) != hex.EncodedLen(len(b)) {
		return nil, fmt.Errorf("has a key of %d characters, not %d", len(row[2]), hex.EncodedLen(len(b)))
	}
	if _, err := hex.Decode(b, row[2]); err != nil {
		return nil, errors.New("has a key that is not hex") // not err: it quotes a character of the key
	}
	return NewKey(uint32(id), known[i], b)
}
