#include "textflag.h"

// What AES and POLYVAL are is in aes.go and polyval.go, what these functions do in aes_asm.go.
//
// Single blocks are loaded in halves: Go has just written them as two words, and a load that spans two stores
// waits until both are in the cache, which costs as much as a whole AES.

// Four times octets 13, 14, 15, 12: the last word of a block, rotated (RotWord), in every column.
DATA rotWord<>+0(SB)/8, $0x0c0f0e0d0c0f0e0d
DATA rotWord<>+8(SB)/8, $0x0c0f0e0d0c0f0e0d
GLOBL rotWord<>(SB), RODATA|NOPTR, $16

// x^63 + x^62 + x^57: what remains of the modulus of POLYVAL without its ends.
DATA modulus<>+0(SB)/8, $0xc200000000000000
DATA modulus<>+8(SB)/8, $0xc200000000000000
GLOBL modulus<>(SB), RODATA|NOPTR, $16

// func expand128(s *schedule, key *byte)
TEXT ·expand128(SB), NOSPLIT, $0-16
	MOVQ   s+0(FP), DI
	MOVQ   key+8(FP), SI
	MOVQ   (SI), X0
	MOVHPS 8(SI), X0
	MOVUPS X0, (DI)
	MOVOU  rotWord<>(SB), X5
	MOVL   $1, AX
	MOVQ   AX, X4
	PSHUFD $0, X4, X4       // the round constant
	MOVL   $10, CX

expand:
	MOVO       X0, X1
	PSHUFB     X5, X1
	AESENCLAST X4, X1       // SubWord in every column, plus the round constant
	PSLLL      $1, X4
	CMPL       CX, $3
	JNE        add
	MOVL       $0x1b, AX    // after 0x80
	MOVQ       AX, X4
	PSHUFD     $0, X4, X4

add:
	MOVO   X0, X2           // each word plus all words before it
	PSLLO  $4, X2
	PXOR   X2, X0
	MOVO   X0, X2
	PSLLO  $8, X2
	PXOR   X2, X0
	PXOR   X1, X0
	ADDQ   $16, DI
	MOVUPS X0, (DI)
	DECL   CX
	JNZ    expand
	RET

// func encryptBlocks(s *schedule, rounds int, dst, src *byte, n int)
TEXT ·encryptBlocks(SB), NOSPLIT, $0-40
	MOVQ s+0(FP), AX
	MOVQ rounds+8(FP), BX
	MOVQ dst+16(FP), DI
	MOVQ src+24(FP), SI
	MOVQ n+32(FP), CX
	SHLQ $4, BX
	ADDQ AX, BX             // the last round key

four:
	SUBQ   $4, CX
	JB     ones
	MOVQ   (SI), X0
	MOVHPS 8(SI), X0
	MOVQ   16(SI), X1
	MOVHPS 24(SI), X1
	MOVQ   32(SI), X2
	MOVHPS 40(SI), X2
	MOVQ   48(SI), X3
	MOVHPS 56(SI), X3
	MOVUPS (AX), X4
	PXOR   X4, X0
	PXOR   X4, X1
	PXOR   X4, X2
	PXOR   X4, X3
	LEAQ   16(AX), DX

fourRounds:
	MOVUPS (DX), X4
	CMPQ   DX, BX
	JEQ    fourLast
	AESENC X4, X0
	AESENC X4, X1
	AESENC X4, X2
	AESENC X4, X3
	ADDQ   $16, DX
	JMP    fourRounds

fourLast:
	AESENCLAST X4, X0
	AESENCLAST X4, X1
	AESENCLAST X4, X2
	AESENCLAST X4, X3
	MOVUPS     X0, (DI)
	MOVUPS     X1, 16(DI)
	MOVUPS     X2, 32(DI)
	MOVUPS     X3, 48(DI)
	ADDQ       $64, SI
	ADDQ       $64, DI
	JMP        four

ones:
	ADDQ $4, CX

one:
	SUBQ   $1, CX
	JB     done
	MOVQ   (SI), X0
	MOVHPS 8(SI), X0
	MOVUPS (AX), X4
	PXOR   X4, X0
	LEAQ   16(AX), DX

oneRounds:
	MOVUPS (DX), X4
	CMPQ   DX, BX
	JEQ    oneLast
	AESENC X4, X0
	ADDQ   $16, DX
	JMP    oneRounds

oneLast:
	AESENCLAST X4, X0
	MOVUPS     X0, (DI)
	ADDQ       $16, SI
	ADDQ       $16, DI
	JMP        one

done:
	RET

// func chainBlocks(s *schedule, rounds int, x *[16]byte, data *byte, n int)
TEXT ·chainBlocks(SB), NOSPLIT, $0-40
	MOVQ   s+0(FP), AX
	MOVQ   rounds+8(FP), BX
	MOVQ   x+16(FP), DI
	MOVQ   data+24(FP), SI
	MOVQ   n+32(FP), CX
	SHLQ   $4, BX
	ADDQ   AX, BX           // the last round key
	MOVUPS (AX), X2
	MOVQ   (DI), X0
	MOVHPS 8(DI), X0

chain:
	MOVUPS (SI), X1
	PXOR   X2, X1
	PXOR   X1, X0
	LEAQ   16(AX), DX

chainRounds:
	MOVUPS (DX), X1
	CMPQ   DX, BX
	JEQ    chainLast
	AESENC X1, X0
	ADDQ   $16, DX
	JMP    chainRounds

chainLast:
	AESENCLAST X1, X0
	ADDQ       $16, SI
	DECQ       CX
	JNZ        chain
	MOVUPS     X0, (DI)
	RET

// func polyvalBlocks(acc, h *[16]byte, data *byte, n int)
TEXT ·polyvalBlocks(SB), NOSPLIT, $0-32
	MOVQ   acc+0(FP), DI
	MOVQ   h+8(FP), BX
	MOVQ   data+16(FP), SI
	MOVQ   n+24(FP), CX
	MOVQ   (DI), X0
	MOVHPS 8(DI), X0
	MOVQ   (BX), X1
	MOVHPS 8(BX), X1
	MOVOU  modulus<>(SB), X6

multiply:
	MOVUPS    (SI), X2
	PXOR      X2, X0
	MOVO      X0, X2
	MOVO      X0, X3
	MOVO      X0, X4
	PCLMULQDQ $0x00, X1, X2 // X2 = low times low
	PCLMULQDQ $0x11, X1, X0 // X0 = high times high
	PCLMULQDQ $0x01, X1, X3
	PCLMULQDQ $0x10, X1, X4
	PXOR      X4, X3        // X3 = the middle
	MOVO      X3, X4
	PSLLO     $8, X3
	PSRLO     $8, X4
	PXOR      X3, X2
	PXOR      X4, X0

	// Twice add the modulus times the lowest word, which clears that word.
	MOVO      X2, X3
	PCLMULQDQ $0x00, X6, X3
	PSHUFD    $0x4e, X2, X2
	PXOR      X3, X2
	MOVO      X2, X3
	PCLMULQDQ $0x00, X6, X3
	PSHUFD    $0x4e, X2, X2
	PXOR      X3, X0
	PXOR      X2, X0
	ADDQ      $16, SI
	DECQ      CX
	JNZ       multiply
	MOVUPS    X0, (DI)
	RET
