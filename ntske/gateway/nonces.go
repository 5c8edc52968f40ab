package gateway

import (
	crypto "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
)

// nonces are random octets, which all see and nobody can foresee: of a ChaCha8 with a fresh seed of the system now and
// then. Asking the system for each was 4 % of the work for eight cookies.
type nonces struct {
	random rand.ChaCha8
	left   int // nonces until the next seed
	nonce  [16]byte
}

// seedEvery bounds how many nonces a copy of the whole machine, such as a snapshot, may share with the original.
const seedEvery = 1024

// take returns n octets, up to 16, which are good until the next take.
func (s *nonces) take(n int) []byte {
	if s.left == 0 {
		var seed [32]byte
		crypto.Read(seed[:]) // never fails
		s.random.Seed(seed)
		s.left = seedEvery
	}
	s.left--
	binary.NativeEndian.PutUint64(s.nonce[:8], s.random.Uint64())
	binary.NativeEndian.PutUint64(s.nonce[8:], s.random.Uint64())
	return s.nonce[:n:n]
}
