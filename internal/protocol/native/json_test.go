package native

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// REST reads the words that the command line has, and what protobuf's JSON says.
func TestJSONReads(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // in protobuf's JSON
		into proto.Message
	}{
		{`{"settings":{"on_failure":"skip","backoff":{"kind":"fixed","list":["1m","1.5s",90]}}}`, `{"settings":{"on_failure":"ON_FAILURE_SKIP","backoff":{"kind":"BACKOFF_KIND_FIXED","list":["60s","1.5s","90s"]}}}`, &comandav1.CreateQueueRequest{}},
		{`{"settings":{"onFailure":"ON_FAILURE_SKIP","assign":2,"keepFinishedFor":"3600s"}}`, `{"settings":{"on_failure":"ON_FAILURE_SKIP","assign":2,"keep_finished_for":"3600s"}}`, &comandav1.CreateQueueRequest{}},
		{`{"messages":[{"on_conflict":"existing","delay":"5m","attributes":{"s":"x","n":12.50,"b":{"bytes":"/w"}}}]}`, `{"messages":[{"on_conflict":2,"delay":"300s","attributes":{"s":{"string":"x"},"n":{"number":"12.50"},"b":{"bytes":"/w=="}}}]}`, &comandav1.SendRequest{}},
		{`{"messages":[{"body":"_-8=","attributes":{"s":{"string":"x"},"n":{"number":"1"}},"expires":"2026-01-31T18:00:00+01:00"},{"key":null}]}`, `{"messages":[{"body":"/+8","attributes":{"s":{"string":"x"},"n":{"number":"1"}},"expires":"2026-01-31T17:00:00Z"},{}]}`, &comandav1.SendRequest{}},
		{`{"settlements":[{"action":"ack"},{"action":"ACTION_NACK","delay":"0s"}]}`, `{"settlements":[{"action":1},{"action":2,"delay":"0s"}]}`, &comandav1.SettleRequest{}},
		{`{"version":"18446744073709551615","dry_run":true}`, `{"version":18446744073709551615,"dry_run":true}`, &comandav1.UpdateQueueRequest{}},
		{`{"filter":{"attributes":{"a":"\ufffd"},"dead_since":"1970-01-01T00:00:01.5Z"}}`, `{"filter":{"attributes":{"a":"\ufffd"},"dead_since":"1970-01-01T00:00:01.5Z"}}`, &comandav1.RedriveQueueRequest{}},
	} {
		want := c.into.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal([]byte(c.want), want); err != nil {
			t.Fatal(err)
		}
		if err := decodeJSON([]byte(c.text), c.into); err != nil || !proto.Equal(c.into, want) {
			t.Errorf("%s: read as %s, %v", c.text, prototext.Format(c.into), err)
		}
	}
}

// What can't be read is refused with the field, what stands there and what may.
func TestJSONRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`{"messages":[{},{"delay":"soon"}]}`:                               `messages[1].delay is "soon": want a duration as 90s or 1h30m, or seconds`,
		`{"messages":[{"on_conflict":"wait"}]}`:                            `messages[0].on_conflict is "wait": want reject or existing`,
		`{"messages":[{"expires":"1h"}]}`:                                  `messages[0].expires is "1h": want a time as 2026-01-31T18:00:00Z`,
		`{"messages":[{"priority":"high"}]}`:                               `messages[0].priority is "high": want a whole number up to 2147483647`,
		`{"messages":[{"priority":2147483648}]}`:                           `messages[0].priority is 2147483648: want a whole number up to 2147483647`,
		`{"messages":[{"key":7}]}`:                                         `messages[0].key is 7: want a text`,
		`{"messages":[{"body":"?"}]}`:                                      `messages[0].body is "?": want bytes as base64`,
		`{"messages":[{"attributes":{"a":true}}]}`:                         `messages[0].attributes.a is true: want a text, a number or {"bytes": base64}`,
		`{"messages":[{"attributes":[]}]}`:                                 `messages[0].attributes is a list: want an object`,
		`{"messages":[{"retry":{"backoff":"fast"}}]}`:                      `messages[0].retry.backoff is "fast": want an object`,
		`{"messages":[null]}`:                                              `messages[0] is null: want an object`,
		`{"messages":{}}`:                                                  `messages is an object: want a list`,
		`{"messages":[{"key":"a","key":"b"}]}`:                             `messages[0].key stands twice`,
		`{"messages":[{"dedup_id":"a","dedupId":"b"}]}`:                    `messages[0].dedupId stands beside another name of it, or beside what excludes it`,
		`{"messages":[{"attributes":{"a":{"string":"a","number":"1"}}}]}`:  `messages[0].attributes.a.number stands beside another name of it, or beside what excludes it`,
		`{"messages":[{"key":"\ufffd\ud800"}]}`:                            `the body has a text that is not Unicode, up to byte 34: only a message's body may be any bytes, as base64`,
		`{"messages":[` + strings.Repeat(`{},`, message.MaxBatch) + `{}]}`: `messages has more than 1000 values: divide it`,
		`{"atomic":"true"}`:                                                `atomic is "true": want true or false`,
		`{"atomic":true,"colour":1}`:                                       `colour is not known here, only queue, messages, atomic`,
		`[]`:                                                               `the body is a list: want an object`,
		` `:                                                                `the body is empty: want an object`,
		`{"messages":`:                                                     `the body is not JSON: it ends early, at byte 12`,
		`{"messages":x}`:                                                   `the body is not JSON, at byte 12: invalid character 'x' looking for beginning of value`,
		`{}x`:                                                              `the body is not one JSON value: something stands behind byte 2`,
		"{\"messages\":[{\"key\":\"a\xff\"}]}":                             `the body has a text that is not Unicode, up to byte 24: only a message's body may be any bytes, as base64`,
		"{\"messages\":[{\"key\":\"a\\ud800\"}]}":                          `the body has a text that is not Unicode, up to byte 29: only a message's body may be any bytes, as base64`,
		"{\"messages\":[{\"key\":\"a\xff\uFFFD\"}]}":                       `the body has a text that is not Unicode, up to byte 27: only a message's body may be any bytes, as base64`,
		"{\"messages\":[{\"key\":\"a\xff\\ufffd\"}]}":                      `the body has a text that is not Unicode, up to byte 30: only a message's body may be any bytes, as base64`,
	} {
		err := decodeJSON([]byte(text), &comandav1.SendRequest{})
		if err == nil || err.Error() != string(message.InvalidArgument)+": "+want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Answers have the same words, and a reader of requests can read them.
func TestJSONAnswers(t *testing.T) {
	for want, m := range map[string]proto.Message{
		`{"error":null,"already_done":false,"state":"dead","follow_up_ids":[]}`:                                         &comandav1.SettleResult{State: comandav1.MessageState_MESSAGE_STATE_DEAD},
		`{"error":{"code":"FENCED","message":"<"},"already_done":true,"state":"unspecified","follow_up_ids":["a","b"]}`: &comandav1.SettleResult{Error: &comandav1.Error{Code: "FENCED", Message: "<"}, AlreadyDone: true, FollowUpIds: []string{"a", "b"}},
		`{}`:                         &comandav1.ExtendResponse{},
		`{"worker":"","share":0.25}`: &comandav1.PreferredWorker{Share: 0.25},
	} {
		if text, err := encodeJSON(m); err != nil || string(text) != want {
			t.Errorf("%s, %v, want %s", text, err, want)
		}
	}
	enums := comandav1.File_comanda_v1_comanda_proto.Enums()
	for i := range enums.Len() {
		for j := range enums.Get(i).Values().Len() {
			v := enums.Get(i).Values().Get(j)
			word := comandav1.Word(enums.Get(i), v.Number())
			if got, ok := parseWord(enums.Get(i), word); !ok || got.Enum() != v.Number() || strings.ToLower(word) != word || strings.Contains(word, "_") {
				t.Errorf("%s is %q, which is read as %v", v.Name(), word, got)
			}
		}
	}
}

// Whatever a request holds is the same when it was written and read.
func TestJSONIsReversible(t *testing.T) {
	eachRPC(t, func(t *testing.T, m protoreflect.MethodDescriptor, req proto.Message) {
		if m.IsStreamingClient() {
			return // has no REST form
		}
		text, err := encodeJSON(req)
		if err != nil {
			t.Fatal(err)
		}
		got := req.ProtoReflect().New().Interface()
		if err := decodeJSON(text, got); err != nil || !proto.Equal(got, req) {
			t.Errorf("%s: read as %s, %v", text, prototext.Format(got), err)
		}
	})
}
