package native

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// REST speaks JSON under the names of the contract, with the words of the command
// line: "dead" and "1h30m", not "MESSAGE_STATE_DEAD" and "5400s". What protobuf's own
// JSON says is read as well. This is a codec of our own because that one knows neither,
// and its errors do not say which field is meant.

// decodeJSON reads m, which is empty. It refuses fields that are unknown or stand twice,
// and whatever can't be kept as it is.
func decodeJSON(text []byte, m proto.Message) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return message.Errorf(message.InvalidArgument, "the body is empty: want an object")
	}
	r := newJSONReader(text, "the body")
	t, err := r.next()
	if err != nil {
		return err
	}
	if err := r.message(t, m.ProtoReflect(), ""); err != nil {
		return err
	}
	return r.end()
}

// decodeField reads one field of m, at being its name for errors.
func decodeField(text []byte, m protoreflect.Message, f protoreflect.FieldDescriptor, at string) error {
	r := newJSONReader(text, at)
	if err := r.field(m, f, at); err != nil {
		return err
	}
	return r.end()
}

// jsonReader reads values by the fields that they are for. At, in its functions, is
// where the value stands, as messages[0].delay.
type jsonReader struct {
	what string // what text is, for errors
	text []byte
	d    *json.Decoder
}

func newJSONReader(text []byte, what string) jsonReader {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return jsonReader{what, text, d}
}

func (r jsonReader) next() (json.Token, error) {
	start := r.d.InputOffset()
	t, err := r.d.Token()
	var broken *json.SyntaxError
	switch {
	case errors.As(err, &broken):
		return nil, message.Errorf(message.InvalidArgument, "%s is not JSON, at byte %d: %s", r.what, r.d.InputOffset(), err)
	case err != nil:
		return nil, message.Errorf(message.InvalidArgument, "%s is not JSON: it ends early, at byte %d", r.what, len(r.text))
	}
	// The decoder puts U+FFFD where a text is no Unicode, and two keys would be one.
	raw := r.text[start:r.d.InputOffset()]
	if s, ok := t.(string); ok && strings.Count(s, "\ufffd") > bytes.Count(raw, []byte("\ufffd"))+bytes.Count(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return nil, message.Errorf(message.InvalidArgument, "%s has a text that is not Unicode, up to byte %d: only a message's body may be any bytes, as base64", r.what, r.d.InputOffset())
	}
	return t, nil
}

// end says that nothing stands behind what was read.
func (r jsonReader) end() error {
	end := r.d.InputOffset()
	if _, err := r.d.Token(); !errors.Is(err, io.EOF) {
		return message.Errorf(message.InvalidArgument, "%s is not one JSON value: something stands behind byte %d", r.what, end)
	}
	return nil
}

func (r jsonReader) message(t json.Token, m protoreflect.Message, at string) error {
	return r.object(t, at, func(name, at string) error {
		fields := m.Descriptor().Fields()
		f := fields.ByTextName(name)
		if f == nil {
			f = fields.ByJSONName(name)
		}
		if f == nil {
			return message.Errorf(message.InvalidArgument, "%s is not known here%s", at, among(", only", fieldNames(fields)))
		}
		if one := f.ContainingOneof(); m.Has(f) || one != nil && m.WhichOneof(one) != nil {
			return message.Errorf(message.InvalidArgument, "%s stands beside another name of it, or beside what excludes it", at)
		}
		return r.field(m, f, at)
	})
}

func fieldNames(fields protoreflect.FieldDescriptors) []string {
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = fields.Get(i).TextName()
	}
	return names
}

// object calls each for the names of an object, which reads their values.
func (r jsonReader) object(t json.Token, at string, each func(name, at string) error) error {
	if t != json.Delim('{') {
		return mismatch(t, at, "an object")
	}
	seen := map[string]bool{}
	for r.d.More() {
		t, err := r.next()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return mismatch(t, at, "names in quotes")
		}
		inner := fmt.Sprintf("%.100s", name)
		if at != "" {
			inner = at + "." + inner
		}
		if len(seen) == message.MaxBatch {
			return message.Errorf(message.InvalidArgument, "%s has more than %d names", cmp.Or(at, r.what), message.MaxBatch)
		}
		if seen[name] {
			return message.Errorf(message.InvalidArgument, "%s stands twice", inner)
		}
		seen[name] = true
		if err := each(name, inner); err != nil {
			return err
		}
	}
	_, err := r.next()
	return err
}

// field reads the value of f. Null is as if it did not stand there.
func (r jsonReader) field(m protoreflect.Message, f protoreflect.FieldDescriptor, at string) error {
	t, err := r.next()
	switch {
	case err != nil || t == nil:
		return err
	case f.IsMap():
		values := m.Mutable(f).Map()
		return r.object(t, at, func(name, at string) error {
			t, err := r.next()
			if err != nil {
				return err
			}
			v, err := r.value(t, f.MapValue(), values.NewValue, at)
			if err == nil {
				values.Set(protoreflect.ValueOfString(name).MapKey(), v)
			}
			return err
		})
	case f.IsList():
		return r.list(t, f, m.Mutable(f).List(), at)
	}
	v, err := r.value(t, f, func() protoreflect.Value { return m.NewField(f) }, at)
	if err == nil {
		m.Set(f, v)
	}
	return err
}

func (r jsonReader) list(t json.Token, f protoreflect.FieldDescriptor, values protoreflect.List, at string) error {
	if t != json.Delim('[') {
		return mismatch(t, at, "a list")
	}
	for r.d.More() {
		if values.Len() == message.MaxBatch {
			return message.Errorf(message.InvalidArgument, "%s has more than %d values: divide it", at, message.MaxBatch)
		}
		t, err := r.next()
		if err != nil {
			return err
		}
		v, err := r.value(t, f, values.NewElement, fmt.Sprintf("%s[%d]", at, values.Len()))
		if err != nil {
			return err
		}
		values.Append(v)
	}
	_, err := r.next()
	return err
}

// value is one value for f; empty makes a message for it.
func (r jsonReader) value(t json.Token, f protoreflect.FieldDescriptor, empty func() protoreflect.Value, at string) (protoreflect.Value, error) {
	if f.Message() != nil && f.Message() == attributeType {
		a := &comandav1.Attribute{}
		return protoreflect.ValueOfMessage(a.ProtoReflect()), r.attribute(t, a, at)
	}
	if f.Message() != nil && !isText(f) {
		m := empty()
		return m, r.message(t, m.Message(), at)
	}
	v, ok := protoreflect.Value{}, false
	switch t := t.(type) {
	case bool:
		v, ok = protoreflect.ValueOfBool(t), f.Kind() == protoreflect.BoolKind
	case string:
		v, ok = parseText(f, t)
		ok = ok && f.Kind() != protoreflect.BoolKind
	case json.Number:
		v, ok = parseText(f, t.String())
		ok = ok && f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind
	}
	if !ok {
		return v, mismatch(t, at, wanted(f))
	}
	return v, nil
}

// attribute reads a text, a number with all its digits, or an object that says which
// it is.
func (r jsonReader) attribute(t json.Token, a *comandav1.Attribute, at string) error {
	switch t := t.(type) {
	case string:
		a.Value = &comandav1.Attribute_String_{String_: t}
	case json.Number:
		a.Value = &comandav1.Attribute_Number{Number: t.String()}
	case json.Delim:
		if err := r.message(t, a.ProtoReflect(), at); err != nil {
			return err
		}
	}
	if a.GetValue() == nil {
		return mismatch(t, at, `a text, a number or {"bytes": base64}`)
	}
	return nil
}

var (
	attributeType = (&comandav1.Attribute{}).ProtoReflect().Descriptor()
	durationType  = (&durationpb.Duration{}).ProtoReflect().Descriptor()
	timestampType = (&timestamppb.Timestamp{}).ProtoReflect().Descriptor()
)

// isText says whether the values of f have a form as one text: all but objects.
func isText(f protoreflect.FieldDescriptor) bool {
	m := f.Message()
	return m == nil || m == durationType || m == timestampType
}

// valueOf reads a value for f that stands as text outside of JSON.
func valueOf(f protoreflect.FieldDescriptor, at, text string) (protoreflect.Value, error) {
	v, ok := parseText(f, text)
	if !ok {
		return v, mismatch(text, at, wanted(f))
	}
	return v, nil
}

// parseText reads a value for f as it stands in a header, a query or a path, or as a
// text or number in JSON.
func parseText(f protoreflect.FieldDescriptor, text string) (v protoreflect.Value, ok bool) {
	var err error
	switch f.Kind() {
	case protoreflect.StringKind:
		v = protoreflect.ValueOfString(text)
	case protoreflect.BoolKind:
		var b bool
		b, err = strconv.ParseBool(text)
		v = protoreflect.ValueOfBool(b)
	case protoreflect.Int32Kind:
		var n int64
		n, err = strconv.ParseInt(text, 10, 32)
		v = protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint64Kind:
		var n uint64
		n, err = strconv.ParseUint(text, 10, 64)
		v = protoreflect.ValueOfUint64(n)
	case protoreflect.BytesKind:
		var b []byte
		b, err = parseBase64(text)
		v = protoreflect.ValueOfBytes(b)
	case protoreflect.EnumKind:
		return parseWord(f.Enum(), text)
	case protoreflect.MessageKind:
		if f.Message() == durationType {
			var d time.Duration
			d, err = parseDuration(text)
			v = protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect())
		} else {
			var t time.Time
			t, err = time.Parse(time.RFC3339, text)
			v = protoreflect.ValueOfMessage(timestamppb.New(t).ProtoReflect())
		}
	default:
		panic(fmt.Sprintf("requests have no fields as %s", f.FullName())) // TestEveryRouteRefuses would see one
	}
	return v, err == nil
}

// parseDuration reads a Go duration, or seconds.
func parseDuration(text string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		text += "s"
	}
	return time.ParseDuration(text)
}

// parseBase64 reads both alphabets, padded or not.
func parseBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.DecodeString(text)
}

// parseWord reads a value of an enum: its word, its name or its number.
func parseWord(e protoreflect.EnumDescriptor, text string) (protoreflect.Value, bool) {
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		if text == comandav1.Word(e, v.Number()) || text == string(v.Name()) || text == strconv.Itoa(int(v.Number())) {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
	}
	return protoreflect.Value{}, false
}

// wanted says in words what parseText reads.
func wanted(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.Int32Kind:
		return fmt.Sprintf("a whole number up to %d", math.MaxInt32)
	case protoreflect.Uint64Kind:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64))
	case protoreflect.BytesKind:
		return "bytes as base64"
	case protoreflect.EnumKind:
		var words []string
		for i := 1; i < f.Enum().Values().Len(); i++ { // 0 is unspecified
			words = append(words, comandav1.Word(f.Enum(), f.Enum().Values().Get(i).Number()))
		}
		last := len(words) - 1
		return strings.Join(words[:last], ", ") + " or " + words[last]
	case protoreflect.MessageKind:
		if f.Message() == durationType {
			return "a duration as 90s or 1h30m, or seconds"
		}
		return "a time as 2026-01-31T18:00:00Z"
	default:
		return "a text"
	}
}

// mismatch says what t is, and what should be there.
func mismatch(t json.Token, at, want string) error {
	is := "null"
	switch t := t.(type) {
	case json.Delim:
		is = map[json.Delim]string{'{': "an object", '[': "a list"}[t]
	case string:
		is = fmt.Sprintf("%.100q", t)
	case json.Number:
		is = fmt.Sprintf("%.100s", t)
	case bool:
		is = strconv.FormatBool(t)
	}
	if at == "" {
		at = "the body"
	}
	return message.Errorf(message.InvalidArgument, "%s is %s: want %s", at, is, want)
}

// encodeJSON writes m with all its fields, also those that are not set. Numbers of 64
// bits are texts, for many readers have no more than a double for them.
func encodeJSON(m proto.Message) ([]byte, error) {
	w := &jsonWriter{}
	w.texts = json.NewEncoder(&w.Buffer)
	w.texts.SetEscapeHTML(false)
	w.message(m.ProtoReflect())
	return w.Bytes(), w.err
}

type jsonWriter struct {
	bytes.Buffer
	texts *json.Encoder // into the buffer
	err   error
}

// plain writes what encoding/json writes.
func (w *jsonWriter) plain(v any) {
	w.err = errors.Join(w.err, w.texts.Encode(v))
	w.Truncate(max(0, w.Len()-1)) // its newline
}

func (w *jsonWriter) message(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	sep := byte('{')
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.ContainingOneof() != nil && !m.Has(f) {
			continue
		}
		w.WriteByte(sep)
		sep = ','
		w.plain(f.TextName())
		w.WriteByte(':')
		w.field(f, m)
	}
	if sep == '{' {
		w.WriteByte(sep)
	}
	w.WriteByte('}')
}

func (w *jsonWriter) field(f protoreflect.FieldDescriptor, m protoreflect.Message) {
	v := m.Get(f)
	switch {
	case f.IsMap():
		w.entries(f, v.Map())
	case f.IsList():
		w.WriteByte('[')
		for i := range v.List().Len() {
			if i > 0 {
				w.WriteByte(',')
			}
			w.value(f, v.List().Get(i))
		}
		w.WriteByte(']')
	case f.Message() != nil && !m.Has(f):
		w.WriteString("null")
	default:
		w.value(f, v)
	}
}

// entries writes a map by its names, in their order.
func (w *jsonWriter) entries(f protoreflect.FieldDescriptor, values protoreflect.Map) {
	var names []string
	values.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		names = append(names, k.String())
		return true
	})
	slices.Sort(names)
	w.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			w.WriteByte(',')
		}
		w.plain(name)
		w.WriteByte(':')
		w.value(f.MapValue(), values.Get(protoreflect.ValueOfString(name).MapKey()))
	}
	w.WriteByte('}')
}

func (w *jsonWriter) value(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.EnumKind:
		w.plain(comandav1.Word(f.Enum(), v.Enum()))
	case protoreflect.Int64Kind, protoreflect.Uint64Kind:
		w.plain(v.String())
	case protoreflect.MessageKind:
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			w.plain(m.AsTime().Format(time.RFC3339Nano))
		case *durationpb.Duration:
			w.plain(m.AsDuration().String())
		default:
			w.message(v.Message())
		}
	default:
		w.plain(v.Interface())
	}
}
