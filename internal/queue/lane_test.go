package queue_test

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

func cloneRows(m map[string][]byte) map[string][]byte { return maps.Clone(m) }

// kept counts the answers that a group keeps.
func (w *world) kept() (n int) {
	w.rows.Scan(0, []byte{'e'}, []byte{'f'}, func(_, _ []byte) bool { n++; return true })
	return n
}

// TestEveryCommandTwice sends each command of a message's life twice by its
// lane: the second time nothing changes and the answer is the same; also when
// the group was loaded anew in between, and within one entry.
func TestEveryCommandTwice(t *testing.T) {
	for _, how := range []string{"one entry after the other", "loaded anew", "in one entry"} {
		t.Run(how, func(t *testing.T) {
			w, seq := newWorld(), uint64(0)
			twice := func(c queue.Command) any {
				t.Helper()
				seq++
				c = c.WithLane(queue.Lane{Node: 3, Boot: 1, Seq: seq})
				if how == "in one entry" {
					// What comes after it finds its own body.
					after := fmt.Appendf(nil, "after %d", seq)
					r := w.apply(c, c, (&queue.Send{Queue: 1, Messages: []queue.Sent{{Cell: 5, New: message.New{Body: after}}}}).Command())
					if !reflect.DeepEqual(r[0], r[1]) {
						t.Errorf("the first answer is %+v, the second %+v", r[0], r[1])
					}
					if d, ok := queue.Show(w.rows, r[2].([]message.SendResult)[0].ID); !ok || !bytes.Equal(d.Body, after) {
						t.Errorf("the message behind it has the body %q", d.Body)
					}
					return r[0]
				}
				first := w.apply(c)[0]
				if how == "loaded anew" {
					w.m = queue.New()
				}
				before := cloneRows(w.rows.rows)
				if second := w.apply(c)[0]; !reflect.DeepEqual(first, second) {
					t.Errorf("the first answer is %+v, the second %+v", first, second)
				}
				if !reflect.DeepEqual(before, w.rows.rows) || len(w.m.Effects()) > 0 {
					t.Errorf("the second time changes rows or has effects: %+v", w.m.Effects())
				}
				return first
			}
			settings := message.Settings{MaxAttempts: 1}.WithDefaults()
			twice((&queue.Configure{Queue: 1, Version: 1, Settings: settings, Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
			twice((&queue.Send{Queue: 1, Atomic: true, Messages: []queue.Sent{{Cell: 1, New: message.New{Body: []byte("whole")}}, {Cell: 1}}}).Command())
			twice((&queue.Send{Queue: 1, Atomic: true, Messages: []queue.Sent{{Cell: 1}, {Cell: 1, New: message.New{Body: []byte("refused"), Expires: time.UnixMilli(1)}}}}).Command())
			send := queue.Send{Queue: 1, Messages: []queue.Sent{
				{New: message.New{Body: make([]byte, 5000)}},
				{New: message.New{Body: []byte("b"), Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeString, Value: []byte("v")}}}},
				{New: message.New{Body: []byte("c"), Delay: time.Second}},
				{New: message.New{Body: make([]byte, 2<<20)}}, // too large
			}}
			sent := twice(send.Command()).([]message.SendResult)
			if sent[0].Err != nil || sent[3].Err == nil {
				t.Fatalf("sent: %+v", sent)
			}
			lease := queue.Lease{Queue: 1, Worker: "w", Session: queue.Session{ID: 7, Incarnation: 1, CatalogVersion: 5}, MaxBytes: 1 << 20, Items: queue.Refs(queue.Offers(w.rows, 1, 0, nil, 10))}
			leased := w.apply(lease.Command())[0].(queue.LeaseResult).Leased // never numbered
			if len(leased) != 2 || len(leased[0].Body) != 5000 || len(leased[1].Head.Attributes) != 1 {
				t.Fatalf("leased: %+v", leased)
			}
			settle := func(x queue.Leased, a message.Action) message.SettleResult {
				t.Helper()
				return twice((&queue.Settle{Settlements: []message.Settlement{{Token: message.Token{ID: x.ID, Fence: x.Fence, Session: 7}, Action: a}}}).Command()).([]message.SettleResult)[0]
			}
			if r := settle(leased[0], message.Ack); r.Err != nil || r.AlreadyDone {
				t.Errorf("ack: %+v", r)
			}
			if r := settle(leased[1], message.Nack); r.Err != nil || r.State != message.Dead {
				t.Errorf("nack: %+v", r)
			}
			if r := twice((&queue.Redrive{IDs: []message.ID{sent[1].ID, sent[2].ID}}).Command()).([]queue.RedriveResult); r[0] != nil || r[1] == nil {
				t.Errorf("redrive: %+v", r)
			}
			if r := twice((&queue.Split{Queue: 1, To: 15, At: 8, Epoch: 1}).Command()); r != nil {
				t.Errorf("split: %v", r)
			}
			if r, _ := twice((&queue.Split{Queue: 1, To: 15, At: 8, Epoch: 1}).Command()).(*message.Error); r == nil || r.Code != message.Conflict {
				t.Errorf("split of what is gone: %v", r)
			}
		})
	}
}

func TestLanes(t *testing.T) {
	t.Run("kept in memory", func(t *testing.T) { testLanes(t, false) })
	t.Run("loaded anew", func(t *testing.T) { testLanes(t, true) })
}

func testLanes(t *testing.T, anew bool) {
	w := newWorld()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	send := (&queue.Send{Queue: 1, Messages: make([]queue.Sent, 1)}).Command()
	code := func(l queue.Lane) message.Code {
		switch r := w.apply(send.WithLane(l))[0].(type) {
		case *message.Error:
			return r.Code
		case []message.SendResult:
			if r[0].Err != nil {
				return r[0].Err.Code
			}
		}
		return ""
	}
	for i, step := range []struct {
		lane queue.Lane
		want message.Code
		kept int
		sent int64
	}{
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 5}, kept: 1, sent: 1},
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 9}, kept: 2, sent: 2},
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 7}, kept: 3, sent: 3}, // they may overtake one another
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 5}, kept: 3, sent: 3},
		{lane: queue.Lane{Node: 2, Boot: 1, Seq: 5}, kept: 4, sent: 4}, // another sender's 5
		// The floor drops what was heard.
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 10, Floor: 8}, kept: 3, sent: 5},
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 9, Floor: 1}, kept: 3, sent: 5}, // known, and the floor stays
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 7, Floor: 1}, want: message.Conflict, kept: 3, sent: 5},
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 4, Floor: 1}, want: message.Conflict, kept: 3, sent: 5},
		// A sender that started again begins anew, and its past is over.
		{lane: queue.Lane{Node: 1, Boot: 1, Seq: 20, Floor: 20}, want: message.Conflict, kept: 3, sent: 5},
		{lane: queue.Lane{Node: 1, Boot: 3, Seq: 9, Floor: 1}, kept: 2, sent: 6},
		{lane: queue.Lane{Node: 1, Boot: 2, Seq: 11, Floor: 8}, want: message.Conflict, kept: 2, sent: 6},
	} {
		if anew {
			w.m = queue.New()
		}
		got := code(step.lane)
		q, _ := queue.Queue(w.rows, 1)
		if got != step.want || w.kept() != step.kept || q.Counts().Ready != step.sent {
			t.Errorf("step %d, %+v: %q, %d answers kept, %d sent; want %+v", i+1, step.lane, got, w.kept(), q.Counts().Ready, step)
		}
	}
	w.apply((&queue.Forget{Nodes: []uint64{1, 9}}).Command())
	if w.kept() != 1 {
		t.Errorf("%d answers are kept after node 1 was forgotten, want that of node 2", w.kept())
	}
	// A command that forgets its own sender leaves nothing behind.
	w.apply((&queue.Forget{Nodes: []uint64{2}}).Command().WithLane(queue.Lane{Node: 2, Boot: 1, Seq: 8}))
	w.m = queue.New()
	if code(queue.Lane{Node: 2, Boot: 1, Seq: 1}) != "" || w.kept() != 1 {
		t.Errorf("%d answers are kept", w.kept())
	}
}

// TestLaneIsFull: a sender that hears nothing is held up before the group has
// to keep too much, and goes on when its floor rises.
func TestLaneIsFull(t *testing.T) {
	w := newWorld()
	ticks := make([]queue.Command, 64<<10+1)
	for i := range ticks {
		ticks[i] = queue.Tick().WithLane(queue.Lane{Node: 1, Boot: 1, Seq: uint64(i + 1)})
	}
	r := w.apply(ticks...)
	if r[64<<10-1] != nil {
		t.Errorf("command 65536 is refused: %v", r[64<<10-1])
	}
	if err, _ := r[64<<10].(*message.Error); err == nil || err.Code != message.ResourceExhausted {
		t.Errorf("command 65537: %v", err)
	}
	if r := w.apply(queue.Tick().WithLane(queue.Lane{Node: 1, Boot: 1, Seq: 65537, Floor: 2})); r[0] != nil {
		t.Errorf("after the floor rose: %v", r[0])
	}
	// Few answers can be too much as well.
	large := (&queue.Send{Queue: 9, Messages: make([]queue.Sent, 10_000)}).Command()
	var err *message.Error
	seq, size := uint64(1), 0
	for ; err == nil && size < 128<<20; seq++ {
		r := w.apply(large.WithLane(queue.Lane{Node: 2, Boot: 1, Seq: seq}))[0]
		size += len(queue.AppendResult(nil, r))
		err, _ = r.(*message.Error)
	}
	if err == nil || err.Code != message.ResourceExhausted || size < 64<<20 {
		t.Errorf("after %d bytes of answers: %v", size, err)
	}
}
