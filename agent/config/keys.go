package config

import (
	"reflect"
	"slices"
	"strings"
)

// field is one key of a mapping: which field of the Go type it fills and
// whether the word "auto" is allowed as its value.
type field struct {
	name  string
	index []int
	auto  bool
	typ   reflect.Type
}

// keysOf lists the keys of a struct type in the order of the file.
func keysOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		fields = append(fields, field{name: name, index: f.Index, auto: option == "auto", typ: f.Type})
	}
	return fields
}

func fieldsOf(t reflect.Type) map[string]field {
	m := map[string]field{}
	for _, f := range keysOf(t) {
		m[f.name] = f
	}
	return m
}

// knownKeys lists the dotted paths of all keys, lists of mappings included
// ("pools.name").
func knownKeys(t reflect.Type, path string) []string {
	var keys []string
	for _, f := range keysOf(t) {
		key := join(path, f.name)
		keys = append(keys, key)
		inner := f.typ
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if _, scalar := scalars[inner]; !scalar && inner.Kind() == reflect.Struct {
			keys = append(keys, knownKeys(inner, key)...)
		}
	}
	return keys
}

// didYouMean is the hint for an unknown key that may have meant one of these.
func didYouMean(meant []string) string {
	if len(meant) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(meant, " or ") + "?"
}

// nearest lists what an unknown key may have meant: the nearest key beside it,
// else the keys of that very name elsewhere, else none.
func nearest(key string) []string {
	parent, word := "", key
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		parent, word = key[:i], key[i+1:]
	}
	plain := withoutIndex(parent)
	best, bestAt := "", 1+max(2, len(word)/3)
	var elsewhere []string
	for _, known := range knownKeys(reflect.TypeFor[Config](), "") {
		in, last := "", known
		if i := strings.LastIndexByte(known, '.'); i >= 0 {
			in, last = known[:i], known[i+1:]
		}
		distance := editDistance(strings.ToLower(word), last)
		if len(word) >= 4 && distance > 1 && strings.HasPrefix(last, strings.ToLower(word)) { // cut short
			distance = 1
		}
		if in == plain && distance < bestAt && distance < max(len(word), len(last)) {
			best, bestAt = join(parent, last), distance
		}
		if distance == 0 {
			elsewhere = append(elsewhere, known)
		}
	}
	if best != "" {
		return []string{best}
	}
	return elsewhere
}

// withoutIndex turns pools[0] into pools.
func withoutIndex(path string) string {
	for {
		open := strings.IndexByte(path, '[')
		if open < 0 {
			return path
		}
		length := strings.IndexByte(path[open:], ']')
		if length < 0 {
			return path
		}
		path = path[:open] + path[open+length+1:]
	}
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b. Long words are far from everything.
func editDistance(a, b string) int {
	const tooLong = 64
	if len(a) > tooLong || len(b) > tooLong {
		return tooLong
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = slices.Min([]int{next[j-1] + 1, row[j] + 1, row[j-1] + cost})
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
