package gateway

import "ntsagent/ntske/packet"

// Outcome is what became of a datagram.
type Outcome uint8

// What was sent, and why nothing was. Refused plus a packet.Refusal stands for a malformed request.
const (
	Served          Outcome = iota // with time, under NTS
	ServedPlain                    // with time, without NTS
	NAKKey                         // with an NTS NAK: the cookie names a key that the ring does not hold
	NAKCookie                      // with an NTS NAK: the cookie is none of this server
	NAKRequest                     // with an NTS NAK: the request is not sealed with the key in its cookie
	SilentPlain                    // plain NTP is not answered here
	SilentKeys                     // there are no cookie keys yet
	SilentStale                    // the daemon has not answered
	SilentUncertain                // the daemon's time is not known well enough
	SilentStep                     // the clock was stepped
	SilentLate                     // the request waited too long, or the clock was stepped ahead meanwhile
	SilentRoom                     // no cookie fits into a response that is no longer than the request: only if the keys went from AEAD 30 back to 15
	SilentRate                     // the daemon, asked for this request, says that it is asked too often
	SilentLimit                    // its prefix asks too often
	SilentLong                     // longer than any request
	SilentGateway                  // a gateway asks: two that mirror each other would keep a time alive that nobody has
	Unsent                         // counted besides the outcome of the request: the system did not take the response
	Asked                          // counted besides the outcomes of requests: the daemon was asked for a batch of them
	Refused                        // + packet.Refusal

	outcomes = int(Refused) + int(packet.BadEncrypted) + 1
)

var outcomeText = [Refused]string{
	"served", "served plain", "NAK: unknown key", "NAK: not a cookie", "NAK: not authentic", "plain NTP is off", "no cookie keys",
	"daemon silent", "time uncertain", "clock stepped", "too late", "no room for a cookie", "daemon limits our rate", "too many requests", "too long", "asked by a gateway", "not sent", "daemon asked",
}

// String says it in words.
func (o Outcome) String() string {
	if o < Refused {
		return outcomeText[o]
	}
	return packet.Refusal(o - Refused).Error()
}

// Silent reports whether nothing was sent.
func (o Outcome) Silent() bool { return o > NAKRequest }
