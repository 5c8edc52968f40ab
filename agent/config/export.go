package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
)

// exports checks certificate.export, and what daemon.mode certificate needs.
func (v validator) exports(c *Config) {
	taken := map[string]string{} // path → what it is
	for _, f := range append(slices.Clone(c.Certificate.Files), CertificateFiles{Cert: c.Certificate.Cert, Key: c.Certificate.Key}) {
		for _, path := range []string{f.Cert, f.Key} {
			taken[filepath.Clean(path)] = "certificate.source: files reads it"
		}
	}
	for i, e := range c.Certificate.Export {
		at := fmt.Sprintf("certificate.export[%d]", i)
		if !slices.Contains(c.Names, e.Name) && v.d.trusts("names") {
			v.fail(at+".name", fmt.Sprintf("%q is not one of names", e.Name), "add it to names or correct it")
		}
		for _, f := range []struct{ key, path string }{{"cert", e.Cert}, {"key", e.Key}} {
			key := at + "." + f.key
			if by, twice := taken[filepath.Clean(f.path)]; twice && f.path != "" {
				v.fail(key, f.path+" is used twice: "+by, "name another file")
			}
			taken[filepath.Clean(f.path)] = key + " writes it"
		}
		v.told(at+".then", e, c)
		v.exported(at, e)
	}
	if v.oneOf("daemon.mode", c.Daemon.Mode, ModeAuto, ModeCertificate) && c.Daemon.ServesKE() {
		v.servesKE(c)
	}
}

// told checks whether the daemon can be told in this way.
func (v validator) told(at string, e Export, c *Config) {
	if !v.d.trusts("daemon.kind") || !v.d.trusts("daemon.mode") {
		return
	}
	kind := c.Daemon.Kind
	switch {
	case e.Then == ThenSIGHUP && kind != KindNTPsec && (servers[kind] == "" || !c.Daemon.ServesKE()):
		v.fail(at, "no daemon but that of daemon.kind ntpsec is told by SIGHUP in this version", "write none")
	case e.Then == ThenSIGHUP && kind != KindNTPsec:
		v.fail(at, "SIGHUP ends "+servers[kind]+", which reads its certificate only when it starts", "write then: restart, with unit: "+units[kind])
	case e.Then == ThenRestart && !c.Daemon.ServesKE():
		v.fail(at, "restart is for the daemon that serves the certificate itself, which this one does not", "write none, or daemon: {kind: chrony, mode: certificate}")
	}
}

// servers are the programs that can exchange keys themselves, by daemon.kind, and
// units what Debian calls them.
var (
	servers = map[string]string{KindChrony: "chronyd", KindNTPsec: "ntpd", KindNTPDRS: "ntp-daemon"}
	units   = map[string]string{KindChrony: "chrony.service", KindNTPsec: "ntpsec.service", KindNTPDRS: "ntpd-rs.service"}
)

// unitName is a service of systemd, of which no option can be made.
var unitName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9:_.@\\-]{0,240}\.service$`)

// restarts checks how a daemon is restarted.
func (v validator) restarts(at string, e Export) {
	switch {
	case e.Then != ThenRestart:
		if e.Unit != "" {
			v.fail(at+".unit", "belongs to then: restart", "write that, or remove it")
		}
		if len(e.Command) > 0 {
			v.fail(at+".command", "belongs to then: restart", "write that, or remove it")
		}
	case e.Unit != "" && len(e.Command) > 0:
		v.fail(at+".command", "both unit and command are given", "use one of them")
	case len(e.Command) > 0:
		v.path(at+".command[0]", e.Command[0])
	case e.Unit == "":
		v.fail(at+".unit", "then: restart needs the unit of the daemon", "write unit: chrony.service, or what it is called here; without systemd write command: [/sbin/rc-service, chronyd, restart]")
	case !unitName.MatchString(e.Unit):
		v.fail(at+".unit", fmt.Sprintf("%q is not the name of a service of systemd", printable(e.Unit)), "write it as systemctl tells it, such as chrony.service")
	}
}

// exported checks what can be told of an export by itself.
func (v validator) exported(at string, e Export) {
	v.path(at+".cert", e.Cert)
	v.path(at+".key", e.Key)
	if e.Mode&^0o640 != 0 || e.Mode&0o400 == 0 {
		v.fail(at+".mode", fmt.Sprintf("%04o is not for a private key", e.Mode), "write 0640 for its group too, or 0600")
	}
	if v.oneOf(at+".then", e.Then, ThenNone, ThenSIGHUP, ThenRestart) {
		v.restarts(at, e)
	}
	v.path(at+".pid_file", e.PIDFile)
}

// String is the export on one line, as ParseExport reads it; no secret is in it.
func (e Export) String() string {
	var tree map[string]any
	err := encode(reflect.ValueOf(e), false).Decode(&tree)
	if err != nil {
		return err.Error()
	}
	b, err := json.Marshal(tree)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// ParseExport reads what String writes. Its error is an *Error or an Errors list.
func ParseExport(s string) (Export, error) {
	e := itemDefaults[reflect.TypeFor[Export]()].(Export)
	root, err := document("export", []byte(s))
	if err != nil {
		return e, err
	}
	d := decoder{file: "export", lines: map[string]int{}}
	d.mapping(root, &e, "certificate.export")
	v := validator{&d}
	if e.Name.IsZero() {
		v.fail("certificate.export.name", "no name given", "")
	}
	v.exported("certificate.export", e)
	return e, d.errs.sorted()
}

// servesKE checks what has to be so where the daemon exchanges keys itself.
func (v validator) servesKE(c *Config) {
	kind := c.Daemon.Kind
	server := servers[kind]
	if server == "" {
		if v.d.trusts("daemon.kind") {
			v.fail("daemon.mode", fmt.Sprintf("certificate is not for daemon.kind %s: it has to be told which daemon exchanges keys itself", kind), "write kind: chrony, ntpsec or ntpd-rs, or mode: auto")
		}
		return
	}
	if len(c.Certificate.Export) != 1 && v.d.trusts("certificate.export") {
		then := "restart, unit: " + units[kind]
		if kind == KindNTPsec {
			then = "sighup"
		}
		v.fail("daemon.mode", "certificate needs one certificate.export: the files that "+server+" serves",
			"write certificate: {export: [{name: ..., cert: ..., key: ..., then: "+then+"}]} with the paths of "+where[kind])
	}
	if len(c.Names) > 1 {
		v.fail("names", "several names, but "+server+" serves one certificate", "keep one, or write daemon: {mode: auto}")
	}
	if !reflect.DeepEqual(c.KE, Default().KE) {
		v.fail("ke", "the key exchange is "+server+"'s with daemon.mode: certificate", "remove the section")
	}
	if kind == KindChrony && c.Keys.RotateEvery != 0 {
		v.fail("keys.rotate_every", "with daemon.mode: certificate chronyd rotates its keys itself: how often is ntsrotate in its chrony.conf", "write auto, or remove the key")
	}
}

// where the daemons' own configuration names the files.
var where = map[string]string{
	KindChrony: "`ntsservercert` and `ntsserverkey` in chrony.conf",
	KindNTPsec: "`nts cert` and `nts key` in ntp.conf",
	KindNTPDRS: "certificate-chain-path and private-key-path of [[nts-ke-server]] in ntp.toml",
}
