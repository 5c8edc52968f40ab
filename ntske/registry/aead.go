package registry

// Algorithm is an AEAD algorithm of the IANA registry (RFC 5116 §6), as NTS-KE negotiates it (RFC 8915 §4.1.5).
type Algorithm struct {
	Number    uint16
	Name      string
	Reference string
	KeyLen    int // octets; 0 for a private number
	NonceMin  int // octets
	NonceMax  int // octets; 0 = no limit
	Private   bool
}

// AEAD returns the algorithm of a number; false if it is not registered. A private number, from 32768 on, is
// known by no more than that.
func AEAD(id uint16) (Algorithm, bool) {
	if id >= 0x8000 {
		return Algorithm{Number: id, Name: PrivateUse, Reference: "RFC 5116 §6", Private: true}, true
	}
	for _, a := range algorithms {
		if a.Number == id {
			return a, true
		}
	}
	return Algorithm{}, false
}

const aegis = "draft-irtf-cfrg-aegis-aead"

var algorithms = []Algorithm{
	{Number: 1, Name: "AEAD_AES_128_GCM", Reference: "RFC 5116 §5.1", KeyLen: 16, NonceMin: 12, NonceMax: 12},
	{Number: 2, Name: "AEAD_AES_256_GCM", Reference: "RFC 5116 §5.2", KeyLen: 32, NonceMin: 12, NonceMax: 12},
	{Number: 3, Name: "AEAD_AES_128_CCM", Reference: "RFC 5116 §5.3", KeyLen: 16, NonceMin: 12, NonceMax: 12},
	{Number: 4, Name: "AEAD_AES_256_CCM", Reference: "RFC 5116 §5.4", KeyLen: 32, NonceMin: 12, NonceMax: 12},
	{Number: 5, Name: "AEAD_AES_128_GCM_8", Reference: "RFC 5282", KeyLen: 16, NonceMin: 12, NonceMax: 12},
	{Number: 6, Name: "AEAD_AES_256_GCM_8", Reference: "RFC 5282", KeyLen: 32, NonceMin: 12, NonceMax: 12},
	{Number: 7, Name: "AEAD_AES_128_GCM_12", Reference: "RFC 5282", KeyLen: 16, NonceMin: 12, NonceMax: 12},
	{Number: 8, Name: "AEAD_AES_256_GCM_12", Reference: "RFC 5282", KeyLen: 32, NonceMin: 12, NonceMax: 12},
	{Number: 9, Name: "AEAD_AES_128_CCM_SHORT", Reference: "RFC 5282", KeyLen: 16, NonceMin: 11, NonceMax: 11},
	{Number: 10, Name: "AEAD_AES_256_CCM_SHORT", Reference: "RFC 5282", KeyLen: 32, NonceMin: 11, NonceMax: 11},
	{Number: 11, Name: "AEAD_AES_128_CCM_SHORT_8", Reference: "RFC 5282", KeyLen: 16, NonceMin: 11, NonceMax: 11},
	{Number: 12, Name: "AEAD_AES_256_CCM_SHORT_8", Reference: "RFC 5282", KeyLen: 32, NonceMin: 11, NonceMax: 11},
	{Number: 13, Name: "AEAD_AES_128_CCM_SHORT_12", Reference: "RFC 5282", KeyLen: 16, NonceMin: 11, NonceMax: 11},
	{Number: 14, Name: "AEAD_AES_256_CCM_SHORT_12", Reference: "RFC 5282", KeyLen: 32, NonceMin: 11, NonceMax: 11},
	{Number: 15, Name: "AEAD_AES_SIV_CMAC_256", Reference: "RFC 5297", KeyLen: 32, NonceMin: 1},
	{Number: 16, Name: "AEAD_AES_SIV_CMAC_384", Reference: "RFC 5297", KeyLen: 48, NonceMin: 1},
	{Number: 17, Name: "AEAD_AES_SIV_CMAC_512", Reference: "RFC 5297", KeyLen: 64, NonceMin: 1},
	{Number: 18, Name: "AEAD_AES_128_CCM_8", Reference: "RFC 6655", KeyLen: 16, NonceMin: 12, NonceMax: 12},
	{Number: 19, Name: "AEAD_AES_256_CCM_8", Reference: "RFC 6655", KeyLen: 32, NonceMin: 12, NonceMax: 12},
	{Number: 20, Name: "AEAD_AES_128_OCB_TAGLEN128", Reference: "RFC 7253 §3.1", KeyLen: 16, NonceMin: 1, NonceMax: 15},
	{Number: 21, Name: "AEAD_AES_128_OCB_TAGLEN96", Reference: "RFC 7253 §3.1", KeyLen: 16, NonceMin: 1, NonceMax: 15},
	{Number: 22, Name: "AEAD_AES_128_OCB_TAGLEN64", Reference: "RFC 7253 §3.1", KeyLen: 16, NonceMin: 1, NonceMax: 15},
	{Number: 23, Name: "AEAD_AES_192_OCB_TAGLEN128", Reference: "RFC 7253 §3.1", KeyLen: 24, NonceMin: 1, NonceMax: 15},
	{Number: 24, Name: "AEAD_AES_192_OCB_TAGLEN96", Reference: "RFC 7253 §3.1", KeyLen: 24, NonceMin: 1, NonceMax: 15},
	{Number: 25, Name: "AEAD_AES_192_OCB_TAGLEN64", Reference: "RFC 7253 §3.1", KeyLen: 24, NonceMin: 1, NonceMax: 15},
	{Number: 26, Name: "AEAD_AES_256_OCB_TAGLEN128", Reference: "RFC 7253 §3.1", KeyLen: 32, NonceMin: 1, NonceMax: 15},
	{Number: 27, Name: "AEAD_AES_256_OCB_TAGLEN96", Reference: "RFC 7253 §3.1", KeyLen: 32, NonceMin: 1, NonceMax: 15},
	{Number: 28, Name: "AEAD_AES_256_OCB_TAGLEN64", Reference: "RFC 7253 §3.1", KeyLen: 32, NonceMin: 1, NonceMax: 15},
	{Number: 29, Name: "AEAD_CHACHA20_POLY1305", Reference: "RFC 8439", KeyLen: 32, NonceMin: 12, NonceMax: 12},
	{Number: 30, Name: "AEAD_AES_128_GCM_SIV", Reference: "RFC 8452", KeyLen: 16, NonceMin: 12, NonceMax: 12},
	{Number: 31, Name: "AEAD_AES_256_GCM_SIV", Reference: "RFC 8452", KeyLen: 32, NonceMin: 12, NonceMax: 12},
	{Number: 32, Name: "AEAD_AEGIS128L", Reference: aegis, KeyLen: 16, NonceMin: 16, NonceMax: 16},
	{Number: 33, Name: "AEAD_AEGIS256", Reference: aegis, KeyLen: 32, NonceMin: 32, NonceMax: 32},
}
