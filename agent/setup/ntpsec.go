package setup

import (
	"fmt"
	"path/filepath"
	"strings"
)

// ntpGrammar is that of ntp.conf: # begins a comment anywhere, words may be quoted.
func ntpGrammar() grammar {
	return grammar{split: splitNTPConf, includes: func(t tree, d directive) ([]string, error) {
		if d.words[0] != "includefile" || d.arg(0) == "" {
			return nil, nil
		}
		path := absIn(d.arg(0))
		if !strings.HasPrefix(d.arg(0), "/") {
			path = filepath.Join(filepath.Dir(d.file), d.arg(0))
		}
		if t.isDir(path) {
			return t.list(path, ".conf")
		}
		return []string{path}, nil
	}}
}

// splitNTPConf splits a line of ntp.conf.
func splitNTPConf(line string) []string {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t\v\f\r=")
		if line == "" || line[0] == '#' {
			return words
		}
		if line[0] == '"' {
			word, rest, _ := strings.Cut(line[1:], `"`)
			words, line = append(words, word), rest
			continue
		}
		end := strings.IndexAny(line, " \t\v\f\r#")
		if end < 0 {
			end = len(line)
		}
		words, line = append(words, line[:end]), line[end:]
	}
}

// ntsConf is what an ntp.conf of NTPsec says of NTS.
type ntsConf struct {
	enabled           bool
	cert, key, cookie string
	at                directive // the last that names a certificate
}

// ntsOf reads the `nts` directives; what has been said later counts.
func ntsOf(all []directive) ntsConf {
	var c ntsConf
	for _, d := range all {
		if d.words[0] != "nts" {
			continue
		}
		for i := 1; i < len(d.words); i++ {
			value := ""
			if i+1 < len(d.words) {
				value = d.words[i+1]
			}
			switch d.words[i] {
			case "enable":
				c.enabled = true
				continue
			case "disable":
				c.enabled = false
				continue
			case "cert":
				c.cert, c.at = value, d
			case "key":
				c.key = value
			case "cookie":
				c.cookie = value
			}
			i++ // all others have a value
		}
	}
	return c
}

// ntpsec plans the nts directives that are missing.
func (p *Plan) ntpsec(t tree, o Options) error {
	main := p.Daemon.Config
	now, err := t.mustRead(main)
	if err != nil {
		return err
	}
	base, err := removeBlocks(now)
	if err != nil {
		return brokenMarker(main, err)
	}
	all, err := t.with(main, base).directives(main, ntpGrammar())
	if err != nil {
		return err
	}
	c := ntsOf(all)
	if (c.cert == "") != (c.key == "") {
		return &Failure{What: "read " + main, Kind: ErrInTheWay, Err: fmt.Errorf("`nts cert` and `nts key` belong together, and one is missing"),
			Fix: "add the other one"}
	}
	if c.cert == "" {
		if err := p.ntpsecPair(t, o); err != nil {
			return err
		}
	} else {
		p.Notes = append(p.Notes, fmt.Sprintf("ntpd has a certificate already (%s): it stays", c.at.at()))
	}
	if c.cookie == "" {
		p.lines = append(p.lines, "nts cookie "+o.NTPsecKeys)
	} else if c.cookie != o.NTPsecKeys {
		p.warn(fmt.Sprintf("ntpd keeps its keys in %s", c.cookie), "set daemon.ntpsec.keys_file to that")
	}
	if !c.enabled {
		p.lines = append(p.lines, "nts enable")
	}
	data := base
	if len(p.lines) > 0 {
		data = insertBlock(base, 1<<30, p.lines)
	}
	if err := p.change(t, main, base, data); err != nil {
		return err
	}
	p.Warnings = append(p.Warnings, t.ntpsecAppArmor()...)
	unit := "ntpsec.service"
	if main == "/etc/ntp.conf" { // as others than Debian have it
		unit = "ntpd.service"
	}
	p.restart(unit)
	return nil
}

// ntpsecPair adds a pair where the distribution's AppArmor profile lets ntpd read it.
func (p *Plan) ntpsecPair(t tree, o Options) error {
	dir := filepath.Dir(p.Daemon.Config)
	keys := pair{key: filepath.Join(dir, "key.pem"), cert: filepath.Join(dir, "cert-chain.pem"), name: "ntpd"}
	if dir == "/etc" {
		keys.key, keys.cert = "/etc/ntp-key.pem", "/etc/ntp-cert-chain.pem"
	}
	_, gid, ok := t.owner(filepath.Dir(o.NTPsecKeys))
	if !ok {
		gid = -1
		p.warn(filepath.Dir(o.NTPsecKeys)+", the folder of ntpd's keys, is not there", "make it for the user ntpd runs as")
	}
	p.lines = append(p.lines, "nts cert "+keys.cert, "nts key "+keys.key)
	return p.pair(t, keys, gid)
}

// appArmorNTPD is Debian's profile of NTPsec.
const appArmorNTPD = "/etc/apparmor.d/usr.sbin.ntpd"

// ntpsecAppArmor tells when the profile keeps ntpd 1.2.2 from saving its keys.
func (t tree) ntpsecAppArmor() []Finding {
	profile, err := t.readIfThere(appArmorNTPD)
	local, _ := t.readIfThere("/etc/apparmor.d/local/usr.sbin.ntpd") // one we may not read says nothing
	text := string(profile) + string(local)
	if err != nil || !strings.Contains(text, "nts-keys rw") || strings.Contains(text, "nts-keys-tmp") {
		return nil
	}
	return []Finding{{appArmorNTPD + " does not let ntpd save its keys, which then change at each restart",
		"add `/var/lib/ntpsec/nts-keys-tmp rw,` to /etc/apparmor.d/local/usr.sbin.ntpd, then: apparmor_parser -r " + appArmorNTPD}}
}
