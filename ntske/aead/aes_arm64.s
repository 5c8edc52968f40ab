#include "textflag.h"

// What AES and POLYVAL are is in aes.go and polyval.go, what these functions do in aes_asm.go. AESE adds the
// round key first, unlike its like on amd64: the last key is added by VEOR.

// Four times octets 13, 14, 15, 12: the last word of a block, rotated (RotWord), in every column.
DATA rotWord<>+0(SB)/8, $0x0c0f0e0d0c0f0e0d
DATA rotWord<>+8(SB)/8, $0x0c0f0e0d0c0f0e0d
GLOBL rotWord<>(SB), RODATA|NOPTR, $16

// func expand128(s *schedule, key *byte)
TEXT ·expand128(SB), NOSPLIT, $0-16
	MOVD s+0(FP), R0
	MOVD key+8(FP), R1
	MOVD $rotWord<>(SB), R2
	VLD1 (R1), [V0.B16]
	VLD1 (R2), [V5.B16]
	VEOR V6.B16, V6.B16, V6.B16
	MOVD $1, R3             // the round constant
	MOVD $10, R4
	VST1.P [V0.B16], 16(R0)

expand:
	VTBL V5.B16, [V0.B16], V1.B16
	AESE V6.B16, V1.B16     // SubWord in every column
	VDUP R3, V4.S4
	VEOR V4.B16, V1.B16, V1.B16
	LSL  $1, R3, R3
	CMP  $3, R4
	BNE  add
	MOVD $0x1b, R3          // after 0x80

add:
	VEXT   $12, V0.B16, V6.B16, V2.B16 // each word plus all words before it
	VEOR   V2.B16, V0.B16, V0.B16
	VEXT   $8, V0.B16, V6.B16, V2.B16
	VEOR   V2.B16, V0.B16, V0.B16
	VEOR   V1.B16, V0.B16, V0.B16
	VST1.P [V0.B16], 16(R0)
	SUBS   $1, R4, R4
	BNE    expand
	RET

// func encryptBlocks(s *schedule, rounds int, dst, src *byte, n int)
TEXT ·encryptBlocks(SB), NOSPLIT, $0-40
	MOVD s+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD dst+16(FP), R2
	MOVD src+24(FP), R3
	MOVD n+32(FP), R4

four:
	CMP    $4, R4
	BLO    one
	SUB    $4, R4, R4
	VLD1.P 64(R3), [V0.B16, V1.B16, V2.B16, V3.B16]
	MOVD   R0, R5
	SUB    $1, R1, R6
	VLD1.P 16(R5), [V4.B16]
	CBZ    R6, fourLast

fourRounds:
	AESE   V4.B16, V0.B16
	AESMC  V0.B16, V0.B16
	AESE   V4.B16, V1.B16
	AESMC  V1.B16, V1.B16
	AESE   V4.B16, V2.B16
	AESMC  V2.B16, V2.B16
	AESE   V4.B16, V3.B16
	AESMC  V3.B16, V3.B16
	VLD1.P 16(R5), [V4.B16]
	SUBS   $1, R6, R6
	BNE    fourRounds

fourLast:
	VLD1   (R5), [V5.B16]
	AESE   V4.B16, V0.B16
	AESE   V4.B16, V1.B16
	AESE   V4.B16, V2.B16
	AESE   V4.B16, V3.B16
	VEOR   V5.B16, V0.B16, V0.B16
	VEOR   V5.B16, V1.B16, V1.B16
	VEOR   V5.B16, V2.B16, V2.B16
	VEOR   V5.B16, V3.B16, V3.B16
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R2)
	B      four

one:
	CBZ    R4, done
	SUB    $1, R4, R4
	VLD1.P 16(R3), [V0.B16]
	MOVD   R0, R5
	SUB    $1, R1, R6
	VLD1.P 16(R5), [V4.B16]
	CBZ    R6, oneLast

oneRounds:
	AESE   V4.B16, V0.B16
	AESMC  V0.B16, V0.B16
	VLD1.P 16(R5), [V4.B16]
	SUBS   $1, R6, R6
	BNE    oneRounds

oneLast:
	VLD1   (R5), [V5.B16]
	AESE   V4.B16, V0.B16
	VEOR   V5.B16, V0.B16, V0.B16
	VST1.P [V0.B16], 16(R2)
	B      one

done:
	RET

// func chainBlocks(s *schedule, rounds int, x *[16]byte, data *byte, n int)
TEXT ·chainBlocks(SB), NOSPLIT, $0-40
	MOVD s+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD x+16(FP), R2
	MOVD data+24(FP), R3
	MOVD n+32(FP), R4
	VLD1 (R2), [V0.B16]
	VLD1 (R0), [V2.B16]

chain:
	VLD1.P 16(R3), [V1.B16]
	VEOR   V1.B16, V0.B16, V0.B16
	ADD    $16, R0, R5
	SUB    $1, R1, R6
	VORR   V2.B16, V2.B16, V4.B16

chainRounds:
	AESE   V4.B16, V0.B16
	AESMC  V0.B16, V0.B16
	VLD1.P 16(R5), [V4.B16]
	SUBS   $1, R6, R6
	BNE    chainRounds

	VLD1 (R5), [V5.B16]
	AESE V4.B16, V0.B16
	VEOR V5.B16, V0.B16, V0.B16
	SUBS $1, R4, R4
	BNE  chain
	VST1 [V0.B16], (R2)
	RET

// func polyvalBlocks(acc, h *[16]byte, data *byte, n int)
TEXT ·polyvalBlocks(SB), NOSPLIT, $0-32
	MOVD acc+0(FP), R0
	MOVD h+8(FP), R1
	MOVD data+16(FP), R2
	MOVD n+24(FP), R3
	VLD1 (R0), [V0.B16]
	VLD1 (R1), [V1.B16]
	VEXT $8, V1.B16, V1.B16, V7.B16 // h, halves exchanged
	MOVD $0xc200000000000000, R4    // x^63 + x^62 + x^57: the modulus without its ends
	VDUP R4, V6.D2
	VEOR V5.B16, V5.B16, V5.B16

multiply:
	VLD1.P  16(R2), [V2.B16]
	VEOR    V2.B16, V0.B16, V0.B16
	VPMULL  V1.D1, V0.D1, V2.Q1     // V2 = low times low
	VPMULL  V7.D1, V0.D1, V3.Q1
	VPMULL2 V7.D2, V0.D2, V4.Q1
	VPMULL2 V1.D2, V0.D2, V0.Q1     // V0 = high times high
	VEOR    V4.B16, V3.B16, V3.B16  // V3 = the middle
	VEXT    $8, V3.B16, V5.B16, V4.B16
	VEXT    $8, V5.B16, V3.B16, V3.B16
	VEOR    V4.B16, V2.B16, V2.B16
	VEOR    V3.B16, V0.B16, V0.B16

	// Twice add the modulus times the lowest word, which clears that word.
	VPMULL V6.D1, V2.D1, V3.Q1
	VEXT   $8, V2.B16, V2.B16, V2.B16
	VEOR   V3.B16, V2.B16, V2.B16
	VPMULL V6.D1, V2.D1, V3.Q1
	VEXT   $8, V2.B16, V2.B16, V2.B16
	VEOR   V3.B16, V0.B16, V0.B16
	VEOR   V2.B16, V0.B16, V0.B16
	SUBS   $1, R3, R3
	BNE    multiply
	VST1   [V0.B16], (R0)
	RET
