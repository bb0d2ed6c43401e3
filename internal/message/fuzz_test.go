package message

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// FuzzParseID: one message has one name.
func FuzzParseID(f *testing.F) {
	f.Add(NewID(5, CellPoint(3), 7).String())
	f.Add(NewID(MaxQueueNumber, PointOf(1<<64-1), MaxSequence-1).String())
	f.Add("00000010-0000-4000-8000-000000000001")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err == nil && (id.String() != text || NewID(id.Queue(), id.Point(), id.Seq()) != id) {
			t.Errorf("%q is read as %s", text, id)
		}
	})
}

// FuzzOpenToken: what opens is the token that was sealed, in its one form.
func FuzzOpenToken(f *testing.F) {
	id := NewID(5, CellPoint(3), 7)
	sealed := map[string]Token{}
	for _, t := range []Token{{ID: id, Fence: 9}, {ID: id, Fence: 1, Session: 3}, {ID: id, Place: NewID(6, CellPoint(1), 2)}} {
		text := t.Seal(&Secret{7})
		sealed[text] = t
		f.Add(text)
		f.Add(t.Seal(&Secret{8}))
	}
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := OpenToken(text, &Secret{7})
		if want, ok := sealed[text]; ok != (err == nil) || token != want {
			t.Errorf("%q opens as %+v, %v", text, token, err)
		}
		if err != nil && CodeOf(err) != InvalidArgument {
			t.Error(err)
		}
	})
}

// FuzzRedrive: a filter that is taken is the same on another node, and chooses there
// what it chooses here.
func FuzzRedrive(f *testing.F) {
	f.Add("t", "k", "b", "nacked", "a", "v", int64(0), int64(0), 0)
	f.Add("", "", "", "lapsed", "", "", int64(1_700_000_000_000), int64(1_800_000_000_000), 50)
	f.Add("", "", "", "bored", "", "", int64(-1), int64(0), -1)
	f.Add("", "\xff", "", "", "\xff", "", int64(0), int64(0), 0)
	f.Add("", "", "", "", "", "", int64(0), int64(1<<50), 0)
	f.Fuzz(func(t *testing.T, kind, key, tenant, reason, name, value string, since, until int64, rate int) {
		r := Redrive{Filter: DeadFilter{Type: kind, Key: key, Tenant: tenant, Reason: reason}, Rate: rate}
		if name != "" {
			r.Filter.Attributes = map[string]string{name: value}
		}
		if since != 0 {
			r.Filter.Since = time.UnixMilli(since).UTC()
		}
		if until != 0 {
			r.Filter.Until = time.UnixMilli(until).UTC()
		}
		if err := r.Check(); err != nil {
			if code := CodeOf(err); code != InvalidArgument && code != TooLarge {
				t.Error(err)
			}
			return
		}
		text, err := json.Marshal(&r)
		var there Redrive
		if err != nil || json.Unmarshal(text, &there) != nil || !reflect.DeepEqual(there, r) {
			t.Errorf("%+v is %+v elsewhere: %v", r, there, err)
		}
		as := []Attribute{{Name: name, Kind: AttributeString, Value: []byte(value)}}
		at := since
		if until != 0 {
			at = until - 1
		}
		if !r.Filter.Matches(kind, key, tenant, as, reason, at) {
			t.Errorf("%s does not choose what it names", r.Filter.String())
		}
	})
}
