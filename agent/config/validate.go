package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"ntsagent/hostcheck"
)

// maxSocketPath is what sun_path of Linux holds besides its final NUL.
const maxSocketPath = 107

// exampleName is what names has in the example.
const exampleName = "alice.members.pool.example"

// validator checks a decoded Config; every check names the key it is about.
type validator struct {
	d *decoder
}

// fail reports a value, unless reading it has failed already: what stands in
// its place then is ours, not the operator's.
func (v validator) fail(key, problem, hint string) {
	if !v.d.trusts(key) {
		return
	}
	v.d.errs = append(v.d.errs, &Error{File: v.d.file, Line: v.d.line(key), Key: key, Problem: problem, Hint: hint})
}

// validate checks ranges and what belongs together, as far as c has been
// decoded. It appends to d.errs.
func validate(c *Config, d *decoder) {
	v := validator{d}
	v.names(c)
	if d.trusts("certificate.source") { // else nobody knows what the others are for
		v.certificate(c)
		if c.Certificate.Source == SourceACME {
			v.acme(c)
		}
	}
	v.listen("acme.http01.listen", c.ACME.HTTP01.Listen)
	v.listen("acme.tls_alpn01.listen", c.ACME.TLSALPN01.Listen)
	v.ke(&c.KE)
	v.daemon(&c.Daemon)
	v.follows(c)
	v.exports(c)
	v.gateway(c)
	if every := c.Keys.RotateEvery; every != 0 {
		v.duration("keys.rotate_every", every, 10*time.Second, 366*day)
	}
	v.path("observe.socket", c.Observe.Socket)
	if len(c.Observe.Socket) > maxSocketPath {
		v.fail("observe.socket", fmt.Sprintf("longer than the %d octets a Unix socket path may have", maxSocketPath), "choose a shorter path")
	}
	v.duration("observe.self_check", c.Observe.SelfCheck, time.Second, time.Hour)
	v.oneOf("log.level", c.Log.Level, "trace", "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	v.folder("state_dir", c.StateDir)
	v.notYet(c)
}

func (v validator) names(c *Config) {
	if len(c.Names) == 0 {
		v.fail("names", "no name given", "write names: [your.host.name]")
	}
	for i, name := range c.Names {
		if slices.Contains(c.Names[:i], name) {
			v.fail(fmt.Sprintf("names[%d]", i), name.String()+" is listed twice", "remove one")
		}
	}
}

// certificate checks that every name has its files when someone else renews.
func (v validator) certificate(c *Config) {
	cert := c.Certificate
	if !v.oneOf("certificate.source", cert.Source, SourceACME, SourceFiles) {
		return
	}
	short := cert.Cert != "" || cert.Key != ""
	switch {
	case cert.Source == SourceACME:
		if short || len(cert.Files) > 0 {
			v.fail("certificate", "cert, key and files belong to certificate.source: files", "set source: files or remove them")
		}
		return
	case short && len(cert.Files) > 0:
		v.fail("certificate", "both cert with key and files are given", "use one of them")
		return
	case len(cert.Files) > 0:
		v.certificateFiles(c)
		return
	case !v.d.trusts("certificate.files"):
		return // there may have been some
	case len(c.Names) > 1:
		v.fail("certificate", "several names need certificate.files", "write files: [{name: ..., cert: ..., key: ...}], one for each name")
		return
	}
	v.path("certificate.cert", cert.Cert)
	v.path("certificate.key", cert.Key)
}

func (v validator) certificateFiles(c *Config) {
	given := map[string]bool{}
	for i, f := range c.Certificate.Files {
		at := fmt.Sprintf("certificate.files[%d]", i)
		v.path(at+".cert", f.Cert)
		v.path(at+".key", f.Key)
		switch {
		case !slices.Contains(c.Names, f.Name) && v.d.trusts("names"):
			v.fail(at+".name", fmt.Sprintf("%q is not one of names", f.Name), "add it to names or remove the entry")
		case given[f.Name.String()]:
			v.fail(at+".name", f.Name.String()+" is listed twice", "remove one")
		}
		given[f.Name.String()] = true
	}
	for _, name := range c.Names {
		if !name.IsZero() && !given[name.String()] {
			v.fail("certificate.files", "no entry for "+name.String(), "every name needs one")
		}
	}
}

func (v validator) acme(c *Config) {
	a := &c.ACME
	v.directory("acme.directory", a.Directory)
	v.fallback(a)
	if a.Email != "" && !looksLikeEmail(a.Email) {
		v.fail("acme.email", fmt.Sprintf("%q is not an e-mail address", a.Email), "")
	}
	for i, name := range c.Names { // a test or a private CA may well know it
		if name.String() == exampleName && a.Directory == Default().ACME.Directory {
			v.fail(fmt.Sprintf("names[%d]", i), exampleName+" is the name that the example has in place of yours", "write the host name of this server")
		}
	}
	if !a.AgreeToTerms {
		v.fail("acme.agree_to_terms", "must be true to order certificates", "read the CA's terms of service, then set it")
	}
	v.oneOf("acme.key_type", a.KeyType, "ecdsa-p256")
	if len(a.Challenges) == 0 {
		v.fail("acme.challenges", "the list is empty", "name http-01, tls-alpn-01 or both")
	}
	for i, ch := range a.Challenges {
		at := fmt.Sprintf("acme.challenges[%d]", i)
		if v.oneOf(at, ch, ChallengeHTTP01, ChallengeTLSALPN01) && slices.Contains(a.Challenges[:i], ch) {
			v.fail(at, ch+" is listed twice", "remove one")
		}
	}
	v.http01(a)
	v.tlsALPN01(a)
	v.eab("acme.eab", a.EAB)
	v.optionalPath("acme.ca_file", a.CAFile)
	for i, r := range a.Resolvers {
		if r.Port() == 0 || r.Addr().IsUnspecified() || r.Addr().IsMulticast() {
			v.fail(fmt.Sprintf("acme.resolvers[%d]", i), r.String()+" is no server's address", "write it as 192.0.2.53:53")
		}
	}
}

// directory checks the URL of a CA.
func (v validator) directory(key, directory string) {
	u, err := url.Parse(directory)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		v.fail(key, fmt.Sprintf("%q is not an https URL", printable(directory)), "take it from the CA's documentation")
	case u.User != nil:
		v.fail(key, "holds a user name or password", "remove it; accounts are made by the agent")
	case u.ForceQuery || strings.Contains(directory, "#"):
		v.fail(key, "has an empty query or a fragment", "remove what begins with the ? or #")
	}
}

// seat is the host and port of a directory in one spelling of the many, "" when there is none.
func seat(directory string) string {
	u, err := url.Parse(directory)
	if err != nil || u.Host == "" {
		return ""
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	port := strings.TrimLeft(u.Port(), "0")
	if u.Port() == "" {
		port = "443"
	}
	return net.JoinHostPort(host, port)
}

// fallback checks the CA to turn to.
func (v validator) fallback(a *ACME) {
	v.eab("acme.fallback_eab", a.FallbackEAB)
	if a.FallbackDirectory == "" {
		if a.FallbackEAB != (EAB{}) {
			v.fail("acme.fallback_eab", "there is no fallback_directory to open an account at", "set fallback_directory or remove the key")
		}
		return
	}
	v.directory("acme.fallback_directory", a.FallbackDirectory)
	if staging(a.FallbackDirectory) && !staging(a.Directory) {
		v.fail("acme.fallback_directory", "is a staging CA, whose certificates no client trusts: it would never be turned to", "name another CA or remove the key")
	}
	if at := seat(a.FallbackDirectory); at != "" && at == seat(a.Directory) {
		v.fail("acme.fallback_directory", "is at the host and port of acme.directory, "+at, "name another CA or remove the key")
	}
}

// staging tells whether a directory URL is that of a CA for rehearsals, by the same signs as package acme.
func staging(directory string) bool {
	u, err := url.Parse(directory)
	if err != nil {
		return false
	}
	words := strings.FieldsFunc(strings.ToLower(u.Hostname()), func(r rune) bool { return r == '.' || r == '-' })
	return slices.Contains(words, "staging") || slices.Contains(words, "test")
}

// eab checks an external account binding, of which there is all or nothing.
func (v validator) eab(key string, e EAB) {
	const hint = "the CA gives a key id and an HMAC key together: write {kid: ..., hmac_file: ...}"
	switch {
	case e == (EAB{}):
	case e.KID == "":
		v.fail(key+".kid", "hmac_file stands without kid", hint)
	case e.HMACFile == "":
		v.fail(key+".hmac_file", "kid stands without hmac_file", hint)
	default:
		v.path(key+".hmac_file", e.HMACFile)
	}
}

func looksLikeEmail(s string) bool {
	local, host, ok := strings.Cut(s, "@")
	return ok && local != "" && strings.Contains(host, ".") && !strings.ContainsAny(s, " ,;<>\"") && !strings.Contains(host, "@")
}

func (v validator) ke(ke *KE) {
	if len(ke.Listen) == 0 {
		v.fail("ke.listen", "the list is empty", "the key exchange needs an address")
	}
	v.listen("ke.listen", ke.Listen)
	v.duration("ke.timeout", ke.Timeout, 500*time.Millisecond, 30*time.Second)
	v.between("ke.max_sessions", ke.MaxSessions, 1, 65536)
	v.between("ke.cookies", ke.Cookies, 1, 8)
	if ke.NTP.Host != "" {
		if _, err := netip.ParseAddr(ke.NTP.Host); err != nil {
			if _, err := hostcheck.ParseName(ke.NTP.Host); err != nil {
				v.fail("ke.ntp.host", err.Error(), "give an ASCII host name or an IP address")
			}
		}
	}
}

func (v validator) daemon(d *Daemon) {
	if d.Address.Port() == 0 || d.Address.Addr().IsUnspecified() {
		v.fail("daemon.address", fmt.Sprintf("%s is no address to send to", d.Address), "name the address and port the daemon answers NTP on")
	}
	v.oneOf("daemon.kind", d.Kind, KindAuto, KindChrony, KindNTPsec, KindNTPDRS, KindGateway)
	v.path("daemon.chrony.keys_file", d.Chrony.KeysFile)
	v.path("daemon.chrony.command_socket", d.Chrony.CommandSocket)
	v.optionalPath("daemon.chrony.config_file", d.Chrony.ConfigFile)
	v.path("daemon.ntpsec.keys_file", d.NTPsec.KeysFile)
	v.path("daemon.ntpd_rs.keys_file", d.NTPDRS.KeysFile)
}

// listen refuses an address that is listed twice; port 0 lets the kernel choose.
func (v validator) listen(key string, addrs []netip.AddrPort) {
	for i, a := range addrs {
		if a.Port() != 0 && slices.Contains(addrs[:i], a) {
			v.fail(fmt.Sprintf("%s[%d]", key, i), a.String()+" is listed twice", "remove one")
		}
	}
}

func (v validator) path(key, path string)   { v.pathOf("file", key, path) }
func (v validator) folder(key, path string) { v.pathOf("folder", key, path) }

func (v validator) pathOf(what, key, path string) {
	switch {
	case path == "":
		v.fail(key, "no path given", "give the absolute path of the "+what)
	case !filepath.IsAbs(path):
		v.fail(key, fmt.Sprintf("%q is not an absolute path", path), "start it with /")
	}
}

func (v validator) optionalPath(key, path string) {
	if path != "" {
		v.path(key, path)
	}
}

func (v validator) between(key string, n, low, high int) {
	if n < low || n > high {
		v.fail(key, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("from %d to %d", low, high))
	}
}

func (v validator) duration(key string, d, low, high time.Duration) {
	if d < low || d > high {
		v.fail(key, formatDuration(d)+" is out of range", fmt.Sprintf("from %s to %s", formatDuration(low), formatDuration(high)))
	}
}

func (v validator) oneOf(key, value string, allowed ...string) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	v.fail(key, fmt.Sprintf("%q is not known", value), "one of "+strings.Join(allowed, ", "))
	return false
}

// notYet refuses values of keys that this version does not act on, instead of
// ignoring what an operator relies on. The default of such a key is always
// accepted; so is the value that says "none" where none is what there is.
func (v validator) notYet(c *Config) {
	def := Default()
	same := func(key string, value, standard any, none ...any) {
		if reflect.DeepEqual(value, standard) || slices.ContainsFunc(none, func(n any) bool { return reflect.DeepEqual(value, n) }) {
			return
		}
		v.fail(key, "not supported yet in this version", "remove the key")
	}
	same("ke.max_pool_sessions", c.KE.MaxPoolSessions, def.KE.MaxPoolSessions)
	same("ke.limits.per_prefix", c.KE.Limits.PerPrefix, def.KE.Limits.PerPrefix, Rate{})
	same("ke.limits.burst", c.KE.Limits.Burst, def.KE.Limits.Burst)
	same("ke.limits.v4_prefix", c.KE.Limits.V4Prefix, def.KE.Limits.V4Prefix)
	same("ke.limits.v6_prefix", c.KE.Limits.V6Prefix, def.KE.Limits.V6Prefix)
	same("daemon.chrony.parked_ke_port", c.Daemon.Chrony.ParkedKEPort, def.Daemon.Chrony.ParkedKEPort)
	same("pools", c.Pools, def.Pools)
	same("services", c.Services, def.Services)
	same("observe.metrics", c.Observe.Metrics, def.Observe.Metrics, "")
	same("observe.status_page", c.Observe.StatusPage, def.Observe.StatusPage, "")
}
