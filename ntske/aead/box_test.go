package aead

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

var allIDs = []ID{SIVCMAC256, SIVCMAC384, SIVCMAC512, GCMSIV128}

// backEnds lists the back ends of this machine: the standard library, and the assembly if it runs here.
func backEnds() []bool {
	if hasAES {
		return []bool{false, true}
	}
	return []bool{false}
}

// boxes makes a Box with every back end of this machine.
func boxes(t testing.TB, id ID, key []byte) map[string]*Box {
	t.Helper()
	all := map[string]*Box{}
	for _, asm := range backEnds() {
		s := &state{asm: asm}
		b := &Box{hidden: func() *state { return s }}
		if err := b.Reset(id, key); err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprintf("assembly %t", asm)] = b
	}
	return all
}

// eachBox runs f for every algorithm and back end under a key of sevens.
func eachBox(t *testing.T, f func(*testing.T, *Box, []byte)) {
	t.Helper()
	for _, id := range allIDs {
		for end, b := range boxes(t, id, bytes.Repeat([]byte{7}, id.KeyLen())) {
			t.Run(id.String()+", "+end, func(t *testing.T) { f(t, b, bytes.Repeat([]byte{1}, id.NonceLen())) })
		}
	}
}

// checkBox seals to want, opens it, and opens nothing after one bit has flipped.
func checkBox(t *testing.T, end string, b *Box, nonce, plaintext, ad, want []byte, bit uint) {
	t.Helper()
	sealed := b.Seal(nil, nonce, plaintext, ad)
	if !bytes.Equal(sealed, want) {
		t.Fatalf("%s: nonce %x plaintext %x ad %x: sealed %x, want %x", end, nonce, plaintext, ad, sealed, want)
	}
	got, err := b.Open(nil, nonce, sealed, ad)
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("%s: opened %x, %v; want %x", end, got, err, plaintext)
	}
	bit %= uint(8 * len(sealed))
	sealed[bit/8] ^= 1 << (bit % 8)
	if _, err := b.Open(nil, nonce, sealed, ad); !errors.Is(err, ErrOpen) {
		t.Fatalf("%s: bit %d flipped: %v", end, bit, err)
	}
}

func TestKeyLengths(t *testing.T) {
	for n := range 80 {
		for id := range ID(40) {
			b, err := New(id, make([]byte, n))
			if good := n > 0 && n == id.KeyLen(); (err == nil) != good || good && b.ID() != id {
				t.Errorf("%v with a key of %d octets: %v, %v", id, n, b, err)
			}
		}
	}
	for id, want := range map[ID][2]int{SIVCMAC256: {32, 16}, SIVCMAC384: {48, 16}, SIVCMAC512: {64, 16}, GCMSIV128: {16, 12}, 0: {}, 1: {}} {
		if got := [2]int{id.KeyLen(), id.NonceLen()}; got != want {
			t.Errorf("%v: key and nonce have %d octets, want %d", id, got, want)
		}
	}
}

func TestABoxTakesAnyAlgorithmAfterAnyOther(t *testing.T) {
	for _, asm := range backEnds() {
		s := &state{asm: asm}
		b := &Box{hidden: func() *state { return s }}
		for i := range 64 {
			id := allIDs[i/4%4]
			if i%2 == 1 {
				id = allIDs[i/16]
			}
			key := bytes.Repeat([]byte{byte(i)}, id.KeyLen())
			fresh, err := New(id, key)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Reset(id, key); err != nil || b.ID() != id {
				t.Fatal(b, err)
			}
			clear(key) // it is not retained
			nonce := make([]byte, id.NonceLen())
			checkBox(t, id.String(), b, nonce, []byte("text"), nil, fresh.Seal(nil, nonce, []byte("text"), nil), 1)
			if err := b.Reset(id, key[1:]); err == nil {
				t.Fatal("took a short key")
			}
			checkBox(t, id.String(), b, nonce, []byte("text"), nil, fresh.Seal(nil, nonce, []byte("text"), nil), 1)
		}
	}
}

// TestExpandedKeys tells the key expansions of the assembly from that of the standard library.
func TestExpandedKeys(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{9})
	for _, n := range []int{16, 24, 32} {
		for range 50 {
			key, data := make([]byte, n), make([]byte, 13*blockLen)
			_, _ = rnd.Read(key)
			_, _ = rnd.Read(data)
			var want aesKey
			want.expand(false, key)
			for _, asm := range backEnds() {
				var k aesKey
				k.expand(asm, key)
				for m := blockLen; m <= len(data); m += blockLen {
					a, b := make([]byte, m), make([]byte, m)
					want.encryptBlocks(a, data[:m])
					k.encryptBlocks(b, data[:m])
					if !bytes.Equal(a, b) {
						t.Fatalf("assembly %t, key of %d octets, %d blocks: %x, want %x", asm, n, m/blockLen, b, a)
					}
					if x := getBlock(key); k.chain(x, data[:m]) != want.chain(x, data[:m]) {
						t.Fatalf("assembly %t, key of %d octets, chain of %d blocks", asm, n, m/blockLen)
					}
				}
				if asm && n == 16 {
					var slow schedule
					slow.expand(key)
					if slow != k.sched {
						t.Fatalf("round keys %x, want %x", k.sched, slow)
					}
				}
			}
		}
	}
}

func TestNoFlippedBitIsAccepted(t *testing.T) {
	eachBox(t, func(t *testing.T, b *Box, nonce []byte) {
		ad, plaintext := []byte("associated"), bytes.Repeat([]byte{2}, 37)
		sealed := b.Seal(nil, nonce, plaintext, ad)
		for _, part := range [][]byte{nonce, ad, sealed} {
			for bit := range 8 * len(part) {
				part[bit/8] ^= 1 << (bit % 8)
				if out, err := b.Open(nil, nonce, sealed, ad); !errors.Is(err, ErrOpen) || out != nil {
					t.Fatalf("bit %d: opened %x, %v", bit, out, err)
				}
				part[bit/8] ^= 1 << (bit % 8)
			}
		}
		for n := range len(sealed) {
			if _, err := b.Open(nil, nonce, sealed[:n], ad); !errors.Is(err, ErrOpen) {
				t.Errorf("cut to %d octets: %v", n, err)
			}
		}
		if got, want := b.Seal(nil, nonce, []byte("text"), nil), b.Seal(nil, nonce, []byte("text"), []byte{}); !bytes.Equal(got, want) {
			t.Error("nil and empty associated data differ")
		}
	})
}

func TestOpenLeavesNothingOfAPlaintextThatIsNotAuthentic(t *testing.T) {
	eachBox(t, func(t *testing.T, b *Box, nonce []byte) {
		sealed := b.Seal(nil, nonce, bytes.Repeat([]byte{0xaa}, 50), nil)
		sealed[3] ^= 1
		dst := bytes.Repeat([]byte{0x55}, 80)
		if _, err := b.Open(dst[:10], nonce, sealed, nil); !errors.Is(err, ErrOpen) {
			t.Fatal(err)
		}
		want := slices.Concat(bytes.Repeat([]byte{0x55}, 10), make([]byte, 50), bytes.Repeat([]byte{0x55}, 20))
		if !bytes.Equal(dst, want) {
			t.Errorf("destination is %x, want %x", dst, want)
		}
	})
}

func TestAnyOverlapOfInputsAndDestination(t *testing.T) {
	const size = 200
	fresh := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(fresh)
	clone := func() []byte { return bytes.Clone(fresh) }
	eachBox(t, func(t *testing.T, b *Box, nonce []byte) {
		end := 15 + len(nonce)
		for _, n := range []int{0, 1, 15, 16, 17, 32, 64, 70} {
			for at := range 90 { // where the plaintext lies, relative to a destination of dst[20:]
				m := clone()
				want := b.Seal(nil, fresh[15:end], fresh[at:at+n], fresh[30:60])
				if got := b.Seal(m[:20], m[15:end], m[at:at+n], m[30:60]); !bytes.Equal(got[20:], want) {
					t.Fatalf("seal of %d octets at %d over 20 gives %x, want %x", n, at, got[20:], want)
				}
				sealed := b.Seal(nil, fresh[15:end], fresh[100:100+n], fresh[30:60])
				if at < 60 && at+len(sealed) > 5 {
					continue // the sealed text would overwrite its own nonce or associated data
				}
				m = clone()
				copy(m[at:], sealed)
				got, err := b.Open(m[:20], m[15:end], m[at:at+len(sealed)], m[30:60])
				if err != nil || !bytes.Equal(got[20:], fresh[100:100+n]) {
					t.Fatalf("open of %d octets at %d over 20: %x, %v", n, at, got, err)
				}
			}
		}
		for name, dst := range map[string]func(sealed []byte) []byte{
			"over the whole sealed text": func(sealed []byte) []byte { return sealed[:0] },
			"behind the tag":             func(sealed []byte) []byte { return sealed[:Overhead] },
		} {
			sealed := b.Seal(nil, nonce, fresh[20:120], nil)
			d := dst(sealed)
			got, err := b.Open(d, nonce, sealed, nil)
			if err != nil || !bytes.Equal(got[len(d):], fresh[20:120]) {
				t.Errorf("open in place %s: %x, %v", name, got, err)
			} else if &got[0] != &sealed[0] {
				t.Errorf("open in place %s did not", name)
			}
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	eachBox(t, func(t *testing.T, b *Box, nonce []byte) {
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				plaintext, nonce := bytes.Repeat([]byte{byte(g)}, 64), bytes.Repeat([]byte{byte(g)}, len(nonce))
				for range 200 {
					sealed := b.Seal(nil, nonce, plaintext, nil)
					if got, err := b.Open(nil, nonce, sealed, nil); err != nil || !bytes.Equal(got, plaintext) {
						t.Errorf("opened %x, %v", got, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestNothingIsAllocated(t *testing.T) {
	eachBox(t, func(t *testing.T, b *Box, nonce []byte) {
		asm := b.hidden().asm
		key, ad, plaintext := make([]byte, b.ID().KeyLen()), make([]byte, 188), make([]byte, 104)
		dst := make([]byte, 0, 200)
		none := func(what string, f func()) {
			t.Helper()
			if n := testing.AllocsPerRun(200, f); n != 0 {
				t.Errorf("%s allocates %v times", what, n)
			}
		}
		if asm {
			none("Reset", func() { _ = b.Reset(b.ID(), key) })
		}
		if !asm && b.ID() == GCMSIV128 {
			return // crypto/aes allocates for every key, and this has one for every nonce
		}
		sealed := b.Seal(nil, nonce, plaintext, ad)
		none("Seal", func() { dst = b.Seal(dst[:0], nonce, plaintext, ad) })
		none("Open", func() {
			if _, err := b.Open(dst[:0], nonce, sealed, ad); err != nil {
				t.Error(err)
			}
		})
		sealed[0] ^= 1
		none("Open of a forgery", func() { _, _ = b.Open(dst[:0], nonce, sealed, ad) })
	})
}

func TestPrintingShowsNoKey(t *testing.T) {
	for _, id := range allIDs {
		b, err := New(id, bytes.Repeat([]byte{0xab, 0xcd}, id.KeyLen()/2))
		if err != nil {
			t.Fatal(err)
		}
		type holder struct {
			Box   *Box
			box   *Box
			value Box
		}
		h := holder{b, b, *b}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%t"} {
			if got := fmt.Sprintf(verb, b); got != id.String() {
				t.Errorf("%s prints %q", verb, got)
			}
			got := fmt.Sprintf(verb, h) + fmt.Sprintf(verb, &h)
			for _, leak := range []string{"abcd", "ABCD", "171 205", "171, 205", "0xab, 0xcd"} {
				if strings.Contains(got, leak) {
					t.Errorf("%s of a holder shows %q", verb, got)
				}
			}
		}
	}
	if got := fmt.Sprint((*Box)(nil)) + ", " + new(Box).String(); got != "no AEAD, no AEAD" {
		t.Errorf("no Box prints %q", got)
	}
}
