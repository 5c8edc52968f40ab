package tcp

// Event is one thing that happened to a connection, for counters.
type Event struct {
	Kind     Kind
	Class    Class  // of HandshakeFailed, else 0
	Protocol string // of Dispatched: a name from Config.Services, never the peer's text
}

// Kind says what happened.
type Kind uint8

// The kinds. Every connection that is not NotAllowed is Accepted first and then either Dispatched,
// HandshakeFailed or NoALPN; Evicted may befall it at any time.
const (
	Accepted        Kind = iota + 1
	AcceptFailed         // the system gave no connection: descriptors, memory
	HandshakeFailed      // see Class
	NoALPN               // the handshake ended with a protocol nobody serves
	Dispatched           // a Service has it
	Evicted              // closed to make room for a newer one
	Panicked             // its Service panicked
	NotAllowed           // closed at once: Config.Allow says no
)

var kinds = [...]string{"unknown", "accepted", "accept failed", "handshake failed", "no alpn", "dispatched", "evicted", "panicked", "not allowed"}

// String returns a stable lower-case name.
func (k Kind) String() string { return name(kinds[:], int(k)) }

// Class says why a handshake failed.
type Class uint8

// The classes of failed handshakes.
const (
	TimedOut   Class = iota + 1 // the deadline passed first
	PeerGone                    // closed or reset, evictions included
	NotTLS                      // the first octets are no TLS record
	OldVersion                  // TLS 1.3 is not among the versions offered
	NoProtocol                  // no ALPN, or none that is served
	PeerAlert                   // the peer refused us, such as for our certificate
	Refused                     // we refused: no certificate for that name, a malformed handshake
)

var classes = [...]string{"none", "timeout", "peer gone", "not tls", "old version", "no protocol", "peer alert", "refused"}

// String returns a stable lower-case name.
func (c Class) String() string { return name(classes[:], int(c)) }

func name(names []string, i int) string {
	if i >= len(names) {
		i = 0
	}
	return names[i]
}

// Classes lists all classes, for counters.
func Classes() []Class {
	all := make([]Class, 0, len(classes)-1)
	for c := TimedOut; int(c) < len(classes); c++ {
		all = append(all, c)
	}
	return all
}
