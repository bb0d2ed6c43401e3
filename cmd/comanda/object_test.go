package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// What is printed has the names of the contract, plain numbers, and the
// freshness beside the rest.
func TestObjectsAsJSON(t *testing.T) {
	for _, c := range []struct {
		of   []proto.Message
		want string
	}{
		{
			[]proto.Message{&comandav1.Counts{Ready: 1 << 60}, &comandav1.Freshness{ServedBy: "one", Role: "leader", AgeMs: 3}},
			`{"ready":1152921504606846976,"scheduled":0,"leased":0,"dead":0,"finished":0,"served_by":"one","role":"leader","age_ms":3}`,
		},
		{
			[]proto.Message{&comandav1.Backoff{Kind: comandav1.BackoffKind_BACKOFF_KIND_LIST, List: []*durationpb.Duration{durationpb.New(90 * time.Second)}}},
			`{"kind":"list","list":["1m30s"]}`,
		},
		{
			[]proto.Message{&comandav1.Event{At: timestamppb.New(time.Unix(0, 5e6)), Event: "sent"}},
			`{"at":"1970-01-01T00:00:00.005Z","event":"sent","worker":"","attempt":0,"error":"","from":"","to":""}`,
		},
		{
			[]proto.Message{&comandav1.NewMessage{Body: []byte("hi"), Attributes: map[string]*comandav1.Attribute{
				"b": client.Bytes([]byte{0xff}), "n": client.Number("12.50"), "s": client.String("x"), "odd": client.Number("1_0"),
			}}},
			`{"body":"aGk=","key":"","type":"","attributes":{"b":{"bytes":"/w=="},"n":12.50,"odd":"1_0","s":"x"},"tenant":"","priority":0,"dedup_id":"","unique_key":"","on_conflict":"unspecified"}`,
		},
		{[]proto.Message{&comandav1.SettleResult{State: comandav1.MessageState_MESSAGE_STATE_DEAD}}, `{"already_done":false,"state":"dead","follow_up_ids":[]}`},
		{[]proto.Message{&comandav1.SettleResult{State: 99}}, `{"already_done":false,"state":"99","follow_up_ids":[]}`},
	} {
		got, err := json.Marshal(objectOf(c.of...))
		if err != nil || string(got) != c.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
		}
	}
}

func TestPrinterFormats(t *testing.T) {
	os := []object{{{"id", "a"}, {"counts", object{{"ready", int64(1)}}}}, {{"id", "b\n\x1b[31m"}}}
	for format, want := range map[string]string{
		"name":  "a\nb\\n\\e[31m\n",
		"jsonl": `{"id":"a","counts":{"ready":1}}` + "\n" + `{"id":"b\n\u001b[31m"}` + "\n",
		"table": "ID         READY\na          1\nb\\n\\e[31m  \n",
	} {
		var out strings.Builder
		if err := (printer{out: &out, format: format}).many(os, "id", "counts.ready"); err != nil || out.String() != want {
			t.Errorf("%s: got %q, %v, want %q", format, out.String(), err, want)
		}
	}
	var out strings.Builder
	if err := (printer{out: &out, format: "json"}).many([]object{}, "id"); err != nil || out.String() != "[]\n" {
		t.Errorf("an empty list is %q, %v", out.String(), err)
	}
}

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		nil:                             0,
		errors.New("disk"):              1,
		usageError(errors.New("what?")): 2,
		&client.Error{Code: client.CodeInvalidArgument}:             2,
		client.ErrQueueNotFound:                                     3,
		client.ErrMessageNotFound:                                   3,
		client.ErrFenced:                                            4,
		fmt.Errorf("settle: %w", client.ErrResourceExhausted):       4,
		client.ErrUnreachable:                                       5,
		client.ErrUnavailable:                                       5,
		client.ErrUnknownOutcome:                                    6,
		&client.Error{Code: client.CodeInternal, Message: "defect"}: 1,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("exitCode(%v) = %d, want %d", err, got, want)
		}
	}
}

// The output of children that run at once comes out in whole lines, however
// long it is and however it is cut.
func TestBlocksDoNotMix(t *testing.T) {
	var out strings.Builder
	s := newShared(&out)
	a, b := s.block(), s.block()
	line := strings.Repeat("x", 1000)
	for range 500 {
		for _, c := range []struct {
			b    *block
			text string
		}{{a, "a"}, {b, "b"}} {
			fmt.Fprint(c.b, c.text, line)
			fmt.Fprint(c.b, line, c.text, "\n")
		}
	}
	if len(a.buf) > maxBlock || out.Len() == 0 {
		t.Errorf("%d bytes are held back, %d came out", len(a.buf), out.Len())
	}
	a.end()
	b.end()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, l := range lines {
		if len(l) != 2002 || l[0] != l[2001] {
			t.Fatalf("a line is mixed: %.20s", l)
		}
	}
	if len(lines) != 1000 {
		t.Errorf("%d lines came out", len(lines))
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var l tail
	for i := range 1000 {
		fmt.Fprintf(&l, "line %d é\n", i)
	}
	if got := l.String(); len(got) > maxTail || !strings.HasSuffix(got, "line 999 é") {
		t.Errorf("got %d bytes, …%q", len(got), got[max(0, len(got)-20):])
	}
}

// Doctor says what is wrong, and nothing else.
func TestExamine(t *testing.T) {
	now := time.Unix(1000, 0)
	well := func() *comandav1.GetServerResponse {
		return &comandav1.GetServerResponse{
			Version: version, Node: "one", Now: timestamppb.New(now), Voters: 1,
			Disk:   &comandav1.DiskStatus{FreeBytes: 1 << 40},
			Groups: []*comandav1.GroupStatus{{Group: 1, Leader: "one", Voters: 1}},
		}
	}
	for _, c := range []struct {
		check, state string
		ail          func(*comandav1.GetServerResponse)
	}{
		{"", "", func(*comandav1.GetServerResponse) {}},
		{"version", "warn", func(r *comandav1.GetServerResponse) { r.Version = "other" }},
		{"disk", "fail", func(r *comandav1.GetServerResponse) { r.Disk.BelowReserve = true }},
		{"fsync", "warn", func(r *comandav1.GetServerResponse) { r.Disk.FsyncP99Us = 80_000 }},
		{"memory", "fail", func(r *comandav1.GetServerResponse) { r.Memory = &comandav1.MemoryStatus{LimitBytes: 1, UsedBytes: 2} }},
		{"clock", "warn", func(r *comandav1.GetServerResponse) { r.Now = timestamppb.New(now.Add(-5 * time.Second)) }},
		{"group 1", "fail", func(r *comandav1.GetServerResponse) { r.Groups[0].Leader = "" }},
		{"voters", "warn", func(r *comandav1.GetServerResponse) { r.Voters = 2 }},
	} {
		r := well()
		c.ail(r)
		for _, f := range examine(r, now, time.Millisecond) {
			if want := map[bool]string{true: c.state, false: "ok"}[f.check == c.check]; f.state != want {
				t.Errorf("%s: check %s is %s, want %s", c.check, f.check, f.state, want)
			}
		}
	}
}

// Of an object in a list a person sees which value is which, but for a timeline's.
func TestSummaries(t *testing.T) {
	for want, m := range map[string]proto.Message{
		"tenant=t  by=bob": &comandav1.Pause{Tenant: "t", By: "bob"},
		"key=k  by=bob":    &comandav1.Pause{Key: "k", By: "bob"},
		"1970-01-01T00:00:01Z  nacked  worker=w  attempt=1": &comandav1.Event{At: timestamppb.New(time.Unix(1, 0)), Event: "nacked", Worker: "w", Attempt: 1},
	} {
		if got := summary(objectOf(m)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
