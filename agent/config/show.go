package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"

	"gopkg.in/yaml.v3"
)

//go:embed example.yaml
var example []byte

// Example is a commented configuration with every key at its default and
// placeholders for what only the operator knows.
func Example() []byte { return bytes.Clone(example) }

// Show is the effective configuration as YAML: Parse of it gives c again. A
// configuration holds paths of secret files but no secret, so neither does this.
func Show(c *Config) []byte {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	// The tree is built from scalars, lists and mappings alone and the target
	// is memory: there is nothing in it that could fail to encode.
	_ = enc.Encode(encode(reflect.ValueOf(c).Elem(), false))
	_ = enc.Close()
	return b.Bytes()
}

// MarshalJSON is Show as JSON, with the keys of the file.
func (c *Config) MarshalJSON() ([]byte, error) {
	var tree map[string]any
	if err := encode(reflect.ValueOf(c).Elem(), false).Decode(&tree); err != nil {
		return nil, fmt.Errorf("encode the configuration: %w", err)
	}
	return json.Marshal(tree)
}

func encode(v reflect.Value, auto bool) *yaml.Node {
	if auto && v.IsZero() {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: "auto"}
	}
	if s, ok := scalars[v.Type()]; ok {
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: s.format(v.Interface())}
		switch v.Interface().(type) {
		case bool, int, uint16, uint32:
		default:
			n.Tag = "!!str" // quoted where YAML would read something else
		}
		return n
	}
	if v.Kind() == reflect.Slice {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			n.Content = append(n.Content, encode(v.Index(i), false))
		}
		return n
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range keysOf(v.Type()) {
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: f.name}
		n.Content = append(n.Content, key, encode(v.FieldByIndex(f.index), f.auto))
	}
	return n
}
