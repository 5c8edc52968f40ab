package setup

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// plain plans what a daemon without NTS lacks for the agent's gateway, which asks
// it from this host once a second.
func (p *Plan) plain(t tree, o Options) error {
	var err error
	switch {
	case p.Daemon.Config == "" || !t.has(p.Daemon.Config):
		p.Notes = append(p.Notes, fmt.Sprintf("%s has no configuration that is known: see that it answers this host at %s, which the agent's gateway asks about once a second", p.Daemon.Program, o.Address))
	case p.Daemon.Kind == OpenNTPD:
		err = p.openNTPD(t, o)
	case p.Daemon.Kind == NTPD, p.Daemon.Kind == NTPsec:
		err = p.ntpd(t, o)
	case p.Daemon.Kind == Chrony:
		err = p.plainChrony(t, o)
	}
	if err != nil {
		return err
	}
	if len(p.Changes)+len(p.Warnings)+len(p.Notes) == 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s needs no change: the agent's gateway asks it as any client does", p.Daemon.Program))
	}
	return nil
}

// inMain puts p.lines at the end of the main configuration, or takes ours out when
// there are none. base is that file without ours.
func (p *Plan) inMain(t tree, base []byte, units ...string) error {
	data := base
	if len(p.lines) > 0 {
		data = insertBlock(base, 1<<30, p.lines)
	}
	if err := p.change(t, p.Daemon.Config, base, data); err != nil {
		return err
	}
	unit := units[0]
	for _, u := range units {
		if slices.ContainsFunc(unitDirs(), func(dir string) bool { return t.has(dir + "/" + u) }) {
			unit = u
			break
		}
	}
	p.restart(unit)
	return nil
}

// bare reads the main configuration without what is ours, and all directives of it.
func (p *Plan) bare(t tree, g grammar) (base []byte, all []directive, err error) {
	main := p.Daemon.Config
	now, err := t.mustRead(main)
	if err != nil {
		return nil, nil, err
	}
	if base, err = removeBlocks(now); err != nil {
		return nil, nil, brokenMarker(main, err)
	}
	all, err = t.with(main, base).directives(main, g)
	return base, all, err
}

// openNTPD plans a `listen on`: without one it serves nobody, which is how it is
// shipped.
func (p *Plan) openNTPD(t tree, o Options) error {
	g := grammar{split: splitNTPConf, includes: func(tree, directive) ([]string, error) { return nil, nil }}
	base, all, err := p.bare(t, g)
	if err != nil {
		return err
	}
	if o.Address.Port() != 123 {
		p.warn(fmt.Sprintf("OpenNTPD serves at UDP port 123 alone, and daemon.address is %s", o.Address), "set daemon.address to port 123")
	}
	if !slices.ContainsFunc(all, func(d directive) bool { return listensOn(d, o.Address.Addr()) }) {
		p.lines = append(p.lines, "listen on "+o.Address.Addr().String())
	}
	return p.inMain(t, base, "openntpd.service", "ntpd.service")
}

// listensOn tells whether a line of ntpd.conf has OpenNTPD listen at addr.
func listensOn(d directive, addr netip.Addr) bool {
	if d.words[0] != "listen" || d.arg(0) != "on" {
		return false
	}
	at, err := netip.ParseAddr(d.arg(1))
	return d.arg(1) == "*" || err == nil && at == addr || d.arg(1) == "localhost" && addr.IsLoopback()
}

// restriction is a `restrict` of ntp.conf for a network.
type restriction struct {
	prefix netip.Prefix
	flags  []string
	at     directive
}

// harmful are the flags that keep ntpd from answering us once a second.
var harmful = []string{"ignore", "noserve", "notrust", "limited"}

// restrictions are those of a directive, `default` for both families; none if it
// is about something else, or names its network in a way we do not understand.
func restrictions(d directive) []restriction {
	if d.words[0] != "restrict" {
		return nil
	}
	args, only := d.words[1:], ""
	if len(args) > 0 && (args[0] == "-4" || args[0] == "-6") {
		only, args = args[0], args[1:]
	}
	if len(args) == 0 {
		return nil
	}
	network, flags := args[0], args[1:]
	four, six := netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if network == "default" {
		var all []restriction
		if only != "-6" {
			all = append(all, restriction{four, flags, d})
		}
		if only != "-4" {
			all = append(all, restriction{six, flags, d})
		}
		return all
	}
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		addr, err := netip.ParseAddr(network)
		if err != nil {
			return nil // `source`, or a name
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
		if len(flags) > 1 && flags[0] == "mask" {
			mask, _ := netip.ParseAddr(flags[1])
			bits, size := net.IPMask(mask.AsSlice()).Size()
			if size != addr.BitLen() {
				return nil // no mask of its family, or one with gaps
			}
			prefix, flags = netip.PrefixFrom(addr, bits), flags[2:]
		}
	}
	return []restriction{{prefix.Masked(), flags, d}}
}

// restricted are the lines of the narrowest network with addr in it, which all
// count together in ntpd.
func restricted(all []directive, addr netip.Addr) []restriction {
	var at []restriction
	for _, d := range all {
		for _, r := range restrictions(d) {
			switch {
			case !r.prefix.Contains(addr) || len(at) > 0 && r.prefix.Bits() < at[0].prefix.Bits():
			case len(at) > 0 && r.prefix.Bits() == at[0].prefix.Bits():
				at = append(at, r)
			default:
				at = []restriction{r}
			}
		}
	}
	return at
}

// ntpd plans a `restrict` for this host where a wider one keeps it out, or limits
// it: ntpd then drops most of what comes more often than every few seconds.
func (p *Plan) ntpd(t tree, o Options) error {
	base, all, err := p.bare(t, ntpGrammar())
	if err != nil {
		return err
	}
	addr := o.Address.Addr()
	for _, r := range restricted(all, addr) {
		i := slices.IndexFunc(r.flags, func(f string) bool { return slices.Contains(harmful, f) })
		switch {
		case i < 0:
		case r.prefix.Bits() == addr.BitLen(): // another line for the same address takes no flag back
			p.warn(fmt.Sprintf("%s: `%s`: ntpd answers few of the gateway's queries, one a second, or none", r.at.at(), r.at), fmt.Sprintf("remove `%s` from that line", r.flags[i]))
		case len(p.lines) == 0:
			p.lines = append(p.lines, "restrict "+addr.String())
			p.Notes = append(p.Notes, fmt.Sprintf("%s: `%s` is for %s too: a line for this address alone comes before it", r.at.at(), r.at, addr))
		}
	}
	for _, d := range all {
		if (d.words[0] == "interface" || d.words[0] == "nic") && (d.arg(0) == "ignore" || d.arg(0) == "drop") && d.arg(1) != "wildcard" {
			p.warn(fmt.Sprintf("%s: `%s`: ntpd may not listen at %s", d.at(), d, addr), "see that it answers there")
		}
	}
	units := []string{"ntp.service", "ntpd.service"}
	if p.Daemon.Kind == NTPsec {
		units = []string{"ntpsec.service", "ntpd.service"}
	}
	return p.inMain(t, base, units...)
}

// plainChrony tells what keeps a chronyd without NTS from answering us. Its
// configuration is the operator's: it is better replaced by a newer one.
func (p *Plan) plainChrony(t tree, o Options) error {
	c, err := t.chronyConf(p.Daemon.Config)
	if err != nil {
		return err
	}
	addr := o.Address.Addr()
	if !c.serves(addr) {
		p.warn(fmt.Sprintf("chronyd does not serve %s: no `allow` in its configuration names it", addr), fmt.Sprintf("add `allow %s` to %s", addr, p.Daemon.Config))
	}
	if d, ok := c.last["ratelimit"]; ok {
		p.warn(fmt.Sprintf("%s: `%s`: chronyd drops some of the gateway's queries, one a second", d.at(), d), "remove that line, or set an interval of 0 or less")
	}
	return nil
}
