// Package status is what the agent says about itself: a typed Document, the
// pure functions that judge and print it, the counters behind it, and the
// control socket it travels over.
//
// The parts of the agent fill a Document from their own snapshots; Judge alone
// decides what the whole amounts to.
package status

import (
	"time"
)

// Schema is the version of Document's JSON. It grows when a key changes its
// meaning or goes away, not when one is added.
const Schema = 1

// State is what an operator has to know first.
type State string

// The states, from good to bad.
const (
	Healthy         State = "HEALTHY"
	Degraded        State = "DEGRADED"         // it works, someone should look
	NotSynchronised State = "NOT SYNCHRONISED" // the daemon has no time to give; nothing of ours is wrong
	Unhealthy       State = "UNHEALTHY"        // clients are hurt
)

// Document is the whole status. Its JSON keys are stable. Zero times mean "never" or
// "not known" and are left out of the JSON.
type Document struct {
	Schema       int           `json:"schema"`
	Time         time.Time     `json:"time"` // when this was written
	State        State         `json:"state"`
	Reasons      []string      `json:"reasons"` // why it is not HEALTHY
	Agent        Agent         `json:"agent"`
	Certificates []Certificate `json:"certificates"`
	KeyExchange  KeyExchange   `json:"key_exchange"`
	Daemon       Daemon        `json:"daemon"`
	Keys         Keys          `json:"keys"`
	Listeners    []Listener    `json:"listeners"`
	Exports      []Export      `json:"exports,omitempty"`
	Warnings     []string      `json:"warnings,omitempty"` // what is configured and may not be meant; of no weight for State
	LastErrors   []Event       `json:"last_errors"`        // newest first
}

// Agent is the process itself.
type Agent struct {
	Version     string    `json:"version"`
	PID         int       `json:"pid"`
	Started     time.Time `json:"started,omitzero"`
	Config      string    `json:"config"`                  // path of the file in effect
	ReloadError string    `json:"reload_error,omitempty"`  // why the last reload changed nothing
	Reloaded    time.Time `json:"last_reload_ok,omitzero"` // the configuration in effect was read then
}

// SourceImported is the source of a certificate that was made elsewhere, where others are ordered.
const SourceImported = "imported"

// Certificate is the state of one name.
type Certificate struct {
	Name          string    `json:"name"`
	Source        string    `json:"source"`            // acme, files, or imported: by an operator, where acme is what orders the next
	Profile       string    `json:"profile,omitempty"` // ACME profile asked for
	Issuer        string    `json:"issuer,omitempty"`
	Fallback      bool      `json:"fallback,omitempty"` // it is from the fallback CA
	Serial        string    `json:"serial,omitempty"`
	Fingerprint   string    `json:"fingerprint,omitempty"` // SHA-256 of the certificate, hexadecimal
	NotBefore     time.Time `json:"not_before,omitzero"`
	NotAfter      time.Time `json:"not_after,omitzero"`      // zero: there is no certificate
	RenewAt       time.Time `json:"renew_at,omitzero"`       // after not_after where no CA gives another by then
	RenewWhy      string    `json:"renew_why,omitempty"`     // why then
	Revoked       string    `json:"revoked,omitempty"`       // it was, for this reason; it serves until another is there
	OrderingSince time.Time `json:"ordering_since,omitzero"` // an order is under way since then
	LastSuccess   time.Time `json:"last_success,omitzero"`
	LastError     string    `json:"last_error,omitempty"`  // of the last attempt that has ended; "" after a success
	LastHint      string    `json:"last_hint,omitempty"`   // what to do about it
	Failures      int       `json:"failures"`              // in a row
	NextAttempt   time.Time `json:"next_attempt,omitzero"` // where the DNS holds orders back, the next look at it
	Condition     string    `json:"condition,omitempty"`   // why nothing is ordered though nothing has failed: see below
	Why           string    `json:"why,omitempty"`         // of the condition
	Since         time.Time `json:"since,omitzero"`        // of the condition, if it is the DNS's
	DNSNote       string    `json:"dns_note,omitempty"`    // what the DNS says that deserves a look, no more
	WebServer     []Fault   `json:"web_server,omitempty"`  // what whoever has port 80 or 443 shows strangers, and should not, or the other way round
}

// Fault is something that an operator has to mend. Both are one line.
type Fault struct {
	What string `json:"what"`
	Fix  string `json:"fix"` // what to do, with the configuration to paste
}

// The conditions of a Certificate that the judgement knows; others may come.
const (
	ConditionClock     = "clock unsane"    // the clock is wrong: nothing can be said of dates
	ConditionAuthority = "wrong authority" // the configured CA would spoil the certificate
	ConditionUnread    = "state unread"    // what is noted of the last orders cannot be read, so that nothing is ordered
	ConditionMissing   = "missing"         // the name is not in the DNS, which is yet to be confirmed
	ConditionCeased    = "ceased"          // the certificate was revoked because operation has ended
	ConditionWithdrawn = "withdrawn"       // the name was taken out of the DNS
	ConditionMismatch  = "mismatch"        // the name leads to another host
	ConditionDenied    = "denied"          // CAA records forbid a certificate
)

// barred says that the DNS keeps c from being ordered.
func (c Certificate) barred() bool {
	switch c.Condition {
	case ConditionMissing, ConditionWithdrawn, ConditionMismatch, ConditionDenied:
		return true
	}
	return false
}

// Valid says whether clients can be served with c at this time.
func (c Certificate) Valid(now time.Time) bool {
	return !c.NotAfter.IsZero() && now.Before(c.NotAfter) && !now.Before(c.NotBefore)
}

// The states of Keys.
const (
	KeysStarting = "starting" // not proven yet, nothing is minted
	KeysProven   = "proven"   // the daemon has shown to hold them
	KeysUnseen   = "unseen"   // the daemon cannot be seen from here; minting goes on
	KeysNone     = "none"     // of ModeCertificate
	KeysRefused  = "refused"  // the daemon refuses the cookies, nothing is minted
)

// ModeCertificate is the Mode of Keys where the daemon exchanges keys itself, with
// a certificate of ours.
const ModeCertificate = "certificate"

// Keys is the state of the cookie keys; there is no key in it.
type Keys struct {
	Mode         string    `json:"mode"`  // lead, follow, own, certificate
	State        string    `json:"state"` // KeysStarting...
	Current      Key       `json:"current,omitzero"`
	Next         Key       `json:"next,omitzero"`
	Held         []Key     `json:"held"`
	ProvenAt     time.Time `json:"proven_at,omitzero"`
	NextRotation time.Time `json:"next_rotation,omitzero"`
	Why          string    `json:"why,omitempty"` // why the state is not proven, or what is waited for, and what to do
}

// Key names a cookie key without giving it away.
type Key struct {
	ID          string `json:"id"` // eight hex digits
	Fingerprint string `json:"fingerprint"`
}

// Daemon is what we know of the NTP daemon.
type Daemon struct {
	Kind         string    `json:"kind"`           // chrony, ntpsec, ntpd-rs, gateway
	Auto         *Auto     `json:"auto,omitempty"` // how the kind was chosen; nil = the configuration names it
	Address      string    `json:"address"`
	Seen         time.Time `json:"seen,omitzero"`        // last answer
	Known        bool      `json:"known"`                // whether the three below were ever read
	Synchronised bool      `json:"synchronised"`         // leap is not 3 and stratum is 1 to 15
	Stratum      int       `json:"stratum"`              //
	OffsetMS     float64   `json:"offset_ms"`            // its clock against ours, from the last proof
	Opens        []uint16  `json:"opens,omitempty"`      // IANA numbers of the AEADs that it has shown to open cookies of
	LastError    string    `json:"last_error,omitempty"` // why it was not seen
	Faults       []string  `json:"faults,omitempty"`     // what its configuration must have otherwise to work with us for long
	Gateway      *Gateway  `json:"gateway,omitempty"`    // of kind gateway alone
}

// Auto is how daemon.kind: auto was decided.
type Auto struct {
	Found bool   `json:"found"` // an NTP server runs that was looked at; else the kind is a guess
	Why   string `json:"why"`
}

// The services a Listener belongs to.
const (
	ServiceKE        = "ntske"
	ServiceNTP       = "ntp" // the gateway's, over UDP
	ServiceHTTP01    = "http-01"
	ServiceTLSALPN01 = "tls-alpn-01"
)

// Listener is one listening socket.
type Listener struct {
	Service string `json:"service"`
	Address string `json:"address"` // the actual one, with the port the kernel chose
	Open    bool   `json:"open"`
	Reason  string `json:"reason,omitempty"` // why it is closed
	// Withheld: it is closed on purpose, for nobody who comes by it could use what it gives.
	Withheld bool `json:"withheld,omitempty"`
}

// Event is something that went wrong.
type Event struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
}
