// Package dnscheck asks the DNS, before a certificate is ordered and now and then between, what an order would come to: does the name still exist, does it
// lead to this host, and do its CAA records let our CA issue to our account.
//
// It is there for the pool's operator. A CA may reuse an authorization for weeks (RFC 8555 section 7.4), so a name that was
// taken out of the DNS would go on getting certificates if nobody but the CA looked. Look asks and gives an Observation;
// Judge makes a Verdict of it; Next holds it against what was seen before. Only Look does I/O. Nothing here validates DNSSEC.
package dnscheck

import (
	"net/netip"
	"time"

	"ntsagent/hostcheck"
)

// Result is what one server says of one record type.
type Result uint8

const (
	Failed Result = iota // no usable answer: SERVFAIL, REFUSED, silence, nonsense
	Found
	NoData // the name exists, but not this type (RFC 2308 section 2.2)
	NoName // NXDOMAIN
)

// Answer is what one server says of the addresses of one family.
type Answer struct {
	Result Result
	Addrs  []netip.Addr // of Found
	Why    string       // of Failed: a few words
}

func (a Answer) absent() bool { return a.Result == NoData || a.Result == NoName }

// Source is one server and what it says.
type Source struct {
	Server        string // a name server's host name, or a resolver's address
	Authoritative bool   // for the zone of the name; else a resolver
	A, AAAA       Answer

	// Of a resolver that sees what they do not: it knows of other authoritative servers than those that were asked, or of none.
	Dissents bool
}

// CAA is one CAA resource record (RFC 8659 section 4.1).
type CAA struct {
	Flags uint8
	Tag   string
	Value string // as it is on the wire
}

// CAASet is the relevant resource record set of a name (RFC 8659 section 3): that of the closest ancestor that has one.
type CAASet struct {
	Owner   string // without trailing dot; "" = no set, or Failed
	Records []CAA
	Failed  string // why it is not known; "" = it is
}

// Observation is what the DNS says of a name at one time.
type Observation struct {
	Name    hostcheck.Name
	Sources []Source
	CAA     CAASet
}

// Want is what the DNS should say.
type Want struct {
	Public     []netip.Addr // addresses the name should lead to; nil = those of Host, as far as that can be told
	Host       []netip.Addr // addresses of this host's interfaces
	Identities []string     // issuer domain names of the CA (RFC 8555 section 9.7.6, caaIdentities); nil = not known
	Account    string       // account URI at the CA; "" = there is none yet
	Methods    []string     // challenge types an order may use
}

// Finding is what an Observation comes to.
type Finding string

const (
	OK       Finding = "ok"
	Gone     Finding = "gone"     // neither A nor AAAA
	Mismatch Finding = "mismatch" // it leads to another host
	Denied   Finding = "denied"   // CAA lets our CA not issue it to us
	Unknown  Finding = "unknown"  // the DNS gave no answer that can be relied on
)

// Verdict is a Finding with its words.
type Verdict struct {
	Finding Finding
	Sources int    // of Gone: servers that say so
	Text    string // one line: what is the matter, or for OK what deserves a look; may be empty then
	Hint    string // one line: what to do
}

// Standing is where a name stands with the DNS.
type Standing string

const (
	Allowed   Standing = "" // nothing is known against it
	Missing   Standing = "missing"
	Withdrawn Standing = "withdrawn" // missing, and that has been confirmed
	Elsewhere Standing = "mismatch"
	Forbidden Standing = "denied"
	Unclear   Standing = "unknown"
)

// State is what is remembered of a name between checks, restarts included. The zero value is that of a name never checked.
type State struct {
	Standing Standing  `json:"standing,omitempty"`
	Since    time.Time `json:"since,omitzero"`      // of this standing
	Checked  time.Time `json:"checked,omitzero"`    // last
	Checks   int       `json:"checks,omitempty"`    // in this standing
	Sighted  int       `json:"sighted,omitempty"`   // of Missing: how often two servers or more missed the name; else see Between
	First    time.Time `json:"first,omitzero"`      // of those
	Silent   int       `json:"silent,omitempty"`    // of Missing: how many looks since it was missed saw nothing at all
	Next     time.Time `json:"next,omitzero"`       // when to look again, order or not; zero = now
	LetGo    time.Time `json:"let_go,omitzero"`     // when an order was let go out last although nothing was known
	MayOrder bool      `json:"may_order,omitempty"` // after this check
	Text     string    `json:"text,omitempty"`
	Hint     string    `json:"hint,omitempty"`
}
