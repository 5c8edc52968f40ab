//go:build !amd64 && !arm64

package aead

// hasAES says whether this machine has what the assembly back end needs.
const hasAES = false

func expand128(*schedule, *byte)                              { panic("aead: no assembly here") }
func encryptBlocks(*schedule, int, *byte, *byte, int)         { panic("aead: no assembly here") }
func chainBlocks(*schedule, int, *[blockLen]byte, *byte, int) { panic("aead: no assembly here") }
func polyvalBlocks(_, _ *[blockLen]byte, _ *byte, _ int)      { panic("aead: no assembly here") }
