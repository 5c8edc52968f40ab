package aead

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
)

// aesKey is AES under one key of 16, 24 or 32 octets.
type aesKey struct {
	rounds int // 10, 12 or 14; 0 means that soft has the key
	sched  schedule
	soft   *softKey
}

// schedule holds up to 15 round keys, first one first (FIPS 197 §5.2).
type schedule [15 * blockLen]byte

// expand sets the key, with the assembly back end or without.
func (k *aesKey) expand(asm bool, key []byte) {
	if !asm {
		k.rounds, k.soft = 0, newSoftKey(key)
		return
	}
	k.rounds = 6 + len(key)/4
	if len(key) == 16 {
		expand128(&k.sched, &key[0])
		return
	}
	k.sched.expand(key)
}

// expand is the key expansion of FIPS 197 §5.2 for keys of any length.
func (s *schedule) expand(key []byte) {
	n := copy(s[:], key)
	end := (7 + len(key)/4) * blockLen
	w := binary.LittleEndian.Uint32(key[n-4:])
	rcon := uint32(1)
	var zero schedule
	for i := n; i < end; i += 4 {
		switch {
		case i%n == 0:
			w = bits.RotateLeft32(subWord(w, &zero), -8) ^ rcon
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case n == 32 && i%n == 16:
			w = subWord(w, &zero)
		}
		w ^= binary.LittleEndian.Uint32(s[i-n:])
		binary.LittleEndian.PutUint32(s[i:], w)
	}
}

// subWord is SubWord of FIPS 197 by the AES instructions: of the last round, with keys of zero, on a block of
// four equal words, which ShiftRows leaves alone.
func subWord(w uint32, zero *schedule) uint32 {
	var b [blockLen]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(w)<<32|uint64(w))
	binary.LittleEndian.PutUint64(b[8:], uint64(w)<<32|uint64(w))
	encryptBlocks(zero, 1, &b[0], &b[0], 1)
	return binary.LittleEndian.Uint32(b[:])
}

// encryptBlocks encrypts the whole blocks of src, each for itself, into dst, which may be src.
func (k *aesKey) encryptBlocks(dst, src []byte) {
	if k.rounds == 0 {
		k.soft.encryptBlocks(dst, src)
		return
	}
	encryptBlocks(&k.sched, k.rounds, &dst[0], &src[0], len(src)/blockLen)
}

// encrypt encrypts one block.
func (k *aesKey) encrypt(x block) block {
	var b [blockLen]byte
	x.put(b[:])
	k.encryptBlocks(b[:], b[:])
	return getBlock(b[:])
}

// chain encrypts the whole blocks of data one after the other, each added to what came out before, x at
// first, and returns what comes out last (CBC-MAC).
func (k *aesKey) chain(x block, data []byte) block {
	if len(data) == 0 {
		return x
	}
	if k.rounds == 0 {
		return k.soft.chain(x, data)
	}
	var b [blockLen]byte
	x.put(b[:])
	chainBlocks(&k.sched, k.rounds, &b, &data[0], len(data)/blockLen)
	return getBlock(b[:])
}

// softKey is AES of the standard library.
type softKey struct {
	block cipher.Block

	// cipher.Block is an interface, so whatever it is handed escapes to the heap. The memory it works in
	// therefore lives here; only operations that run at the same time under the same key take theirs from
	// the pool. (The pool alone would do, were it not that it forgets at random under the race detector,
	// where the tests prove that nothing is allocated.)
	busy  atomic.Bool
	own   [blockLen]byte
	spare sync.Pool
}

func newSoftKey(key []byte) *softKey {
	c, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the lengths are checked
	}
	return &softKey{block: c}
}

func (k *softKey) encryptBlocks(dst, src []byte) {
	w := k.take()
	for i := 0; i < len(src); i += blockLen {
		copy(w[:], src[i:])
		k.block.Encrypt(w[:], w[:])
		copy(dst[i:], w[:])
	}
	k.give(w)
}

func (k *softKey) chain(x block, data []byte) block {
	w := k.take()
	for ; len(data) > 0; data = data[blockLen:] {
		x.xor(getBlock(data)).put(w[:])
		k.block.Encrypt(w[:], w[:])
		x = getBlock(w[:])
	}
	k.give(w)
	return x
}

func (k *softKey) take() *[blockLen]byte {
	if k.busy.CompareAndSwap(false, true) {
		return &k.own
	}
	if w, ok := k.spare.Get().(*[blockLen]byte); ok {
		return w
	}
	return new([blockLen]byte)
}

func (k *softKey) give(w *[blockLen]byte) {
	if w == &k.own {
		k.busy.Store(false)
		return
	}
	k.spare.Put(w)
}
