package aead

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// The vectors of RFC 8452 appendix C.1 and, because the counter wraps in them, C.3, whose keys are of
// AEAD_AES_256_GCM_SIV.
var gcmVectors = []struct{ name, key, nonce, plaintext, ad, sealed string }{
	{
		"C.1 number 1: 0 octets of plaintext, 0 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"",
		"",
		"dc20e2d83f25705bb49e439eca56de25",
	},
	{
		"C.1 number 2: 8 octets of plaintext, 0 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"0100000000000000",
		"",
		"b5d839330ac7b786578782fff6013b815b287c22493a364c",
	},
	{
		"C.1 number 3: 12 octets of plaintext, 0 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"010000000000000000000000",
		"",
		"7323ea61d05932260047d942a4978db357391a0bc4fdec8b0d106639",
	},
	{
		"C.1 number 4: 16 octets of plaintext, 0 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"01000000000000000000000000000000",
		"",
		"743f7c8077ab25f8624e2e948579cf77303aaf90f6fe21199c6068577437a0c4",
	},
	{
		"C.1 number 5: 32 octets of plaintext, 0 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"0100000000000000000000000000000002000000000000000000000000000000",
		"",
		"84e07e62ba83a6585417245d7ec413a9fe427d6315c09b57ce45f2e3936a94451a8e45dcd4578c667cd86847bf6155ff",
	},
	{
		"C.1 number 6: 48 octets of plaintext, 0 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"010000000000000000000000000000000200000000000000000000000000000003000000000000000000000000000000",
		"",
		"3fd24ce1f5a67b75bf2351f181a475c7b800a5b4d3dcf70106b1eea82fa1d64df42bf7226122fa92e17a40eeaac1201b5e6e311dbf395d35b0fe39c2714388f8",
	},
	{
		"C.1 number 7: 64 octets of plaintext, 0 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"01000000000000000000000000000000020000000000000000000000000000000300000000000000000000000000000004000000000000000000000000000000",
		"",
		"2433668f1058190f6d43e360f4f35cd8e475127cfca7028ea8ab5c20f7ab2af02516a2bdcbc08d521be37ff28c152bba36697f25b4cd169c6590d1dd39566d3f8a263dd317aa88d56bdf3936dba75bb8",
	},
	{
		"C.1 number 8: 8 octets of plaintext, 1 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"0200000000000000",
		"01",
		"1e6daba35669f4273b0a1a2560969cdf790d99759abd1508",
	},
	{
		"C.1 number 9: 12 octets of plaintext, 1 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"020000000000000000000000",
		"01",
		"296c7889fd99f41917f4462008299c5102745aaa3a0c469fad9e075a",
	},
	{
		"C.1 number 10: 16 octets of plaintext, 1 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"02000000000000000000000000000000",
		"01",
		"e2b0c5da79a901c1745f700525cb335b8f8936ec039e4e4bb97ebd8c4457441f",
	},
	{
		"C.1 number 11: 32 octets of plaintext, 1 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"0200000000000000000000000000000003000000000000000000000000000000",
		"01",
		"620048ef3c1e73e57e02bb8562c416a319e73e4caac8e96a1ecb2933145a1d71e6af6a7f87287da059a71684ed3498e1",
	},
	{
		"C.1 number 12: 48 octets of plaintext, 1 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"020000000000000000000000000000000300000000000000000000000000000004000000000000000000000000000000",
		"01",
		"50c8303ea93925d64090d07bd109dfd9515a5a33431019c17d93465999a8b0053201d723120a8562b838cdff25bf9d1e6a8cc3865f76897c2e4b245cf31c51f2",
	},
	{
		"C.1 number 13: 64 octets of plaintext, 1 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"02000000000000000000000000000000030000000000000000000000000000000400000000000000000000000000000005000000000000000000000000000000",
		"01",
		"2f5c64059db55ee0fb847ed513003746aca4e61c711b5de2e7a77ffd02da42feec601910d3467bb8b36ebbaebce5fba30d36c95f48a3e7980f0e7ac299332a80cdc46ae475563de037001ef84ae21744",
	},
	{
		"C.1 number 14: 4 octets of plaintext, 12 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"02000000",
		"010000000000000000000000",
		"a8fe3e8707eb1f84fb28f8cb73de8e99e2f48a14",
	},
	{
		"C.1 number 15: 20 octets of plaintext, 18 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"0300000000000000000000000000000004000000",
		"010000000000000000000000000000000200",
		"6bb0fecf5ded9b77f902c7d5da236a4391dd029724afc9805e976f451e6d87f6fe106514",
	},
	{
		"C.1 number 16: 18 octets of plaintext, 20 of associated data",
		"01000000000000000000000000000000", "030000000000000000000000",
		"030000000000000000000000000000000400",
		"0100000000000000000000000000000002000000",
		"44d0aaf6fb2f1f34add5e8064e83e12a2adabff9b2ef00fb47920cc72a0c0f13b9fd",
	},
	{
		"C.1 number 17: 0 octets of plaintext, 0 of associated data",
		"e66021d5eb8e4f4066d4adb9c33560e4", "f46e44bb3da0015c94f70887",
		"",
		"",
		"a4194b79071b01a87d65f706e3949578",
	},
	{
		"C.1 number 18: 3 octets of plaintext, 5 of associated data",
		"36864200e0eaf5284d884a0e77d31646", "bae8e37fc83441b16034566b",
		"7a806c",
		"46bb91c3c5",
		"af60eb711bd85bc1e4d3e0a462e074eea428a8",
	},
	{
		"C.1 number 19: 6 octets of plaintext, 10 of associated data",
		"aedb64a6c590bc84d1a5e269e4b47801", "afc0577e34699b9e671fdd4f",
		"bdc66f146545",
		"fc880c94a95198874296",
		"bb93a3e34d3cd6a9c45545cfc11f03ad743dba20f966",
	},
	{
		"C.1 number 20: 9 octets of plaintext, 15 of associated data",
		"d5cc1fd161320b6920ce07787f86743b", "275d1ab32f6d1f0434d8848c",
		"1177441f195495860f",
		"046787f3ea22c127aaf195d1894728",
		"4f37281f7ad12949d01d02fd0cd174c84fc5dae2f60f52fd2b",
	},
	{
		"C.1 number 21: 12 octets of plaintext, 20 of associated data",
		"b3fed1473c528b8426a582995929a149", "9e9ad8780c8d63d0ab4149c0",
		"9f572c614b4745914474e7c7",
		"c9882e5386fd9f92ec489c8fde2be2cf97e74e93",
		"f54673c5ddf710c745641c8bc1dc2f871fb7561da1286e655e24b7b0",
	},
	{
		"C.1 number 22: 15 octets of plaintext, 25 of associated data",
		"2d4ed87da44102952ef94b02b805249b", "ac80e6f61455bfac8308a2d4",
		"0d8c8451178082355c9e940fea2f58",
		"2950a70d5a1db2316fd568378da107b52b0da55210cc1c1b0a",
		"c9ff545e07b88a015f05b274540aa183b3449b9f39552de99dc214a1190b0b",
	},
	{
		"C.1 number 23: 18 octets of plaintext, 30 of associated data",
		"bde3b2f204d1e9f8b06bc47f9745b3d1", "ae06556fb6aa7890bebc18fe",
		"6b3db4da3d57aa94842b9803a96e07fb6de7",
		"1860f762ebfbd08284e421702de0de18baa9c9596291b08466f37de21c7f",
		"6298b296e24e8cc35dce0bed484b7f30d5803e377094f04709f64d7b985310a4db84",
	},
	{
		"C.1 number 24: 21 octets of plaintext, 35 of associated data",
		"f901cfe8a69615a93fdf7a98cad48179", "6245709fb18853f68d833640",
		"e42a3c02c25b64869e146d7b233987bddfc240871d",
		"7576f7028ec6eb5ea7e298342a94d4b202b370ef9768ec6561c4fe6b7e7296fa859c21",
		"391cc328d484a4f46406181bcd62efd9b3ee197d052d15506c84a9edd65e13e9d24a2a6e70",
	},
	{
		"C.3 number 1: 32 octets of plaintext, 0 of associated data",
		"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
		"000000000000000000000000000000004db923dc793ee6497c76dcc03a98e108",
		"",
		"f3f80f2cf0cb2dd9c5984fcda908456cc537703b5ba70324a6793a7bf218d3eaffffffff000000000000000000000000",
	},
	{
		"C.3 number 2: 24 octets of plaintext, 0 of associated data",
		"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
		"eb3640277c7ffd1303c7a542d02d3e4c0000000000000000",
		"",
		"18ce4f0b8cb4d0cac65fea8f79257b20888e53e72299e56dffffffff000000000000000000000000",
	},
}

// sealWith is Seal with a key of 16 or 32 octets.
func sealWith(b *Box, key, nonce, plaintext, ad []byte) []byte {
	s := &state{asm: b.hidden().asm}
	s.main.expand(s.asm, key)
	var g gcm
	g.start(s, len(key), nonce)
	return g.seal(nil, plaintext, ad)
}

func TestVectorsOfRFC8452(t *testing.T) {
	for _, v := range gcmVectors {
		key, nonce, plaintext, ad, want := unhex(t, v.key), unhex(t, v.nonce), unhex(t, v.plaintext), unhex(t, v.ad), unhex(t, v.sealed)
		checkOracle(t, tinkBox(t, key), nonce, plaintext, ad, want)
		for end, b := range boxes(t, GCMSIV128, make([]byte, 16)) {
			t.Run(v.name+", "+end, func(t *testing.T) {
				if got := sealWith(b, key, nonce, plaintext, ad); !bytes.Equal(got, want) {
					t.Fatalf("sealed %x, want %x", got, want)
				}
				if len(key) == 16 {
					if err := b.Reset(GCMSIV128, key); err != nil {
						t.Fatal(err)
					}
					checkBox(t, end, b, nonce, plaintext, ad, want, 0)
				}
			})
		}
	}
}

// TestPolyvalOfRFC8452 has the example of appendix A.
func TestPolyvalOfRFC8452(t *testing.T) {
	h := [16]byte(unhex(t, "25629347589242761d31f826ba4b757b"))
	x := unhex(t, "4f4f95668c83dfb6401762bb2d01a262d1a24ddd2721d006bbe45f20d3c9f362")
	want := unhex(t, "f7a3b47b846119fae5b7866cf5e5b77e")
	for _, asm := range backEnds() {
		var acc [16]byte
		polyval(asm, &acc, &h, x)
		if !bytes.Equal(acc[:], want) {
			t.Errorf("assembly %t: %x, want %x", asm, acc, want)
		}
	}
}

// tinkBox is somebody else's AES-GCM-SIV. It chooses nonces itself and puts them before what it seals.
func tinkBox(t testing.TB, key []byte) tink.AEAD {
	t.Helper()
	a, err := subtle.NewAESGCMSIV(key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// checkOracle has the oracle open what was sealed. For a key and a nonce there is one seal only that it opens.
func checkOracle(t testing.TB, a tink.AEAD, nonce, plaintext, ad, sealed []byte) {
	t.Helper()
	got, err := a.Decrypt(slices.Concat(nonce, sealed), ad)
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("nonce %x plaintext %x ad %x sealed %x: the oracle opens %x, %v", nonce, plaintext, ad, sealed, got, err)
	}
}

func TestGCMSIVAgreesWithAnOracle(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{5})
	size := rand.New(rnd)
	octets := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rnd.Read(b)
		return b
	}
	for range 2000 {
		key, nonce, plaintext, ad := octets(16), octets(12), octets(size.IntN(300)), octets(size.IntN(300))
		a := tinkBox(t, key)
		theirs, err := a.Encrypt(plaintext, ad)
		if err != nil {
			t.Fatal(err)
		}
		for end, b := range boxes(t, GCMSIV128, key) {
			sealed := b.Seal(nil, nonce, plaintext, ad)
			checkOracle(t, a, nonce, plaintext, ad, sealed)
			checkBox(t, end, b, nonce, plaintext, ad, sealed, size.Uint())
			checkBox(t, end, b, theirs[:12], plaintext, ad, theirs[12:], size.Uint())
		}
	}
}

func TestOnlyANonceOf12OctetsIsOneOfGCMSIV(t *testing.T) {
	for end, b := range boxes(t, GCMSIV128, make([]byte, 16)) {
		for n := range 33 {
			_, err := b.Open(nil, make([]byte, n), make([]byte, 40), nil)
			if err != ErrOpen {
				t.Errorf("%s: opened with a nonce of %d octets: %v", end, n, err)
			}
			panicked := func() (p bool) {
				defer func() { p = recover() != nil }()
				b.Seal(nil, make([]byte, n), nil, nil)
				return
			}()
			if panicked != (n != GCMSIV128.NonceLen()) {
				t.Errorf("%s: seal with a nonce of %d octets panics: %t", end, n, panicked)
			}
		}
	}
}

func FuzzGCMSIV(f *testing.F) {
	f.Add(make([]byte, 16), make([]byte, 12), []byte("plaintext"), []byte("associated data"), uint(9))
	f.Add(make([]byte, 16), make([]byte, 12), make([]byte, 200), []byte{}, uint(0))
	f.Add(bytes.Repeat([]byte{0xff}, 16), bytes.Repeat([]byte{0xff}, 12), make([]byte, 16), make([]byte, 16), uint(200))
	f.Fuzz(func(t *testing.T, key, nonce, plaintext, ad []byte, bit uint) {
		if len(key) != 16 || len(nonce) != 12 || len(plaintext)+len(ad) > 2000 {
			return
		}
		a := tinkBox(t, key)
		for end, b := range boxes(t, GCMSIV128, key) {
			sealed := b.Seal(nil, nonce, plaintext, ad)
			checkOracle(t, a, nonce, plaintext, ad, sealed)
			checkBox(t, end, b, nonce, plaintext, ad, sealed, bit)
		}
	})
}
