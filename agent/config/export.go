package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
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
		v.exported(at, e)
		if e.Then == ThenSIGHUP && c.Daemon.Kind != KindNTPsec && v.d.trusts("daemon.kind") {
			v.fail(at+".then", "no daemon but that of daemon.kind ntpsec is told by SIGHUP in this version", "write none")
		}
	}
	if v.oneOf("daemon.mode", c.Daemon.Mode, ModeAuto, ModeCertificate) && c.Daemon.ServesKE() {
		v.servesKE(c)
	}
}

// exported checks what can be told of an export by itself.
func (v validator) exported(at string, e Export) {
	v.path(at+".cert", e.Cert)
	v.path(at+".key", e.Key)
	if e.Mode&^0o640 != 0 || e.Mode&0o400 == 0 {
		v.fail(at+".mode", fmt.Sprintf("%04o is not for a private key", e.Mode), "write 0640 for its group too, or 0600")
	}
	v.oneOf(at+".then", e.Then, ThenNone, ThenSIGHUP)
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
	if c.Daemon.Kind != KindNTPsec && v.d.trusts("daemon.kind") {
		v.fail("daemon.mode", fmt.Sprintf("certificate is not for daemon.kind %s in this version", c.Daemon.Kind), "write kind: ntpsec, or mode: auto")
		return
	}
	if len(c.Certificate.Export) != 1 && v.d.trusts("certificate.export") {
		v.fail("daemon.mode", "certificate needs one certificate.export: the files that ntpd serves",
			"write certificate: {export: [{name: ..., cert: ..., key: ..., then: sighup}]} with the paths of `nts cert` and `nts key` in ntp.conf")
	}
	if len(c.Names) > 1 {
		v.fail("names", "several names, but ntpd serves one certificate", "keep one, or write daemon: {mode: auto}")
	}
	if !reflect.DeepEqual(c.KE, Default().KE) {
		v.fail("ke", "the key exchange is ntpd's with daemon.mode: certificate", "remove the section")
	}
}
