package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing wrong with a configuration, printed as one line:
//
//	/etc/ntsagent/ntsagent.yaml:12: ke.timout: unknown key; did you mean ke.timeout?
type Error struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // 0 when no line can be named
	Key     string `json:"key,omitempty"`  // dotted path of the key, "" for the file as a whole
	Problem string `json:"problem"`
	Hint    string `json:"hint,omitempty"` // what to do, may be empty

	err error // why the file could not be read, if that is what is wrong
}

// Unwrap tells fs.ErrPermission and fs.ErrNotExist from a file that was read.
func (e *Error) Unwrap() error { return e.err }

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Errors is everything wrong with a configuration, in the order of the file;
// its text has one line for each.
type Errors []*Error

func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the single errors.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// sorted returns the list in the order of the file, or nil when it is empty.
func (es Errors) sorted() error {
	if len(es) == 0 {
		return nil
	}
	slices.SortStableFunc(es, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	return es
}
