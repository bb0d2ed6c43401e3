//go:build faults

package faults

import (
	"errors"
	"strings"
	"testing"
)

// The record reports each thing that must not be. Two messages of one key were
// sent, with the ids a and b, and confirmed unless the case says otherwise.
func TestRecordReports(t *testing.T) {
	const key = 3
	come := func(r *record, n int, id string) { r.deliver(r.now(), id, body(key, n)) }
	for _, c := range []struct {
		what string
		do   func(*record) []string
		want string
	}{
		{"a lost message", func(r *record) []string { return r.compare(map[string]bool{"a": true}) }, "3/1 (b) was confirmed and is lost"},
		{"a message that never came", func(r *record) []string {
			come(r, 0, "a")
			return r.drained()
		}, "3/1 (b) was confirmed and never came"},
		{"a dropped ack, looked at", func(r *record) []string {
			come(r, 0, "a")
			r.ack(key, 0)
			r.acked(key, 0)
			return r.compare(map[string]bool{"a": true, "b": true})
		}, "3/0 (a) was acked and waits again"},
		{"a dropped ack, delivered", func(r *record) []string {
			come(r, 0, "a")
			r.ack(key, 0)
			r.acked(key, 0)
			come(r, 0, "a")
			return r.wrong
		}, "3/0 was acked and came again"},
		{"two holders of a key", func(r *record) []string {
			come(r, 0, "a")
			come(r, 1, "b")
			return r.wrong
		}, "3/1 came while 3/0 was not settled"},
		{"a key out of order", func(r *record) []string {
			come(r, 1, "b")
			come(r, 0, "a")
			return r.wrong
		}, "3/0 came after a later one of its key"},
		{"a message that is there twice", func(r *record) []string {
			come(r, 0, "a")
			come(r, 0, "c")
			return r.wrong
		}, "3/0 is there twice, as a and c"},
		{"a message that was never sent", func(r *record) []string {
			come(r, 2, "c")
			return r.wrong
		}, "was delivered and never sent so"},
		{"a message with another body", func(r *record) []string {
			r.deliver(r.now(), "a", append(body(key, 0), '!'))
			return r.wrong
		}, "was delivered and never sent so"},
		{"a stranger", func(r *record) []string { return r.compare(map[string]bool{"a": true, "b": true, "c": true}) }, "1 messages are there whose sending was not confirmed"},
		{"a refused message that is there", func(r *record) []string {
			r.refuse(key, r.begin(key, 1), errors.New("disk full"))
			come(r, 2, "c")
			return r.wrong
		}, "3/2 was refused and is there: disk full"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := &record{}
			from := r.begin(key, 2)
			r.confirm(key, from, "a")
			r.confirm(key, from+1, "b")
			if wrong := strings.Join(c.do(r), "\n"); !strings.Contains(wrong, c.want) {
				t.Errorf("reports %q, want %q", wrong, c.want)
			}
		})
	}
}

// The record is content with what may happen: a message of unknown outcome that
// is there or not, one that comes again because its ack was lost, one that was
// leased by a call that began before the ack.
func TestRecordIsContent(t *testing.T) {
	r := &record{}
	r.begin(0, 3)
	r.confirm(0, 1, "b")
	early := r.now()
	r.deliver(r.now(), "b", body(0, 1))
	r.ack(0, 1)
	r.deliver(r.now(), "b", body(0, 1))
	r.acked(0, 1)
	r.deliver(early, "b", body(0, 1))
	if wrong := r.compare(map[string]bool{"c": true}); len(wrong) > 0 {
		t.Error(wrong)
	}
	if wrong := r.drained(); len(wrong) > 0 {
		t.Error(wrong)
	}
}
