package setup

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"ntsagent/agent/daemon"
)

// chronyGrammar is that of chrony.conf(5): a line that begins with one of !;#% is
// a comment, names have no case.
func chronyGrammar() grammar {
	return grammar{
		split: func(line string) []string {
			words := strings.Fields(line)
			if len(words) == 0 || strings.ContainsRune("!;#%", rune(words[0][0])) {
				return nil
			}
			words[0] = strings.ToLower(words[0])
			return words
		},
		includes: chronyIncludes,
	}
}

func chronyIncludes(t tree, d directive) ([]string, error) {
	switch d.words[0] {
	case "include":
		if strings.ContainsAny(d.arg(0), "*?[") {
			return t.glob(d.arg(0))
		}
		return []string{d.arg(0)}, nil
	case "confdir":
		var all []string
		names := map[string]bool{}
		for _, dir := range d.words[1:] {
			paths, err := t.list(dir, ".conf")
			if err != nil {
				return nil, err
			}
			for _, p := range paths {
				if !names[filepath.Base(p)] { // of two of one name that of the first folder
					names[filepath.Base(p)] = true
					all = append(all, p)
				}
			}
		}
		sort.Slice(all, func(i, j int) bool { return filepath.Base(all[i]) < filepath.Base(all[j]) })
		return all, nil
	}
	return nil, nil
}

// chronyConf is what matters of chrony.conf: the last directive of each name, and
// whom it serves.
type chronyConf struct {
	last   map[string]directive
	all    []directive
	rules  []rule
	access daemon.Access
}

// rule is an allow or a deny.
type rule struct {
	allow  bool
	prefix netip.Prefix // invalid = not understood
}

func (t tree) chronyConf(path string) (chronyConf, error) {
	c := chronyConf{last: map[string]directive{}}
	var err error
	if c.all, err = t.directives(path, chronyGrammar()); err != nil {
		return c, err
	}
	for _, d := range c.all {
		c.last[d.words[0]] = d
		if d.words[0] == "allow" || d.words[0] == "deny" {
			c.rules = append(c.rules, rulesOf(d)...)
			c.access.Add(d.words[0], d.words[1:]...)
		}
	}
	return c, nil
}

// rulesOf reads `allow [all] [subnet]`. Without a subnet it means both families.
func rulesOf(d directive) []rule {
	r := rule{allow: d.words[0] == "allow"}
	args := d.words[1:]
	if len(args) > 0 && strings.EqualFold(args[0], "all") {
		args = args[1:]
	}
	if len(args) == 0 {
		four, six := r, r
		four.prefix, six.prefix = netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
		return []rule{four, six}
	}
	if p, err := netip.ParsePrefix(args[0]); err == nil {
		r.prefix = p.Masked()
	} else if a, err := netip.ParseAddr(args[0]); err == nil {
		r.prefix = netip.PrefixFrom(a, a.BitLen())
	}
	return []rule{r}
}

// serves tells whether an address is answered. Rules we do not understand, names
// for one, count for nothing.
func (c chronyConf) serves(addr netip.Addr) bool { return c.access.Allows(addr) }

// servesAnybody tells whether there is an allow for more than this host.
func (c chronyConf) servesAnybody() bool {
	for _, r := range c.rules {
		if r.allow && (!r.prefix.IsValid() || !r.prefix.Addr().IsLoopback()) {
			return true
		}
	}
	return false
}

// servesFamily tells whether there is, or is to be, an allow for others of the
// family of addr, which may be none.
func (c chronyConf) servesFamily(addr netip.Addr, also []netip.Prefix) bool {
	if !addr.IsValid() {
		return false
	}
	for _, r := range c.rules {
		if r.allow && r.prefix.IsValid() && !r.prefix.Addr().IsLoopback() && r.prefix.Addr().Is4() == addr.Is4() {
			return true
		}
	}
	return slices.ContainsFunc(also, func(p netip.Prefix) bool { return p.Addr().Is4() == addr.Is4() })
}

// loopbackBeside is the loopback address of the other family than addr is of, if
// that is a loopback address too.
func loopbackBeside(addr netip.Addr) netip.Addr {
	switch {
	case !addr.IsLoopback():
		return netip.Addr{}
	case addr.Is4():
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// lacking are the lines the configuration needs on top.
func (c chronyConf) lacking(o Options, keys pair) []string {
	var lines []string
	need := func(name, value string) { lines = append(lines, name+" "+value) }
	lacks := func(addr netip.Addr) bool {
		return !c.serves(addr) && !slices.Contains(o.Allow, netip.PrefixFrom(addr, addr.BitLen()))
	}
	if lacks(o.Address.Addr()) {
		need("allow", o.Address.Addr().String())
	}
	if here := loopbackBeside(o.Address.Addr()); c.servesFamily(here, o.Allow) && lacks(here) {
		need("allow", here.String()) // the agent gives cookies by a family that it sees answered
	}
	for i, p := range o.Allow {
		if !c.serves(p.Addr()) && !slices.Contains(o.Allow[:i], p) {
			need("allow", p.String())
		}
	}
	if c.last["ntsserverkey"].arg(0) == "" || c.last["ntsservercert"].arg(0) == "" {
		need("ntsserverkey", keys.key)
		need("ntsservercert", keys.cert)
	}
	if port := c.last["ntsport"].arg(0); port == "" || port == "4460" || port == "0" {
		need("ntsport", strconv.Itoa(int(o.ParkedKEPort)))
	}
	if c.last["ntsrotate"].arg(0) != "0" {
		need("ntsrotate", "0")
	}
	if c.last["ntsdumpdir"].arg(0) == "" {
		need("ntsdumpdir", o.KeysDir)
	}
	return lines
}

// chrony plans a drop-in where one would count, else a block at the end of
// chrony.conf, whose last directives win.
func (p *Plan) chrony(t tree, o Options) error {
	main := p.Daemon.Config
	now, err := t.mustRead(main)
	if err != nil {
		return err
	}
	base, err := removeBlocks(now)
	if err != nil {
		return brokenMarker(main, err)
	}
	without := t.with(main, base)
	dropIn := t.chronyDropIn(main, base)
	if dropIn != "" {
		without = without.with(dropIn, nil)
	}
	conf, err := without.chronyConf(main)
	if err != nil {
		return err
	}
	o.Allow = append(o.Allow, t.allowedBefore(now, dropIn, o)...)
	keys := chronyPair(main)
	p.lines = conf.lacking(o, keys)
	if err := p.chronyFiles(t, without, base, dropIn, conf.dumpDir(o), o, keys); err != nil {
		return err
	}
	p.chronyWarnings(conf, o)
	unit := "chrony.service"
	if main == "/etc/chrony.conf" { // as RHEL has it
		unit = "chronyd.service"
	}
	p.restart(unit)
	return nil
}

// allowedBefore is whom earlier lines of ours let chronyd serve, so that applying
// again takes nobody away.
func (t tree) allowedBefore(main []byte, dropIn string, o Options) []netip.Prefix {
	var ours []byte
	if dropIn != "" {
		ours, _ = t.readIfThere(dropIn) // one we may not read is an error later
	}
	in := false
	for line := range strings.Lines(string(main)) {
		switch text := strings.TrimSpace(line); {
		case strings.HasPrefix(text, beginMark):
			in = true
		case text == blockEnd:
			in = false
		case in:
			ours = append(ours, line...)
		}
	}
	var all []netip.Prefix
	for line := range strings.Lines(string(ours)) {
		words := chronyGrammar().split(line)
		if len(words) != 2 || words[0] != "allow" {
			continue
		}
		if p, err := netip.ParsePrefix(words[1]); err == nil && !slices.Contains(o.Allow, p) {
			all = append(all, p)
		}
	}
	return all
}

// chronyFiles decides where the lines go.
func (p *Plan) chronyFiles(t, without tree, base []byte, dropIn, dumpDir string, o Options, keys pair) error {
	main := p.Daemon.Config
	if slices.Contains(p.lines, "ntsserverkey "+keys.key) {
		_, gid, ok := t.owner(dumpDir) // its group is chronyd's
		if !ok {
			gid = -1
			p.warn(dumpDir+", the folder of chronyd's keys, is not there", "make it for the user chronyd runs as")
		}
		if err := p.pair(t, keys, gid); err != nil {
			return err
		}
	}
	if dropIn != "" && len(p.lines) > 0 {
		file := dropInFile(p.lines)
		then, err := without.with(dropIn, file).chronyConf(main)
		if err != nil {
			return err
		}
		if len(then.lacking(o, keys)) == 0 {
			if err := p.change(t, dropIn, nil, file); err != nil {
				return err
			}
			return p.change(t, main, base, base)
		}
		p.Notes = append(p.Notes, fmt.Sprintf("lines behind `confdir` in %s would overrule a drop-in, so ours go to its end", main))
	}
	if dropIn != "" {
		if err := p.unneeded(t, dropIn); err != nil {
			return err
		}
	}
	if len(p.lines) == 0 {
		return p.change(t, main, base, base)
	}
	return p.change(t, main, base, insertBlock(base, 1<<30, p.lines))
}

func (c chronyConf) dumpDir(o Options) string {
	if dir := c.last["ntsdumpdir"].arg(0); dir != "" {
		return dir
	}
	return o.KeysDir
}

// chronyDropIn is where a drop-in of ours would be read; "" = nowhere. A folder
// that is not there is nowhere: it is not ours to make.
func (t tree) chronyDropIn(main string, base []byte) string {
	for line := range strings.Lines(string(base)) {
		words := chronyGrammar().split(line)
		if len(words) < 2 {
			continue
		}
		dir := ""
		switch words[0] {
		case "confdir":
			dir = words[1]
		case "include":
			if ok, _ := filepath.Match(filepath.Base(words[1]), dropInName); ok && strings.ContainsAny(words[1], "*?[") {
				dir = filepath.Dir(words[1])
			}
		}
		if dir != "" && !strings.ContainsAny(dir, "*?[") && t.isDir(dir) {
			return filepath.Join(dir, dropInName)
		}
	}
	return ""
}

// chronyPair is the certificate chronyd wants for having NTS at all; nobody has to
// trust it. It is beside the configuration, where only root writes; AppArmor and
// SELinux let chronyd read there.
func chronyPair(main string) pair {
	name := "ntsagent"
	if filepath.Dir(main) == "/etc" {
		name = "chrony-ntsagent"
	}
	path := filepath.Join(filepath.Dir(main), name)
	return pair{key: path + ".key", cert: path + ".crt", name: "chronyd"}
}

// chronyWarnings tell what the configuration says against us.
func (p *Plan) chronyWarnings(c chronyConf, o Options) {
	live := c.last["ntsserverkey"].arg(0) != "" && c.last["ntsservercert"].arg(0) != ""
	rotate, said := c.last["ntsrotate"]
	if said && rotate.arg(0) != "0" && len(p.Changes) > 0 { // else a line of ours overrules it by now
		p.warn(fmt.Sprintf("%s: `%s`: chronyd would overwrite our keys; the line added overrules it", rotate.at(), rotate), "ntsagent daemon apply")
	}
	if live {
		p.Notes = append(p.Notes, fmt.Sprintf("chronyd is an NTS server already (%s): its certificate stays, its ntskeys are not touched and the agent takes them over; key exchange moves from chronyd to the agent at the restart",
			c.last["ntsserverkey"].at()))
	}
	if d, ok := c.last["port"]; ok && d.arg(0) == "0" {
		p.warn(fmt.Sprintf("%s: `%s`: chronyd serves no NTP", d.at(), d), "remove that line")
	}
	if d, ok := c.last["bindcmdaddress"]; ok && d.arg(0) == "/" {
		p.warn(fmt.Sprintf("%s: `%s`: chronyd takes no commands, so it never learns of new keys", d.at(), d), "remove that line")
	}
	if d, ok := c.last["ntsdumpdir"]; ok && filepath.Clean(d.arg(0)) != filepath.Clean(o.KeysDir) {
		p.warn(fmt.Sprintf("%s: `%s`: chronyd reads its keys there", d.at(), d), "set daemon.chrony.keys_file to "+filepath.Join(d.arg(0), "ntskeys"))
	}
	for _, d := range c.all {
		if d.words[0] == "ntsntpserver" {
			p.warn(fmt.Sprintf("%s: `%s`: of chronyd's own key exchange, which clients no longer use", d.at(), d), "set ke.ntp.host in the agent's configuration if it is to stay")
		}
	}
	if !c.servesAnybody() && len(o.Allow) == 0 {
		p.warn("chronyd serves nobody but this host: no `allow` in its configuration", "name whom it is to serve: ntsagent daemon apply --allow 0.0.0.0/0 --allow ::/0")
	}
}
