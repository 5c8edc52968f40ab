package cookie

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"

	"ntsagent/ntske/aead"
)

// ParseKeys reads a whole key file of chronyd, strictly:
//
//	NKS0         NKS1
//	15 AGE       AGE
//	ID KEY       ID KEY 15      four of these, oldest first; the third is current
//
// AGE is decimal seconds, ID 8 hex digits, KEY 64 hex digits; one space between words, a line feed after
// every line. The ids of two lines that follow each other must differ by 1 modulo 4. What chronyd would take
// and this does not (fewer digits, more spaces) no chronyd writes. Errors tell the line and no key.
func (f Chrony) ParseKeys(file []byte) (*Ring, error) {
	lines := bytes.SplitAfter(file, []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1] // what follows the last line feed
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("chrony key file is empty")
	}
	for i, l := range lines {
		switch {
		case l[len(l)-1] != '\n':
			return nil, keysError(i, "has no line feed; the file may be cut off")
		case bytes.IndexByte(l, '\r') >= 0:
			return nil, keysError(i, "has a carriage return; chronyd wants line feeds only")
		}
		lines[i] = l[:len(l)-1]
	}
	version := string(lines[0])
	if version != "NKS0" && version != "NKS1" {
		return nil, keysError(0, "is neither NKS0 nor NKS1")
	}
	if len(lines) != 2+chronyKeys {
		return nil, fmt.Errorf("chrony key file has %d lines; it must have %d", len(lines), 2+chronyKeys)
	}

	age := lines[1]
	suffix := ""
	if version == "NKS0" {
		alg, rest, ok := bytes.Cut(age, []byte(" "))
		if !ok {
			return nil, keysError(1, "is not an AEAD number and an age")
		}
		if err := chronyAlgorithm(1, alg); err != nil {
			return nil, err
		}
		age = rest
	} else {
		suffix = " AEAD"
	}
	if !isSeconds(age) {
		return nil, keysError(1, "does not hold an age in decimal seconds")
	}

	var keys []*Key
	for i, line := range lines[2:] {
		n := i + 2
		words := bytes.Split(line, []byte(" "))
		if suffix != "" && len(words) == 3 {
			if err := chronyAlgorithm(n, words[2]); err != nil {
				return nil, err
			}
			words = words[:2]
		} else if suffix != "" || len(words) != 2 {
			return nil, keysError(n, "is not ID KEY"+suffix)
		}
		k, err := chronyRow(n, words[0], words[1])
		if err != nil {
			return nil, err
		}
		if i > 0 && !chronyFollows(keys[i-1].id, k.id) {
			return nil, keysError(n, fmt.Sprintf("id %08X does not follow %08X modulo 4", k.id, keys[i-1].id))
		}
		keys = append(keys, k)
	}
	return NewRing(keys, chronyCurrent)
}

// keysError speaks of line n, counted from 0. problem must hold nothing of a key.
func keysError(n int, problem string) error {
	return fmt.Errorf("chrony key file: line %d %s", n+1, problem)
}

func chronyAlgorithm(n int, word []byte) error {
	switch string(word) {
	case "15":
		return nil
	case "30":
		return keysError(n, "has a key of "+aead.GCMSIV128.String()+", which is not supported yet")
	default:
		return keysError(n, "does not hold a known AEAD number")
	}
}

func chronyRow(n int, id, octets []byte) (*Key, error) {
	number, err := strconv.ParseUint(string(id), 16, 32)
	if err != nil || len(id) != 8 {
		return nil, keysError(n, "does not start with an id of 8 hex digits")
	}
	var b [32]byte
	defer clear(b[:])
	if len(octets) != hex.EncodedLen(len(b)) {
		return nil, keysError(n, fmt.Sprintf("has a key of %d characters, not %d", len(octets), hex.EncodedLen(len(b))))
	}
	if _, err := hex.Decode(b[:], octets); err != nil {
		return nil, keysError(n, "has a key that is not hex") // not err: it quotes a character of the key
	}
	return NewKey(uint32(number), aead.SIVCMAC256, b[:])
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
