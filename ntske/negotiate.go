package ntske

import (
	"net/netip"
	"slices"

	"ntsagent/hostcheck"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/record"
)

// offer is what this server has: the AEAD algorithms whose cookies the daemon
// opens, and where the NTP server is when that does not go without saying.
type offer struct {
	opens []aead.ID
	host  string
	port  uint16
}

// negotiate decides what to answer to a well-formed request that reached us at
// the address local, over TLS for the name sni ("" if the client named none).
// The answer lacks only its cookies, which it gets when the Outcome is Served.
// An answer without a common protocol or algorithm says so by an empty record
// and is no error (RFC 8915 §4.1.2 and §4.1.5).
func negotiate(req record.Request, o offer, local netip.Addr, sni string) (record.Response, Outcome) {
	if !slices.Contains(req.Protocols, record.NTPv4) {
		return record.Response{}, NoCommonProtocol
	}
	resp := record.Response{Protocols: []record.Protocol{record.NTPv4}}
	alg, ok := choose(req, o.opens)
	if !ok {
		return resp, NoCommonAEAD
	}
	resp.AEADs = []aead.ID{alg}
	resp.Compliant128GCM = alg == aead.GCMSIV128
	resp.Server, resp.Port = o.host, o.port
	if resp.Server == "" && here(req, o, local, sni) {
		resp.Server = req.Server
	}
	return resp, Served
}

// choose takes the client's first algorithm that the daemon opens. AES-128-GCM-
// SIV counts only for a client that derives its keys as RFC 8915 says, which it
// shows by record 1024; from others nobody can know which keys they have.
func choose(req record.Request, opens []aead.ID) (aead.ID, bool) {
	for _, alg := range req.AEADs {
		if slices.Contains(opens, alg) && (alg != aead.GCMSIV128 || req.Compliant128GCM) {
			return alg, true
		}
	}
	return 0, false
}

// here tells whether the client asks for the very NTP server that it would get
// anyway: the address it has reached us at, or the name for which it was shown
// our certificate. Then its wish is repeated to it (RFC 8915 §4.1.7); any other
// wish is ignored, for we make no cookies for others.
func here(req record.Request, o offer, local netip.Addr, sni string) bool {
	if req.Server == "" {
		return false
	}
	port := o.port
	if port == 0 {
		port = record.NTPPort
	}
	if req.Port != 0 && req.Port != port {
		return false
	}
	if asked, err := netip.ParseAddr(req.Server); err == nil {
		return asked == local
	}
	asked, err := hostcheck.ParseName(req.Server)
	own, _ := hostcheck.ParseName(sni) // no name, or none of a host: the zero Name
	return err == nil && asked == own
}
