package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Bounds of what is read of one configuration.
const (
	maxConfLevel = 10
	maxConfFiles = 256
)

// readIfThere is the content of a file, nil if it is not there.
func (t tree) readIfThere(path string) ([]byte, error) {
	b, err := t.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, &Failure{What: "read " + path, Kind: ErrNotPermitted, Err: err, Fix: "run as root"}
	case err != nil:
		return nil, &Failure{What: "read " + path, Kind: ErrInTheWay, Err: err, Fix: "see what that file is"}
	case b == nil:
		b = []byte{} // it is there, and empty
	}
	return b, nil
}

// mustRead is readIfThere for a file without which nothing can be done.
func (t tree) mustRead(path string) ([]byte, error) {
	b, err := t.readIfThere(path)
	if err == nil && b == nil {
		err = &Failure{What: "read " + path, Kind: ErrInTheWay, Err: fs.ErrNotExist, Fix: "install the daemon, or name its configuration where it is started"}
	}
	return b, err
}

// directive is one line of a configuration of lines and words.
type directive struct {
	file  string
	line  int
	words []string // never empty
}

func (d directive) at() string { return fmt.Sprintf("%s:%d", d.file, d.line) }

func (d directive) String() string { return strings.Join(d.words, " ") }

// arg is the n-th argument, "" if there is none.
func (d directive) arg(n int) string {
	if n+1 >= len(d.words) {
		return ""
	}
	return d.words[n+1]
}

// grammar is how a daemon's configuration is split and includes other files.
type grammar struct {
	split    func(line string) []string // none = nothing to read in it
	includes func(t tree, d directive) ([]string, error)
}

// directives reads a configuration and what it includes in the daemon's order.
func (t tree) directives(path string, g grammar) ([]directive, error) {
	r := confReader{t: t, g: g}
	if err := r.file(path, 1); err != nil {
		return nil, err
	}
	return r.all, nil
}

type confReader struct {
	t     tree
	g     grammar
	all   []directive
	files int
}

func (r *confReader) file(path string, level int) error {
	if r.files++; r.files > maxConfFiles || level > maxConfLevel {
		return &Failure{What: "read " + path, Kind: ErrInTheWay, Err: errors.New("too many files include each other"), Fix: "mend the includes"}
	}
	b, err := r.t.mustRead(path)
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		words := r.g.split(strings.TrimRight(line, "\r\n"))
		if len(words) == 0 {
			continue
		}
		d := directive{path, n, words}
		r.all = append(r.all, d)
		paths, err := r.g.includes(r.t, d)
		if err != nil {
			return fmt.Errorf("%s: %w", d.at(), err)
		}
		for _, p := range paths {
			if err := r.file(p, level+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropInName is our file in a daemon's folder of configuration.
const dropInName = "ntsagent.conf"

// dropInHead begins every file that is wholly ours.
const dropInHead = "# written by `ntsagent"

// dropInFile is a whole file of ours.
func dropInFile(lines []string) []byte {
	return []byte(dropInHead + " daemon apply`, undone by `ntsagent daemon revert`\n" + strings.Join(lines, "\n") + "\n")
}

// absIn is path as a daemon started in / would take it.
func absIn(path string) string { return filepath.Join("/", path) }
