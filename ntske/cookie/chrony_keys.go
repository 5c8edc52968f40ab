package cookie

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"ntsagent/ntske/aead"
)

// ParseKeys reads a whole key file of chronyd, strictly:
//
//	NKS0         NKS1
//	15 AGE       AGE
//	ID KEY       ID KEY AEAD    four of these, oldest first; the third is current
//
// AGE is decimal seconds, ID 8 hex digits, AEAD 15 with a KEY of 64 hex digits or 30 with a KEY of 32; one
// space between words, a line feed after every line. Rows may differ in AEAD. The ids of two lines that follow each other must differ by 1 modulo 4. What chronyd would take
// and this does not (fewer digits, more spaces) no chronyd writes. Errors tell the line and no key.
func (Chrony) ParseKeys(file []byte) (*Ring, error) {
	lines, err := chronyLines(file)
	if err != nil {
		return nil, err
	}
	version := string(lines[0])
	if version != "NKS0" && version != "NKS1" {
		return nil, keysError(0, "is neither NKS0 nor NKS1")
	}
	if len(lines) != 2+chronyKeys {
		return nil, fmt.Errorf("chrony key file has %d lines; it must have %d", len(lines), 2+chronyKeys)
	}
	if version == "NKS1" {
		if !isSeconds(lines[1]) {
			return nil, keysError(1, "is not an age in decimal seconds")
		}
	} else {
		alg, age, _ := bytes.Cut(lines[1], []byte(" "))
		if !isSeconds(age) {
			return nil, keysError(1, "is not an AEAD number and an age in decimal seconds")
		}
		// No chronyd that writes NKS0 has another.
		if string(alg) != "15" {
			return nil, keysError(1, "does not start with 15, the only AEAD number of this format")
		}
	}

	var keys []*Key
	for n := 2; n < len(lines); n++ {
		row := bytes.Split(lines[n], []byte(" "))
		alg := aead.SIVCMAC256
		if version == "NKS1" {
			if len(row) != 3 {
				return nil, keysError(n, "is not ID KEY AEAD")
			}
			switch string(row[2]) {
			case "15":
			case "30":
				alg = aead.GCMSIV128
			default:
				return nil, keysError(n, "does not hold a known AEAD number")
			}
		} else if len(row) != 2 {
			return nil, keysError(n, "is not ID KEY")
		}
		k, err := chronyRow(n, row[0], row[1], alg)
		if err != nil {
			return nil, err
		}
		if len(keys) > 0 && !chronyFollows(keys[len(keys)-1].id, k.id) {
			return nil, keysError(n, fmt.Sprintf("has the id %08X, which does not follow %08X modulo %d",
				k.id, keys[len(keys)-1].id, chronyKeys))
		}
		keys = append(keys, k)
	}
	return NewRing(keys, chronyCurrent)
}

// chronyLines splits a file into at least one line, without the line feeds, of which none may be missing.
func chronyLines(file []byte) ([][]byte, error) {
	body, ok := bytes.CutSuffix(file, []byte("\n"))
	lines := bytes.Split(body, []byte("\n"))
	switch {
	case len(file) == 0:
		return nil, errors.New("chrony key file is empty")
	case !ok:
		return nil, keysError(len(lines)-1, "does not end with a line feed; the file may be cut off")
	}
	for n, l := range lines {
		if bytes.IndexByte(l, '\r') >= 0 {
			return nil, keysError(n, "holds a carriage return; chronyd wants line feeds only")
		}
	}
	return lines, nil
}

// AppendKeys appends r as a key file: as NKS0, which every chronyd from 4.0 on reads, or, if a key is not of
// AES-SIV-CMAC-256, as NKS1, which is read from 4.4 on. r must come from ParseKeys, NewRing or Next: another
// ring becomes a file that ParseKeys and chronyd refuse.
func (Chrony) AppendKeys(dst []byte, r *Ring) []byte {
	if !slices.ContainsFunc(r.keys, func(k *Key) bool { return k.alg != aead.SIVCMAC256 }) {
		dst = append(dst, "NKS0\n15 0.0\n"...)
		for _, k := range r.keys {
			dst = fmt.Appendf(dst, "%08X %X\n", k.id, k.secret().octets)
		}
		return dst
	}
	dst = append(dst, "NKS1\n0.0\n"...)
	for _, k := range r.keys {
		dst = fmt.Appendf(dst, "%08X %X %d\n", k.id, k.secret().octets, uint16(k.alg))
	}
	return dst
}

// keysError speaks of line n, counted from 0. problem must hold nothing of a key.
func keysError(n int, problem string) error {
	return fmt.Errorf("chrony key file: line %d %s", n+1, problem)
}

func chronyRow(n int, id, octets []byte, alg aead.ID) (*Key, error) {
	number, err := strconv.ParseUint(string(id), 16, 32)
	if err != nil || len(id) != 8 {
		return nil, keysError(n, "does not start with an id of 8 hex digits")
	}
	var room [32]byte
	defer clear(room[:])
	b := room[:alg.KeyLen()]
	if len(octets) != hex.EncodedLen(len(b)) {
		return nil, keysError(n, fmt.Sprintf("has a key of %d characters, not %d", len(octets), hex.EncodedLen(len(b))))
	}
	if _, err := hex.Decode(b, octets); err != nil {
		return nil, keysError(n, "has a key that is not hex") // not err: it quotes a character of the key
	}
	return NewKey(uint32(number), alg, b)
}

// isSeconds reports whether b is a decimal number without sign or exponent.
func isSeconds(b []byte) bool {
	whole, fraction, dot := bytes.Cut(b, []byte("."))
	return isDigits(whole) && (!dot || isDigits(fraction)) && len(b) <= 24
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}
