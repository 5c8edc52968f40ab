package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"ntsagent/acme/disk"
)

// Bounds of what we read. chrony itself stops at 10 levels of include.
const (
	maxConfBytes    = 1 << 20
	maxConfFiles    = 256
	maxIncludeLevel = 10
	maxConfDirs     = 10

	defaultInterval = 3
	defaultBurst    = 8
	defaultLeak     = 2
)

// ErrChronyConf is the reason when chrony.conf says something chronyd would
// refuse, or more than we are willing to read.
var ErrChronyConf = errors.New("bad chrony configuration")

// ReadChrony reads chrony.conf and what it includes, as chronyd does. Directives
// we do not need are not looked at. A file that may not be read is an error that
// is fs.ErrPermission, one that is not there fs.ErrNotExist.
func ReadChrony(path string) (Chrony, error) {
	r := confReader{conf: defaultChrony()}
	if err := r.file(path, 1); err != nil {
		return Chrony{}, fmt.Errorf("read chrony configuration: %w", err)
	}
	return r.conf, nil
}

type confReader struct {
	conf  Chrony
	files []string // every file read, in order
}

func (r *confReader) file(path string, level int) error {
	if level > maxIncludeLevel {
		return fmt.Errorf("%w: %s: more than %d levels of include", ErrChronyConf, path, maxIncludeLevel)
	}
	if len(r.files) >= maxConfFiles {
		return fmt.Errorf("%w: more than %d files", ErrChronyConf, maxConfFiles)
	}
	b, err := disk.ReadFile(path, maxConfBytes)
	if err != nil {
		return err
	}
	r.files = append(r.files, path)
	n := 0
	for line := range bytes.Lines(b) {
		n++
		d, ok := parseDirective(string(line))
		if !ok {
			continue
		}
		d.at = fmt.Sprintf("%s:%d", path, n)
		err := r.conf.apply(d)
		if err == nil {
			err = r.include(d, level)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return nil
}

// include follows the directives that name other files. Those of sourcedir hold
// only time sources, which do not matter to us.
func (r *confReader) include(d directive, level int) error {
	var paths []string
	switch d.name {
	case "include":
		pattern, err := d.word()
		if err != nil {
			return err
		}
		if paths, err = globInclude(pattern); err != nil {
			return err
		}
	case "confdir":
		if len(d.args) > maxConfDirs {
			return fmt.Errorf("%w: more than %d directories", ErrChronyConf, maxConfDirs)
		}
		var err error
		if paths, err = confDirFiles(d.args); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if err := r.file(path, level+1); err != nil {
			return err
		}
	}
	return nil
}

// globInclude expands the pattern of include. As for chronyd, a plain name need
// not match anything to be opened, so that a missing file is an error.
func globInclude(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}, nil
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("%w: include %q: %w", ErrChronyConf, pattern, err)
	}
	return paths, nil
}

// confDirFiles lists the .conf files of the directories in the order chronyd
// reads them: by base name, and of two of one name that of the earlier directory.
func confDirFiles(dirs []string) ([]string, error) {
	byName := map[string]string{}
	var names []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := e.Name()
			if !strings.HasSuffix(name, ".conf") || byName[name] != "" {
				continue
			}
			byName[name] = filepath.Join(dir, name)
			names = append(names, name)
		}
	}
	sort.Strings(names)
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = byName[name]
	}
	return paths, nil
}

// directive is one line of chrony.conf.
type directive struct {
	name string // lower case
	args []string
	at   string // file:line; "" = not from a file
}

func (d directive) rest() string { return strings.Join(d.args, " ") }

// String is the directive as chronyd would read it back.
func (d directive) String() string { return strings.Join(append([]string{d.name}, d.args...), " ") }

// parseDirective splits a line at white space; false = empty or a comment. Only
// a line that begins with one of ! ; # % is a comment.
func parseDirective(line string) (directive, bool) {
	words := strings.FieldsFunc(line, isSpace)
	if len(words) == 0 || strings.ContainsRune("!;#%", rune(words[0][0])) {
		return directive{}, false
	}
	return directive{name: lowerASCII(words[0]), args: words[1:]}, true
}

func isSpace(r rune) bool { return r == ' ' || (r >= '\t' && r <= '\r') }

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// apply takes one directive in. A later one of the same name wins.
func (c *Chrony) apply(d directive) (err error) {
	line := d.name
	switch d.name {
	case "keyfile":
		c.KeyFile, err = d.word()
	case "ntsdumpdir":
		c.NTSDumpDir, err = d.word()
	case "port":
		c.Port, err = d.port()
	case "ntsrotate":
		c.NTSRotate, err = d.number(0, 1<<31-1)
	case "ntsserverkey":
		c.NTSServerKey, err = d.word()
	case "ntsservercert":
		c.NTSServerCert, err = d.word()
	case "allow", "deny":
		c.Allows = c.Allows || d.name == "allow"
		c.Access.add(d)
	case "ratelimit":
		c.RateLimit, err = d.rateLimit()
	case "bindcmdaddress":
		line = c.bindCommand(d)
	case "bindaddress":
		line = c.bind(d)
	default:
		return nil
	}
	if err == nil && line != "" {
		if c.lines == nil {
			c.lines = map[string]directive{}
		}
		c.lines[line] = d
	}
	return err
}

// bind leaves alone what is no IP address: newer versions take names and
// interfaces, and then our configuration has to say the address.
func (c *Chrony) bind(d directive) (line string) {
	addr, err := netip.ParseAddr(d.rest())
	switch {
	case err != nil:
		return ""
	case addr.Is4():
		c.BindAddress4 = addr
		return lineBind4
	}
	c.BindAddress6 = addr
	return lineBind6
}

// bindCommand takes the path of the command socket; "/" switches it off. What
// is an IP address is another socket.
func (c *Chrony) bindCommand(d directive) (line string) {
	path := d.rest()
	if !strings.HasPrefix(path, "/") {
		return ""
	}
	if c.CommandSocket = path; path == "/" {
		c.CommandSocket = ""
	}
	return d.name
}

func (d directive) word() (string, error) {
	if len(d.args) != 1 {
		return "", fmt.Errorf("%w: %q must have one argument", ErrChronyConf, d.String())
	}
	return d.args[0], nil
}

func (d directive) number(low, high int) (int, error) {
	if len(d.args) == 1 {
		if n, err := strconv.Atoi(d.args[0]); err == nil && n >= low && n <= high {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: %s %q is no number between %d and %d", ErrChronyConf, d.name, d.rest(), low, high)
}

func (d directive) port() (uint16, error) {
	n, err := d.number(0, 65535)
	return uint16(n), err
}

func (d directive) rateLimit() (*RateLimit, error) {
	l := &RateLimit{Interval: defaultInterval, Burst: defaultBurst, Leak: defaultLeak}
	bad := fmt.Errorf("%w: %q", ErrChronyConf, d.String())
	if len(d.args)%2 != 0 {
		return nil, bad
	}
	for pair := range slices.Chunk(d.args, 2) {
		n, err := strconv.Atoi(pair[1])
		if err != nil {
			return nil, bad
		}
		switch lowerASCII(pair[0]) {
		case "interval":
			l.Interval = min(max(n, -19), 12) // chronyd clamps too
		case "burst":
			l.Burst = min(max(n, 1), 255)
		case "leak":
			l.Leak = min(max(n, 1), 4)
		default:
			return nil, bad // a word of a newer chrony may mean anything
		}
	}
	return l, nil
}
