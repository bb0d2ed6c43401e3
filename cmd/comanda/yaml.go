package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// readMessage fills a message from YAML as objectOf shows it: fields under their
// names in the contract, durations as 1m30s, enums by their names in small
// letters, numbers of bytes also as 1MiB, and rates also as 5/1s. Only the named fields are taken;
// nil: all.
func readMessage(node *yaml.Node, m protoreflect.Message, only []string) error {
	fields := m.Descriptor().Fields()
	return eachField(node, func(name, value *yaml.Node) error {
		f := fields.ByTextName(name.Value)
		if f == nil || (only != nil && !slices.Contains(only, name.Value)) {
			return fmt.Errorf("line %d: there is no %q here: want %s", name.Line, name.Value, strings.Join(fieldNames(fields, only), ", "))
		}
		return readField(value, m, f)
	})
}

// eachField visits the fields of a mapping, each of which stands there once.
func eachField(node *yaml.Node, visit func(name, value *yaml.Node) error) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want fields and values", node.Line)
	}
	seen := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		name := node.Content[i]
		if seen[name.Value] {
			return fmt.Errorf("line %d: %s stands here twice", name.Line, name.Value)
		}
		seen[name.Value] = true
		if err := visit(name, node.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// maxFile is how many bytes a file may have.
const maxFile = 16 << 20

// readText reads a file; - is standard input.
func readText(stdin io.Reader, file string) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read it: %w", err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("it has more than %d bytes: divide it", maxFile)
	}
	return text, nil
}

// parseYAML reads one document; nothing leaves it as it is.
func parseYAML(text []byte, document any) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(document); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var more yaml.Node
	switch err := d.Decode(&more); {
	case err == nil:
		return fmt.Errorf("line %d: a second document begins: want one", more.Line)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func fieldNames(fields protoreflect.FieldDescriptors, only []string) []string {
	if only != nil {
		return only
	}
	var names []string
	for i := range fields.Len() {
		names = append(names, fields.Get(i).TextName())
	}
	return names
}

func readField(node *yaml.Node, m protoreflect.Message, f protoreflect.FieldDescriptor) error {
	if f.IsList() {
		if node.Kind != yaml.SequenceNode {
			return fmt.Errorf("line %d: %s: want a list", node.Line, f.TextName())
		}
		list := m.Mutable(f).List()
		for _, item := range node.Content {
			v, err := readValue(item, f, list.NewElement)
			if err != nil {
				return err
			}
			list.Append(v)
		}
		return nil
	}
	v, err := readValue(node, f, func() protoreflect.Value { return m.NewField(f) })
	if err == nil {
		m.Set(f, v)
	}
	return err
}

// readValue reads one value of a field; empty makes a message for it.
func readValue(node *yaml.Node, f protoreflect.FieldDescriptor, empty func() protoreflect.Value) (v protoreflect.Value, err error) {
	if f.Message() != nil && f.Message().FullName() != (&durationpb.Duration{}).ProtoReflect().Descriptor().FullName() {
		v = empty()
		if rate, ok := v.Message().Interface().(*comandav1.Rate); ok && node.Kind == yaml.ScalarNode && node.Value != "" { // as the flag says it
			r, err := parseRate(node.Value)
			if err != nil {
				return v, fmt.Errorf("line %d: %s %q: %w", node.Line, f.TextName(), node.Value, err)
			}
			proto.Merge(rate, r)
			return v, nil
		}
		return v, readMessage(node, v.Message(), nil)
	}
	if node.Kind != yaml.ScalarNode || node.ShortTag() == "!!null" {
		return v, fmt.Errorf("line %d: %s: want one value", node.Line, f.TextName())
	}
	switch f.Kind() {
	case protoreflect.MessageKind:
		var d time.Duration
		d, err = time.ParseDuration(node.Value)
		v = protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect())
	case protoreflect.EnumKind:
		v, err = enumValue(f.Enum(), node.Value)
	case protoreflect.StringKind:
		v = protoreflect.ValueOfString(node.Value)
	case protoreflect.BoolKind:
		var b bool
		b, err = strconv.ParseBool(node.Value)
		v = protoreflect.ValueOfBool(b)
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		v, err = intValue(node.Value, f)
	case protoreflect.DoubleKind:
		var x float64
		x, err = strconv.ParseFloat(node.Value, 64)
		v = protoreflect.ValueOfFloat64(x)
	default:
		panic(fmt.Sprintf("no field of settings is a %s so far", f.Kind()))
	}
	if err != nil {
		err = fmt.Errorf("line %d: %s %q: %w", node.Line, f.TextName(), node.Value, err)
	}
	return v, err
}

func intValue(text string, f protoreflect.FieldDescriptor) (v protoreflect.Value, err error) {
	bits := 64
	if f.Kind() == protoreflect.Int32Kind {
		bits = 32
	}
	if strings.HasSuffix(f.TextName(), "_bytes") {
		n, err := parseBytes(text)
		if err != nil {
			return v, err
		}
		text = strconv.FormatUint(n, 10)
	}
	n, err := strconv.ParseInt(text, 10, bits)
	if bits == 32 {
		return protoreflect.ValueOfInt32(int32(n)), err
	}
	return protoreflect.ValueOfInt64(n), err
}

func enumValue(e protoreflect.EnumDescriptor, word string) (protoreflect.Value, error) {
	var words []string
	for i := 1; i < e.Values().Len(); i++ { // 0 is unspecified
		n := e.Values().Get(i).Number()
		known := comandav1.Word(e, n)
		if known == word {
			return protoreflect.ValueOfEnum(n), nil
		}
		words = append(words, known)
	}
	return protoreflect.Value{}, fmt.Errorf("want %s", strings.Join(words, ", "))
}

// yamlNode is a value of an object in YAML; zeros are left out.
func yamlNode(v any) *yaml.Node {
	switch v := v.(type) {
	case object:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range v {
			if x := yamlNode(f.value); x.Kind != 0 {
				n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.name}, x)
			}
		}
		return n
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if len(v) == 0 {
			return &yaml.Node{}
		}
		for _, x := range v {
			n.Content = append(n.Content, yamlNode(x))
		}
		return n
	default:
		n := &yaml.Node{}
		if err := n.Encode(v); err != nil || n.Value == "0" || n.Value == "" || n.Value == "false" {
			return &yaml.Node{}
		}
		return n
	}
}
