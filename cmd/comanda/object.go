package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// object is what commands print: named values in order. Values are strings,
// numbers, booleans, objects, and slices of them.
type object []field

type field struct {
	name  string
	value any
}

// MarshalJSON keeps the order of the fields.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, f := range o {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(f.value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, name...), ':'), value...)
	}
	return append(b, '}'), nil
}

// set gives a field of the object another value.
func (o object) set(name string, value any) {
	for i := range o {
		if o[i].name == name {
			o[i].value = value
		}
	}
}

// at finds a value by its path, as counts.ready; nil if it is not there.
func (o object) at(path string) any {
	name, rest, deeper := strings.Cut(path, ".")
	for _, f := range o {
		if f.name != name {
			continue
		}
		if !deeper {
			return f.value
		}
		if inner, ok := f.value.(object); ok {
			return inner.at(rest)
		}
	}
	return nil
}

// readable shows the body as the text that it is, for a person.
func (o object) readable(body []byte) object {
	for i := range o {
		if o[i].name == "body" && utf8.Valid(body) {
			o[i].value = string(body)
		}
	}
	return o
}

// objectOf turns messages into one object with the names of the contract:
// 64-bit numbers stay numbers, times and durations are text, enums are their
// names in small letters, bytes are base64. Fields that are not set are there
// with their zero; messages that are not set are left out.
func objectOf(ms ...proto.Message) object {
	o := object{}
	for _, m := range ms {
		o = append(o, messageObject(m.ProtoReflect())...)
	}
	return o
}

func messageObject(m protoreflect.Message) object {
	o := object{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.HasPresence() && !m.Has(f) {
			continue
		}
		o = append(o, field{f.TextName(), fieldValue(f, m.Get(f))})
	}
	return o
}

func fieldValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch {
	case f.IsList():
		values := make([]any, v.List().Len())
		for i := range values {
			values[i] = plainValue(f, v.List().Get(i))
		}
		return values
	case f.IsMap():
		values := map[string]any{} // json sorts its names
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			values[k.String()] = plainValue(f.MapValue(), v)
			return true
		})
		return values
	default:
		return plainValue(f, v)
	}
}

func plainValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.EnumKind:
		return comandav1.Word(f.Enum(), v.Enum())
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case protoreflect.MessageKind:
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return m.AsTime().Format(time.RFC3339Nano)
		case *durationpb.Duration:
			return m.AsDuration().String()
		case *comandav1.Attribute:
			return attributeValue(m)
		}
		return messageObject(v.Message())
	default:
		return v.Interface()
	}
}

func attributeValue(a *comandav1.Attribute) any {
	switch v := a.GetValue().(type) {
	case *comandav1.Attribute_Number:
		if json.Valid([]byte(v.Number)) {
			return json.Number(v.Number)
		}
		return v.Number
	case *comandav1.Attribute_Bytes:
		return object{{"bytes", base64.StdEncoding.EncodeToString(v.Bytes)}}
	default:
		return a.GetString_()
	}
}
