package setup

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tomlTable is one table of a TOML file: what stands under a header, or above all.
type tomlTable struct {
	name  string // "" = above all headers
	array bool   // [[name]]
	line  int    // of the header, counted from 1
	keys  map[string]string
}

// parseTOML reads headers and keys, as much of TOML 1.0 as it takes to find them:
// strings and arrays of many lines are stepped over, values are kept as written.
func parseTOML(b []byte) []tomlTable {
	tables := []tomlTable{{keys: map[string]string{}}}
	n := 0
	var s tomlState
	for line := range strings.Lines(string(b)) {
		n++
		inside := s.inside()
		text := strings.TrimSpace(s.step(line)) // without its comment
		if inside || text == "" {
			continue
		}
		if name, array, ok := tomlHeader(text); ok {
			tables = append(tables, tomlTable{name, array, n, map[string]string{}})
			s = tomlState{}
			continue
		}
		if key, value, ok := strings.Cut(text, "="); ok {
			tables[len(tables)-1].keys[tomlName(key)] = strings.TrimSpace(value)
		}
	}
	return tables
}

// tomlHeader reads [name] or [[name]].
func tomlHeader(text string) (name string, array, ok bool) {
	inner, ok := strings.CutPrefix(text, "[")
	if !ok {
		return "", false, false
	}
	inner, ok = strings.CutSuffix(inner, "]")
	if in, open := strings.CutPrefix(inner, "["); ok && open {
		inner, ok = strings.CutSuffix(in, "]")
		array = true
	}
	return tomlName(inner), array, ok
}

// tomlName is a key without quotes and spaces around its dots.
func tomlName(s string) string {
	parts := strings.Split(s, ".")
	for i, p := range parts {
		parts[i] = strings.Trim(strings.TrimSpace(p), `"'`)
	}
	return strings.Join(parts, ".")
}

// tomlState is where in a value a line ends.
type tomlState struct {
	quote string // what ends the string that is open; "" = none
	depth int    // of brackets within a value
}

func (s *tomlState) inside() bool { return s.quote != "" || s.depth > 0 }

// step reads one line and returns it without its comment.
func (s *tomlState) step(line string) string {
	value := s.inside() // brackets of a header are none of a value
	for i := 0; i < len(line); {
		rest := line[i:]
		switch {
		case s.quote != "" && strings.HasPrefix(rest, s.quote):
			i += len(s.quote)
			s.quote = ""
		case s.quote != "" && rest[0] == '\\' && s.quote[0] == '"':
			i += 2
		case s.quote != "":
			i++
		case rest[0] == '#':
			return line[:i]
		case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, "'''"):
			s.quote = rest[:3]
			i += 3
		case rest[0] == '"' || rest[0] == '\'':
			s.quote = rest[:1]
			i++
		default:
			switch {
			case rest[0] == '=':
				value = true
			case value && (rest[0] == '[' || rest[0] == '{'):
				s.depth++
			case value && (rest[0] == ']' || rest[0] == '}') && s.depth > 0:
				s.depth--
			}
			i++
		}
	}
	if len(s.quote) == 1 { // a string of one line ends with it
		s.quote = ""
	}
	return line
}

// tomlString reads a value that is a string; "" = it is none.
func tomlString(value string) string {
	if s, ok := strings.CutPrefix(value, "'"); ok {
		s, _, _ = strings.Cut(s, "'")
		return s
	}
	s, err := strconv.QuotedPrefix(value)
	if err != nil {
		return ""
	}
	if s, err = strconv.Unquote(s); err != nil {
		return ""
	}
	return s
}

// ntpdrs plans a place for the keys and, where there is none, a server.
func (p *Plan) ntpdrs(t tree, o Options) error {
	main := p.Daemon.Config
	now, err := t.mustRead(main)
	if err != nil {
		return err
	}
	base, err := removeBlocks(now)
	if err != nil {
		return brokenMarker(main, err)
	}
	data, keysFile, err := p.ntpdrsLines(base, o)
	if err != nil {
		return err
	}
	if err := p.change(t, main, base, data); err != nil {
		return err
	}
	if keysFile != o.NTPDRSKeys {
		p.warn("ntp-daemon keeps its keys in "+keysFile, "set daemon.ntpd_rs.keys_file to that")
	}
	if t.closedToUs(keysFile) {
		p.warn("the agent's group may not read "+keysFile, fmt.Sprintf("chgrp ntsagent %s && chmod 0640 %s   (ntp-daemon keeps that)", keysFile, keysFile))
	}
	if err := p.ntpdrsUnit(t, keysFile); err != nil {
		return err
	}
	p.restart("ntpd-rs.service")
	return nil
}

// closedToUs tells whether a file is there that the agent's group, if the agent
// is installed, may not read.
func (t tree) closedToUs(path string) bool {
	groups, _ := t.readIfThere("/etc/group") // without it there is no such group
	for line := range strings.Lines(string(groups)) {
		f := strings.Split(line, ":")
		if f[0] != "ntsagent" || len(f) < 3 {
			continue
		}
		var st unix.Stat_t
		err := unix.Stat(t.at(path), &st)
		return err == nil && (st.Mode&0o040 == 0 || f[2] != strconv.Itoa(int(st.Gid)))
	}
	return false
}

// ntpdrsLines puts in what is missing.
func (p *Plan) ntpdrsLines(base []byte, o Options) (data []byte, keysFile string, err error) {
	tables := parseTOML(base)
	keyset, server := 0, false
	for i, tb := range tables {
		server = server || tb.array && tb.name == "server"
		if tb.name == "keyset" && !tb.array {
			keyset = i
		}
	}
	top := tables[0].keys
	for name := range top {
		if name == "keyset" || strings.HasPrefix(name, "keyset.") {
			return nil, "", &Failure{What: "read " + p.Daemon.Config, Kind: ErrInTheWay, Err: fmt.Errorf("`%s` stands outside a table [keyset]", name),
				Fix: "write it as a table [keyset]"}
		}
	}
	_, inline := top["server"]
	data, keysFile = base, o.NTPDRSKeys
	keyLine := fmt.Sprintf("key-storage-path = %q", o.NTPDRSKeys)
	var atEnd []string
	if keyset > 0 {
		if path := tomlString(tables[keyset].keys["key-storage-path"]); path != "" {
			keysFile = path
		} else {
			data = insertBlock(data, tables[keyset].line, []string{keyLine})
			p.lines = append(p.lines, "[keyset]", keyLine)
		}
	} else {
		atEnd = append(atEnd, "[keyset]", keyLine)
	}
	if !server && !inline {
		if len(o.Allow) > 0 {
			p.Notes = append(p.Notes, "whom ntp-daemon serves is not narrowed: add an allowlist to [[server]] for that")
		}
		atEnd = append(atEnd, "[[server]]", `listen = "[::]:123"`)
		p.Notes = append(p.Notes, "ntp-daemon serves nobody yet: a [[server]] for all addresses is added")
	}
	if len(atEnd) > 0 {
		p.lines = append(p.lines, atEnd...)
		data = insertBlock(data, 1<<30, atEnd)
	}
	return data, keysFile, nil
}

// ntpdrsUnit adds what Debian's unit lacks for a server: the right to a port below
// 1024 and a folder for its keys.
func (p *Plan) ntpdrsUnit(t tree, keysFile string) error {
	unit := p.Daemon.Unit
	if unit == "" {
		unit = "ntpd-rs.service"
	}
	var path string
	for _, dir := range unitDirs() {
		if path = t.first(filepath.Join(dir, unit)); path != "" {
			break
		}
	}
	if path == "" {
		return nil // it is started otherwise
	}
	text, err := t.mustRead(path)
	if err != nil {
		return err
	}
	ours := filepath.Join("/etc/systemd/system", unit+".d", dropInName)
	for _, dir := range unitDirs() {
		others, err := t.with(ours, nil).list(filepath.Join(dir, unit+".d"), ".conf")
		if err != nil {
			return err
		}
		for _, other := range others {
			b, err := t.mustRead(other)
			if err != nil {
				return err
			}
			text = append(append(text, '\n'), b...)
		}
	}
	var lines []string
	if bytes.Contains(text, []byte("\nUser=")) && !bytes.Contains(text, []byte("CAP_NET_BIND_SERVICE")) {
		lines = append(lines, "AmbientCapabilities=CAP_NET_BIND_SERVICE")
	}
	if dir, ok := strings.CutPrefix(filepath.Dir(keysFile), "/var/lib/"); ok && !bytes.Contains(text, []byte("\nStateDirectory=")) {
		lines = append(lines, "StateDirectory="+dir)
	}
	if len(lines) == 0 {
		return p.unneeded(t, ours)
	}
	p.lines = append(p.lines, lines...)
	return p.change(t, ours, nil, dropInFile(append([]string{"[Service]"}, lines...)))
}

// unneeded takes a drop-in of ours away that nothing needs any more.
func (p *Plan) unneeded(t tree, path string) error {
	old, err := t.readIfThere(path)
	if err != nil || old == nil || !strings.HasPrefix(string(old), dropInHead) {
		return err
	}
	return p.removal(t, path)
}

// removal is a change to nothing.
func (p *Plan) removal(t tree, path string) error {
	old, err := t.readIfThere(path)
	if err != nil || old == nil {
		return err
	}
	p.Changes = append(p.Changes, Change{Path: path, Old: old, GID: -1})
	return nil
}
