package config

import (
	"fmt"
	"slices"
	"strings"
)

// opens lists the AEAD algorithms of the cookies that each kind of daemon can be
// asked to open, by their IANA numbers; auto may turn out to be any.
var opens = map[string][]uint16{
	KindAuto: {15, 16, 17, 30}, KindChrony: {15, 30}, KindGateway: {15, 30}, KindNTPsec: {15, 16, 17}, KindNTPDRS: {15, 17},
}

// aeads checks ke.aeads against what the daemon opens.
func (v validator) aeads(c *Config) {
	can := opens[c.Daemon.Kind]
	if c.KE.AEADs == nil || can == nil || !v.d.trusts("daemon.kind") {
		return
	}
	all := strings.ReplaceAll(strings.Trim(fmt.Sprint(can), "[]"), " ", ", ")
	for i, id := range c.KE.AEADs {
		at := fmt.Sprintf("ke.aeads[%d]", i)
		if !slices.Contains(can, id) {
			v.fail(at, fmt.Sprintf("AEAD %d is not among what daemon.kind %s opens in this version", id, c.Daemon.Kind), "write auto or some of ["+all+"]")
		} else if slices.Contains(c.KE.AEADs[:i], id) {
			v.fail(at, fmt.Sprintf("%d is listed twice", id), "remove one")
		}
	}
	if !slices.Contains(c.KE.AEADs, 15) {
		v.fail("ke.aeads", "15 is not listed, which every NTS server has to offer (RFC 8915 section 5.1)", "add 15, or write auto")
	}
}

// kePort is the one of RFC 8915 section 7.1.
const kePort = 4460

// follows checks what has to be otherwise beside a daemon that owns its keys.
func (v validator) follows(c *Config) {
	v.aeads(c)
	kind := c.Daemon.Kind
	if !c.Daemon.Follows() || !v.d.trusts("daemon.kind") {
		return
	}
	if c.Keys.RotateEvery != 0 {
		where := "ntpd does it once a day"
		if kind == KindNTPDRS {
			where = "how often is key-rotation-interval in [keyset] of its ntp.toml"
		}
		v.fail("keys.rotate_every", kind+" rotates its keys itself: "+where, "write auto, or remove the key")
	}
	for _, a := range c.KE.Listen {
		if c.Daemon.ServesKE() {
			break // then we do not listen
		}
		if kind == KindNTPsec && a.Port() == kePort {
			v.fail("ke.listen", "ntpd of NTPsec holds TCP port 4460 itself, and does not start where another one does",
				`write ke: {listen: ["[::]:4461", "0.0.0.0:4461"]} and redirect TCP port 4460 to 4461 with nftables, or daemon: {kind: ntpsec, mode: certificate}`)
			break
		}
	}
}
