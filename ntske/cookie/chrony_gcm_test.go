package cookie

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

// golden is what a newer chronyd minted in one session.
type golden struct {
	name    string
	ring    *Ring
	session Session
	cookies [][]byte
}

// goldenSets reads the cookies of chronyd 4.6.1.
func goldenSets(t testing.TB) (all []golden) {
	t.Helper()
	for line := range strings.Lines(string(testFile(t, "cookies461.txt"))) {
		words := strings.Fields(line)
		if words[0] == "set" {
			r, err := chrony.ParseKeys(testFile(t, words[1]))
			if err != nil {
				t.Fatal(err)
			}
			g := golden{name: fmt.Sprintf("session %s under %s, set %d", words[2], words[1], len(all)), ring: r}
			g.session.AEAD = map[string]aead.ID{"15": 15, "30": 30}[words[2]]
			all = append(all, g)
			continue
		} else if words[0] == "#" {
			continue
		}
		b, err := hex.DecodeString(words[1])
		if err != nil {
			t.Fatal(err)
		}
		switch g := &all[len(all)-1]; words[0] {
		case "c2s":
			g.session.C2S = b
		case "s2c":
			g.session.S2C = b
		case "cookie":
			g.cookies = append(g.cookies, b)
		}
	}
	if len(all) != 5 || len(all[4].cookies) < 2 {
		t.Fatalf("%d sets of cookies", len(all))
	}
	return all
}

func TestCookiesOfANewerChronydAreOpenedAndMadeAgain(t *testing.T) {
	lengths := map[[2]aead.ID]int{{15, 15}: 100, {15, 30}: 68, {30, 15}: 96, {30, 30}: 64}
	for _, g := range goldenSets(t) {
		t.Run(g.name, func(t *testing.T) {
			k := g.ring.Current()
			for _, c := range g.cookies {
				if want := lengths[[2]aead.ID{k.AEAD(), g.session.AEAD}]; len(c) != want {
					t.Errorf("a cookie has %d octets, want %d", len(c), want)
				}
				got, err := chrony.Open([]byte("before"), g.ring, c)
				if err != nil || !same(got, g.session) {
					t.Errorf("opened %v C2S %x S2C %x, %v", got.AEAD, got.C2S, got.S2C, err)
				}
				again, err := chrony.Seal([]byte("before"), k, c[4:4+chrony.NonceLen(k)], &g.session)
				if err != nil || !bytes.Equal(again, append([]byte("before"), c...)) {
					t.Errorf("sealed %x, %v; chronyd made %x", again, err, c)
				}
				c = bytes.Clone(c)
				for bit := range 8 * len(c) {
					c[bit/8] ^= 1 << (bit % 8)
					if _, err := chrony.Open(nil, g.ring, c); !errors.Is(err, ErrCookie) && !(bit < 32 && errors.Is(err, ErrUnknownKey)) {
						t.Fatalf("bit %d flipped: %v", bit, err)
					}
					c[bit/8] ^= 1 << (bit % 8)
				}
			}
		})
	}
}

func TestACookieOfALengthTheKeyNeverMakesIsNotOpened(t *testing.T) {
	sets := goldenSets(t)
	under15, under30 := sets[2], sets[0]
	for _, c := range []struct {
		ring *Ring
		n    int
	}{
		{under15.ring, 96}, {under15.ring, 64}, {under15.ring, 36},
		{under30.ring, 100}, {under30.ring, 68}, {under30.ring, 63}, {under30.ring, 32},
	} {
		// Even if the key has sealed it.
		k := c.ring.Current()
		b := binary.BigEndian.AppendUint32(nil, k.ID())
		b = append(b, make([]byte, chrony.NonceLen(k))...)
		b = k.secret().siv.Seal(b, b[4:], make([]byte, max(0, c.n-len(b)-aead.Overhead)), nil)
		if len(b) != c.n {
			t.Fatalf("%d octets, want %d", len(b), c.n)
		}
		if _, err := chrony.Open(nil, c.ring, b); err != ErrCookie {
			t.Errorf("%d octets under a key of %v: %v", c.n, c.ring.Current().AEAD(), err)
		}
	}
}

func TestARotationKeepsTheAlgorithmAndNeverGoesBackFromGCMSIV(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{4})
	key := func(id uint32, alg aead.ID) *Key {
		k, err := NewKey(id, alg, bytes.Repeat([]byte{byte(id)}, alg.KeyLen()))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for _, c := range []struct {
		name     string
		algs     []aead.ID
		want     []aead.ID
		replaced bool // the key that was next did not become the current one
	}{
		{"all of AES-SIV-CMAC", []aead.ID{15, 15, 15, 15}, []aead.ID{15, 15, 15, 15}, false},
		{"all of AES-GCM-SIV", []aead.ID{30, 30, 30, 30}, []aead.ID{30, 30, 30, 30}, false},
		{"a chronyd that has just been upgraded", []aead.ID{15, 15, 15, 30}, []aead.ID{15, 15, 30, 30}, false},
		{"a chronyd upgraded one rotation ago", []aead.ID{15, 15, 30, 30}, []aead.ID{15, 30, 30, 30}, false},
		{"an old key of AES-GCM-SIV alone", []aead.ID{30, 15, 15, 15}, []aead.ID{15, 15, 15, 15}, false},
		{"a chronyd about to go back", []aead.ID{30, 30, 30, 15}, []aead.ID{30, 30, 30, 30}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var keys []*Key
			for i, alg := range c.algs {
				keys = append(keys, key(uint32(40+i), alg))
			}
			r, err := NewRing(keys, 2)
			if err != nil {
				t.Fatal(err)
			}
			next, err := chrony.Next(r, rnd)
			if err != nil {
				t.Fatal(err)
			}
			if got := algorithms(next); !slices.Equal(got, c.want) {
				t.Errorf("algorithms %d, want %d", got, c.want)
			}
			if (next.Current() != keys[3]) != c.replaced || next.Keys()[0] != keys[1] || next.Keys()[1] != keys[2] {
				t.Errorf("%v became %v", r.Keys(), next.Keys())
			}
			if c.replaced && r.Find(next.Current().ID()) != nil {
				t.Errorf("the new key has the id of an old one: %v", next.Keys())
			}
			again, err := chrony.ParseKeys(chrony.AppendKeys(nil, next))
			if err != nil || !slices.Equal(algorithms(again), c.want) {
				t.Errorf("its file reads as %v, %v", again, err)
			}
			if err := chrony.check(next); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestANewRingIsOneThatEveryChronydReads(t *testing.T) {
	r, err := chrony.NewRing(rand.NewChaCha8([32]byte{6}))
	if err != nil || !slices.Equal(algorithms(r), []aead.ID{15, 15, 15, 15}) {
		t.Fatalf("%v, %v", r, err)
	}
	if file := chrony.AppendKeys(nil, r); !bytes.HasPrefix(file, []byte("NKS0\n15 0.0\n")) {
		t.Errorf("its file begins with %.12q", file)
	}
	if got := chrony.AEADs(); !slices.Equal(got, []aead.ID{15}) {
		t.Errorf("%v is offered before anything is known of the daemon", got)
	}
	if got := chrony.Carries(); !slices.Equal(got, []aead.ID{15, 30}) {
		t.Errorf("cookies carry %v", got)
	}
}

func TestNothingIsAllocatedForAnyCookieOfChronyd(t *testing.T) {
	for _, g := range goldenSets(t) {
		buf, c, k := make([]byte, 0, 100), g.cookies[0], g.ring.Current()
		nonce := c[4 : 4+chrony.NonceLen(k)]
		if n := testing.AllocsPerRun(100, func() {
			if _, err := chrony.Seal(buf, k, nonce, &g.session); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: Seal allocates %v times", g.name, n)
		}
		if n := testing.AllocsPerRun(100, func() {
			if _, err := chrony.Open(buf, g.ring, c); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: Open allocates %v times", g.name, n)
		}
	}
}
