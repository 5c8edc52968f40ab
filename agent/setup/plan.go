package setup

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
)

// Options say what the agent's own configuration wants of the daemon. Zero values
// have the defaults of agent/config.
type Options struct {
	Kind         string         // what daemon.kind says, gateway too; "" and auto = whoever is found
	Certificate  bool           // daemon.mode: certificate
	ParkedKEPort uint16         // where chronyd's own key exchange goes
	KeysDir      string         // chronyd's ntsdumpdir where it has none
	Address      netip.AddrPort // where the agent asks the daemon
	Allow        []netip.Prefix // whom chronyd is to serve; it then need not be in its configuration
	NTPDRSKeys   string         // ntp-daemon's key file where it has none
	NTPsecKeys   string         // ntpd's
}

func (o Options) withDefaults() Options {
	if o.ParkedKEPort == 0 {
		o.ParkedKEPort = 14460
	}
	if o.KeysDir == "" {
		o.KeysDir = "/var/lib/chrony"
	}
	if !o.Address.IsValid() {
		o.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 123)
	}
	if o.NTPDRSKeys == "" {
		o.NTPDRSKeys = "/var/lib/ntpd-rs/keys"
	}
	if o.NTPsecKeys == "" {
		o.NTPsecKeys = "/var/lib/ntpsec/nts-keys"
	}
	return o
}

// Change is one file that becomes another one.
type Change struct {
	Path string      `json:"path"`
	Old  []byte      `json:"-"` // nil = the file is not there
	New  []byte      `json:"-"` // nil = a pair that Apply makes
	Perm fs.FileMode `json:"-"` // of a new file; an old one keeps its own
	GID  int         `json:"-"` // of a new file; -1 = as it comes
	// base is what the file would be without anything of ours; nil = not there.
	base []byte
	pair *pair // what Apply makes this file from
}

// Plan is what has to change for the agent to work with a daemon.
type Plan struct {
	Daemon   Daemon     `json:"daemon"`
	Changes  []Change   `json:"changes"`
	Warnings []Finding  `json:"warnings"`
	Notes    []string   `json:"notes"`   // what happens, or need not
	Restart  [][]string `json:"restart"` // the commands that make it count
	unit     string     // what they restart; "" = nothing
	reload   bool
	lines    []string // what is put in, for Summary
}

// PlanFor says what d's configuration lacks. It reads and changes nothing. An error
// that is ErrInTheWay says that the configuration cannot be understood.
func PlanFor(h Host, d Daemon, o Options) (Plan, error) {
	o = o.withDefaults()
	p := Plan{Daemon: d, Changes: []Change{}, Warnings: []Finding{}, Notes: []string{}}
	t := h.files()
	var err error
	if d.Config != "" {
		if err := t.trusts("read", d.Config); err != nil {
			return Plan{}, err
		}
	}
	switch {
	case d.Kind == None || d.Kind == Timesyncd:
		return Plan{}, &Failure{What: "set up a daemon", Kind: ErrNoDaemon, Fix: "install an NTP server, chrony for one"}
	case d.Mode == Gateway, d.Kind == OpenNTPD, d.Kind == NTPD, d.Kind == Busybox:
		if err := p.plain(t, o); err != nil {
			return Plan{}, err
		}
		return p, nil
	case d.Config == "":
		return Plan{}, &Failure{What: "set up " + d.Program, Kind: ErrInTheWay, Fix: "write its configuration; there is none at " + strings.Join(d.Kind.configs(), " or ") + "; or name it: --daemon-config"}
	case d.Mode == Certificate && d.Kind != NTPsec:
		p.Notes = append(p.Notes, fmt.Sprintf("%s exchanges keys itself: nothing is changed in %s; see that its certificate and key are the files of certificate.export, and that no lines of ours are left: ntsagent daemon revert", d.Program, d.Config))
		return p, nil
	case d.Kind == Chrony:
		err = p.chrony(t, o)
	case d.Kind == NTPsec:
		err = p.ntpsec(t, o)
	case d.Kind == NTPDRS:
		err = p.ntpdrs(t, o)
	}
	if err != nil {
		return Plan{}, err
	}
	if len(p.Changes) == 0 {
		p.Notes = append(p.Notes, d.Config+" is as it must be")
	}
	return p, nil
}

// Summary is what is put in, in few words.
func (p Plan) Summary() string {
	if len(p.lines) == 0 {
		return "it lacks files"
	}
	return "it lacks `" + strings.Join(p.lines, "`, `") + "`"
}

// Diff is the whole plan as `diff -u` prints it. A key is never shown.
func (p Plan) Diff() string {
	var out strings.Builder
	for _, c := range p.Changes {
		out.WriteString(c.diff())
	}
	return out.String()
}

func (c Change) diff() string {
	if c.pair != nil {
		return fmt.Sprintf("--- /dev/null\n+++ %s\n(%s, mode %04o, made when it is applied)\n", c.Path, c.pair.says(c.Path), c.Perm)
	}
	return unifiedDiff(nameOf(c.Path, c.Old), nameOf(c.Path, c.New), c.Old, c.New)
}

func nameOf(path string, data []byte) string {
	if data == nil {
		return "/dev/null"
	}
	return path
}

// change adds a file that becomes data, if it is not that already. base is the
// file without anything of ours.
func (p *Plan) change(t tree, path string, base, data []byte) error {
	old, err := t.readIfThere(path)
	if err != nil {
		return err
	}
	if old != nil && bytes.Equal(old, data) {
		return nil
	}
	p.Changes = append(p.Changes, Change{Path: path, Old: old, New: data, Perm: 0o644, GID: -1, base: base})
	return nil
}

func (p *Plan) warn(what, fix string) { p.Warnings = append(p.Warnings, Finding{what, fix}) }

// marker is the failure of a file whose markers are broken.
func brokenMarker(path string, err error) error {
	return &Failure{What: "read " + path, Kind: ErrInTheWay, Err: err, Fix: "remove our markers and what is between them from that file"}
}
