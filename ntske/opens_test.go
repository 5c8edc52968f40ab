package ntske

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
)

// A daemon that is followed opens more than one algorithm, and is known to only
// once it has been asked.
func TestWhatTheDaemonHasShownToOpenIsOfferedAndSealedInItsFormat(t *testing.T) {
	long, err := cookie.NewKey(7, aead.SIVCMAC512, bytes.Repeat([]byte{9}, 64))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := cookie.NewRing([]*cookie.Key{long}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []cookie.Format{cookie.NTPsec{}, cookie.NTPDRS{}} {
		var shown atomic.Pointer[[]aead.ID]
		l := newLab(t, labTime, func(c *Config) {
			c.Format, c.Ring = format, func(context.Context) *cookie.Ring { return ring }
			c.Opens = func() []aead.ID { return *shown.Load() }
		})
		for _, tt := range []struct {
			shown []aead.ID
			want  aead.ID
		}{
			{[]aead.ID{15}, 15},
			{[]aead.ID{15, 17}, 17},
			{[]aead.ID{15}, 15}, // and no longer
		} {
			shown.Store(&tt.shown)
			s := l.open(t)
			s.Write(join(nextNTPv4, rec(4, 0, 17, 0, 15), end))
			all := fields(t, s.rest(t))
			if b := bodies(all, 4); len(b) != 1 || len(b[0]) != 2 || binary.BigEndian.Uint16(b[0]) != uint16(tt.want) {
				t.Fatalf("%T has shown %v: answered % x, want %v", format, tt.shown, b, tt.want)
			}
			c2s, s2c := exported(t, s.Conn, tt.want, tt.want.KeyLen())
			for _, c := range bodies(all, 5) {
				got, err := format.Open(nil, ring, c)
				if err != nil || got.AEAD != tt.want || !bytes.Equal(got.C2S, c2s) || !bytes.Equal(got.S2C, s2c) {
					t.Errorf("%T, %v: the cookie does not carry the session: %v", format, tt.want, err)
				}
			}
		}
	}
}

func TestAServerThatKnowsNoFormatIsRefused(t *testing.T) {
	if _, err := New(Config{Ring: func(context.Context) *cookie.Ring { return nil }}); err == nil {
		t.Error("accepted")
	}
}
