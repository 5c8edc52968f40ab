package gateway

import (
	"errors"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
)

// arrival is a datagram that came in.
type arrival struct {
	datagram []byte
	t2       int64   // stamp of the kernel, ns since the Unix epoch
	seen     Instant // not long ago
	lead     int64   // ns from reading the transmit timestamp to the wire, as far as it is known
}

// answerer holds the memory to answer one request at a time, so that none is allocated. What it answers
// depends on nothing but what answer is handed, and on the nonces.
type answerer struct {
	format cookie.Chrony // its layout, so that moving to chronyd keeps cookies valid
	plain  bool          // answer plain NTP
	clock  func() Instant
	// relay is asked, if not nil, for the State to answer from once a request is known to deserve an answer. It
	// gets the one at hand.
	relay  func(*State) (*State, Outcome)
	nonces nonces

	c2s, s2c aead.Box
	open     packet.Open // c2s.Open and s2c.Seal: a method value made for each packet would be an allocation
	seal     packet.Seal

	session [cookie.MaxCookie]byte // the keys from a cookie
	fresh   [cookie.MaxCookie]byte // a cookie that is being made
	text    [maxDatagram]byte      // what the client encrypted
}

// maxDatagram is the longest request, in octets: 8 cookies of any daemon, and then some.
const maxDatagram = 2048

func newAnswerer(plain bool, clock func() Instant) *answerer {
	a := &answerer{plain: plain, clock: clock}
	a.open, a.seal = a.c2s.Open, a.s2c.Seal
	return a
}

// answer appends the response to dst and says what became of the request. Nothing is appended if the Outcome
// is silent, and never more than the datagram has octets. ring or state may be nil.
func (a *answerer) answer(dst []byte, in arrival, ring *cookie.Ring, state *State) ([]byte, Outcome) {
	r, err := packet.ParseRequest(in.datagram)
	if err != nil {
		return dst, refused(err)
	}
	if r.NTS() {
		return a.answerNTS(dst, &r, in, ring, state)
	}
	if marked(&r.Header) {
		return dst, SilentGateway
	}
	if !a.plain {
		return dst, SilentPlain
	}
	state, _, outcome := a.latest(state, in.seen)
	if outcome != Served {
		return dst, outcome
	}
	h, outcome := state.respond(&r.Header, in.t2, state.read(a.clock), in.lead)
	if outcome != Served {
		return dst, outcome
	}
	return r.AppendPlain(dst, h), ServedPlain
}

func (a *answerer) answerNTS(dst []byte, r *packet.Request, in arrival, ring *cookie.Ring, state *State) ([]byte, Outcome) {
	if ring == nil {
		return dst, SilentKeys
	}
	session, err := a.format.Open(a.session[:0], ring, r.Cookie)
	if errors.Is(err, cookie.ErrUnknownKey) {
		return r.AppendNAK(dst), NAKKey
	}
	if err != nil || a.c2s.Reset(session.AEAD, session.C2S) != nil {
		return r.AppendNAK(dst), NAKCookie
	}
	length := session.AEAD.NonceLen() // N_REQ of RFC 8915 §5.6, too
	cookies, err := r.Verify(a.text[:0], length, a.open)
	switch {
	case err == packet.NotAuthentic:
		return r.AppendNAK(dst), NAKRequest
	case err != nil:
		return dst, refused(err)
	}
	state, seen, outcome := a.latest(state, in.seen)
	if outcome != Served {
		return dst, outcome
	}
	// A look before the work; what counts is the one with the clock read last.
	if c := state.Condition(seen); c >= Uncertain {
		_, outcome := state.respond(&r.Header, in.t2, seen, in.lead)
		return dst, outcome
	}
	if a.s2c.Reset(session.AEAD, session.S2C) != nil {
		return r.AppendNAK(dst), NAKCookie
	}
	key := ring.Current()
	response := r.Respond(dst, a.nonces.take(length))
	for range cookies {
		fresh, err := a.format.Seal(a.fresh[:0], key, a.nonces.take(a.format.NonceLen(key)), &session)
		if err != nil || !response.AddCookie(fresh) {
			break
		}
	}
	h, outcome := state.respond(&r.Header, in.t2, state.read(a.clock), in.lead)
	if outcome != Served {
		return dst, outcome
	}
	out := response.Finish(h, a.seal)
	if len(out) == len(dst) {
		return dst, SilentRoom
	}
	return out, Served
}

// latest returns the State to answer from, and an instant not long ago and not before it. If the Outcome is not
// Served there is none.
func (a *answerer) latest(s *State, seen Instant) (*State, Instant, Outcome) {
	if a.relay == nil {
		return s, seen, Served
	}
	s, outcome := a.relay(s)
	if outcome == Served && s != nil && s.at.Mono > seen.Mono {
		seen = s.at
	}
	return s, seen, outcome
}

// refused turns the error of package packet into the outcome.
func refused(err error) Outcome {
	if r, ok := err.(packet.Refusal); ok {
		return Refused + Outcome(r)
	}
	return Refused
}
