package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Report is what Check found. Its JSON form is stable: keys are added, never
// renamed. All text in it is printable.
type Report struct {
	Name      string          `json:"name"`
	Port      uint16          `json:"port"`
	OK        bool            `json:"ok"` // every address was authenticated
	Addresses []netip.Addr    `json:"addresses"`
	Problem   *Problem        `json:"problem,omitempty"` // with finding the addresses
	Results   []AddressReport `json:"results"`           // one per address, in that order; several where several algorithms were asked for
}

// Fault returns whose failure it is that the check is not good: the server's
// if there is any of its, else this tool's, else 0.
func (r Report) Fault() Fault {
	var worst Fault
	note := func(p *Problem) {
		if p != nil && (worst == 0 || p.Fault < worst) {
			worst = p.Fault
		}
	}
	note(r.Problem)
	for _, a := range r.Results {
		note(a.Problem)
	}
	return worst
}

// AddressReport is what was found at one address. The parts after the one that
// failed are nil.
type AddressReport struct {
	Address netip.Addr `json:"address"`
	Family  string     `json:"family"`         // ipv4, ipv6
	AEAD    uint16     `json:"aead,omitempty"` // the algorithm asked for; 0: none in particular
	TLS     *TLSReport `json:"tls,omitempty"`
	KE      *KEReport  `json:"ntske,omitempty"`
	NTP     *NTPReport `json:"ntp,omitempty"`
	Problem *Problem   `json:"problem,omitempty"`
}

// Problem is a step that failed.
type Problem struct {
	Step  string `json:"step"`  // resolve, connect, tls, ntske, ntp
	Fault Fault  `json:"fault"` // server, tool
	Text  string `json:"text"`
}

// TLSReport is a handshake that was completed and verified.
type TLSReport struct {
	Version  string    `json:"version"` // 1.3
	Group    string    `json:"group"`   // of the key exchange, such as X25519MLKEM768
	Name     string    `json:"name"`    // the certificate is good for
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft int       `json:"days_left"`
}

// KEReport is an answer to a key-exchange request.
type KEReport struct {
	Cookies      int     `json:"cookies"`
	CookieOctets int     `json:"cookie_octets"` // of the longest
	AEAD         uint16  `json:"aead"`
	AEADName     string  `json:"aead_name"`
	NTPHost      string  `json:"ntp_host"` // "": at the same address
	NTPPort      uint16  `json:"ntp_port"`
	TookMS       float64 `json:"took_ms"` // TCP, TLS and the answer
}

// NTPReport is what the NTP server answered. Fields below Lost are of the last reply.
type NTPReport struct {
	Address     netip.AddrPort `json:"address"`
	Replies     int            `json:"replies"`
	KECookies   int            `json:"with_key_exchange_cookie"`
	Refreshed   int            `json:"with_refreshed_cookie"`
	Lost        int            `json:"lost"`
	Leap        uint8          `json:"leap"`
	Stratum     uint8          `json:"stratum"`
	ReferenceID string         `json:"refid"`
	OffsetMS    float64        `json:"offset_ms"` // of the server's clock from ours
	DelayMS     float64        `json:"delay_ms"`
}

// add takes in one authenticated reply.
func (r *NTPReport) add(reply Reply, refreshed bool) {
	r.Replies++
	if refreshed {
		r.Refreshed++
	} else {
		r.KECookies++
	}
	r.Leap, r.Stratum = reply.Header.Leap, reply.Header.Stratum
	r.ReferenceID = referenceID(reply.Header.Stratum, reply.Header.RefID)
	r.OffsetMS, r.DelayMS = ms(reply.Offset), ms(reply.Delay)
}

// referenceID writes a reference id as its stratum has it (RFC 5905 §7.3).
func referenceID(stratum uint8, id [4]byte) string {
	if stratum > 1 {
		return netip.AddrFrom4(id).String()
	}
	n := len(id)
	for n > 0 && id[n-1] == 0 {
		n--
	}
	for i, c := range id[:n] {
		if c <= ' ' || c > '~' {
			id[i] = '.'
		}
	}
	return string(id[:n])
}

func tlsReport(name string, s tls.ConnectionState, now time.Time) *TLSReport {
	leaf := s.PeerCertificates[0]
	version := "1.3"
	if s.Version != tls.VersionTLS13 {
		version = tls.VersionName(s.Version)
	}
	return &TLSReport{
		Version: version, Group: s.CurveID.String(), Name: name, Issuer: issuer(leaf),
		NotAfter: leaf.NotAfter, DaysLeft: int(leaf.NotAfter.Sub(now).Hours() / 24),
	}
}

func keReport(res Result) *KEReport {
	longest := 0
	for _, c := range res.Cookies {
		longest = max(longest, len(c))
	}
	return &KEReport{
		Cookies: len(res.Cookies), CookieOctets: longest,
		AEAD: uint16(res.Keys.AEAD), AEADName: res.Keys.AEAD.String(),
		NTPHost: printable(res.Server), NTPPort: res.Port, TookMS: ms(res.Took),
	}
}

// problem makes data of an error of this package.
func problem(err error) *Problem {
	var e *Error
	if !errors.As(err, &e) {
		e = couldNot("check", "go on", fmt.Errorf("unexpected: %w", err))
	}
	return &Problem{Step: e.Step, Fault: e.Fault, Text: e.Error()}
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
