package config

import (
	"strings"
	"testing"
)

// A label of punycode that decodes to ASCII, or to what is written otherwise, made two names of one. Names are compared as
// A-labels, and there is only one way to write each.
func TestCVE_2026_39821_PunycodeThatIsNotWhatItDecodesTo(t *testing.T) {
	for _, name := range []string{
		"xn--alice-.pool.example",                     // alice
		"XN--ALICE-.pool.example",                     // the same
		"xn--.pool.example",                           // nothing
		"xn---.pool.example",                          // nothing, too
		"xn--a.pool.example",                          // no code point is that small
		"xn--bcher-kva-.pool.example",                 // not minimal
		"xn--xn--bcher-kva-.pool.example",             // a label of a label
		"alice.xn--pool-.example",                     // not only in the first label
		"xn--99999999999999.pool.example",             // overflows
		"ali\u00adce.xn--pool-.example",               // one disappears, the other is ASCII
		"xn--alice.xn--.pool.example",                 // two at once
		"\uff58\uff4e--alice-.pool.example",           // wide letters
		"xn--\u00fc.pool.example",                     // punycode of what is none
		"alice.pool.xn--example-",                     // the last
		"xn--alice-.xn--bcher-kva.example",            // beside a good one
		"xn--" + strings.Repeat("a", 60) + ".example", // too long
	} {
		if n, err := parseName(name); err == nil {
			t.Errorf("%q was taken for %v", name, n)
		}
	}
}
