//go:build amd64 || arm64

package aead

// The assembly back end. It runs in time that depends on lengths alone, and only where hasAES is true.

// expand128 makes the round keys of a key of 16 octets.
//
//go:noescape
func expand128(s *schedule, key *byte)

// encryptBlocks encrypts n blocks, each for itself. dst may be src, but not lie elsewhere within it.
//
//go:noescape
func encryptBlocks(s *schedule, rounds int, dst, src *byte, n int)

// chainBlocks adds n > 0 blocks of data to x one after the other and encrypts x after each.
//
//go:noescape
func chainBlocks(s *schedule, rounds int, x *[blockLen]byte, data *byte, n int)

// polyvalBlocks adds n > 0 blocks of data to acc one after the other and multiplies acc by h after each.
//
//go:noescape
func polyvalBlocks(acc, h *[blockLen]byte, data *byte, n int)
