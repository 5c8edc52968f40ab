package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// document parses b into the mapping at its root; nil stands for an empty file.
func document(name string, b []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntaxError(name, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, syntaxError(name, err)
		}
		return nil, &Error{File: name, Line: more.Line, Problem: "a second YAML document", Hint: "keep one document in this file"}
	}
	root := doc.Content[0]
	if isNull(root) {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, &Error{File: name, Line: root.Line, Problem: "expected keys with values, found " + kindName(root)}
	}
	return root, nil
}

var (
	yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	// The library counts lines from zero in complaints of its parser and from
	// one in those of its scanner; these are the parser's.
	fromZero = regexp.MustCompile(`^did not find expected (node content|key|'-' indicator|<|',' or)`)
)

// syntaxError turns the library's complaint into an Error with the line apart.
func syntaxError(name string, err error) *Error {
	const hint = "see this line and the one above; a value with [ { : or # in it needs quotes"
	m := yamlError.FindStringSubmatch(strings.ReplaceAll(err.Error(), "\n", " "))
	if m == nil {
		return &Error{File: name, Problem: "not valid YAML: " + printable(err.Error()), Hint: hint}
	}
	line, _ := strconv.Atoi(m[1])
	if fromZero.MatchString(m[2]) {
		line++
	}
	return &Error{File: name, Line: line, Problem: "not valid YAML: " + printable(m[2]), Hint: hint}
}

// decoder walks a YAML tree along the Go type it fills, collecting every error
// and the line of every key it meets.
type decoder struct {
	file    string
	errs    Errors
	lines   map[string]int // dotted path → line
	suspect []string       // keys with an error, and those an unknown key may have meant
}

func (d *decoder) fail(n *yaml.Node, key, problem, hint string) {
	d.errs = append(d.errs, &Error{File: d.file, Line: n.Line, Key: key, Problem: problem, Hint: hint})
	d.suspect = append(d.suspect, key)
}

// trusts says whether the value of key is what the file says, as far as it can
// be told: nothing is wrong with it, with what it is part of or with a part of it.
func (d *decoder) trusts(key string) bool {
	return !slices.ContainsFunc(d.suspect, func(s string) bool { return within(s, key) || within(key, s) })
}

// within says whether key is path or lies below it.
func within(key, path string) bool {
	rest, ok := strings.CutPrefix(key, path)
	return ok && path != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// mapping fills the struct dst points to from the keys of n; what n does not
// name keeps its value.
func (d *decoder) mapping(n *yaml.Node, dst any, path string) {
	d.structure(n, reflect.ValueOf(dst).Elem(), path)
}

func (d *decoder) structure(n *yaml.Node, dst reflect.Value, path string) {
	if n == nil || isNull(n) {
		return // `ke:` with nothing below it: all defaults
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "expected keys with values, found "+kindName(n), "")
		return
	}
	fields := fieldsOf(dst.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.fail(k, path, "a key must be one word, found "+kindName(k), "")
			continue
		}
		key := join(path, printable(k.Value))
		if first, twice := seen[k.Value]; twice {
			d.fail(k, key, fmt.Sprintf("given twice, first in line %d", first), "")
			continue
		}
		seen[k.Value] = k.Line
		f, known := fields[k.Value]
		if !known {
			meant := nearest(key)
			d.fail(k, key, "unknown key", didYouMean(meant))
			d.suspect = append(d.suspect, meant...)
			continue
		}
		d.lines[key] = k.Line
		d.value(v, dst.FieldByIndex(f.index), key, f.auto)
	}
}

func (d *decoder) value(n *yaml.Node, dst reflect.Value, key string, auto bool) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fail(n, key, "YAML anchors and aliases are not supported", "write the value out")
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, key, "YAML tags are not supported", "remove "+printable(n.Tag))
		return
	case auto && n.Kind == yaml.ScalarNode && n.Value == "auto":
		dst.SetZero()
		return
	}
	if _, ok := scalars[dst.Type()]; ok {
		before := len(d.errs)
		d.scalar(n, dst, key)
		if auto && len(d.errs) == before && dst.IsZero() {
			d.fail(n, key, fmt.Sprintf("%q is out of range", printable(n.Value)), "write auto or a value above zero")
		}
		return
	}
	switch dst.Kind() {
	case reflect.Slice:
		d.list(n, dst, key, auto)
	default:
		d.structure(n, dst, key)
	}
}

func (d *decoder) scalar(n *yaml.Node, dst reflect.Value, key string) {
	if n.Kind != yaml.ScalarNode {
		hint := ""
		if strings.HasPrefix(dst.Type().String(), "netip.") {
			hint = `put an IPv6 address in quotes, such as "[::]:PORT"`
		}
		d.fail(n, key, "expected one value, found "+kindName(n), hint)
		return
	}
	if isNull(n) {
		d.fail(n, key, "has no value", "give one or remove the key")
		return
	}
	_, err := parseText(n.Value)
	var v any
	if err == nil {
		v, err = scalars[dst.Type()].parse(n.Value)
	}
	if err != nil {
		d.fail(n, key, printable(err.Error()), "")
		return
	}
	dst.Set(reflect.ValueOf(v))
}

func (d *decoder) list(n *yaml.Node, dst reflect.Value, key string, auto bool) {
	if n.Kind != yaml.SequenceNode {
		hint := "write [a, b], or [] for none"
		if auto {
			hint = "write auto or [a, b]"
		}
		d.fail(n, key, "expected a list, found "+kindName(n), hint)
		return
	}
	if auto && len(n.Content) == 0 {
		d.fail(n, key, "the list is empty", "write auto or at least one value")
		return
	}
	dst.SetZero() // a list in the file replaces the default; an empty one is nil
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", key, i)
		d.lines[at] = item.Line
		v := reflect.New(dst.Type().Elem()).Elem()
		if def, ok := itemDefaults[v.Type()]; ok {
			v.Set(reflect.ValueOf(def))
		}
		d.value(item, v, at, false)
		dst.Set(reflect.Append(dst, v))
	}
}

// line is the line of key, or of the nearest key above it that the file names.
func (d *decoder) line(key string) int {
	if d.lines == nil { // no file was read
		return 0
	}
	for key != "" {
		if line, ok := d.lines[key]; ok {
			return line
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 1
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "keys with values"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case isNull(n):
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

// printable keeps text from the file on one short line without control characters.
func printable(s string) string {
	const longest = 200
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
