package load

import (
	"bytes"
	"errors"

	"ntsagent/ntske/packet"
)

var (
	errServed = errors.New("reply is none of a server that does not know the cookie's key")
	errKiss   = errors.New("NTS NAK has more than a header and the unique identifier, or a header that tells the time")
)

// stranger asks as nts does, but with a cookie under a key that the server does not have: one good cookie, of
// which only the name of the key is changed. An NTS NAK is the good answer (RFC 8915 §5.7).
type stranger struct {
	*nts
	coin coin
}

// newStranger takes one cookie out of the purse.
func newStranger(d *nts) stranger {
	c := d.purse[0]
	c.cookie = bytes.Clone(c.cookie)
	c.cookie[0] ^= 0x80 // the highest bit of the key's id: daemons number their keys one after the other
	return stranger{d, c}
}

func (s stranger) reserve(i int) bool {
	s.queries[i].coin = s.coin
	return true
}

// nakLen is the length of an NTS NAK: a header and a unique identifier of 32 octets.
const nakLen = packet.HeaderLen + 4 + 32

func (s stranger) judge(i int, asked, reply []byte) (t2, t3 packet.Timestamp, err error) {
	q := &s.queries[i]
	if len(reply) > len(asked) {
		return 0, 0, errLonger
	}
	h, _, err := packet.ParseNTSResponse(reply, q.uid[:], q.coin.of.open)
	switch {
	case err == nil:
		return 0, 0, errServed
	case !errors.Is(err, packet.ErrNAK):
		return 0, 0, err
	case h.Origin != q.transmit:
		return 0, 0, errOrigin
	case len(reply) != nakLen || h.Leap != 3:
		return 0, 0, errKiss
	}
	return 0, 0, nil
}
