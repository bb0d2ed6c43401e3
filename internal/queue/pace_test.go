package queue_test

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// A cell in which as many keys have a pace as may hands out no further key, but those
// that have one and what has no key, until the pace of one has passed.
func TestPacedLimit(t *testing.T) {
	w := newWorld()
	settings := message.Settings{RatePerKey: message.Rate{Count: 20, Per: time.Second}}.WithDefaults()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: settings, Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	cell := hashOf("k").Point().Cell()
	offer := func(key string) queue.Ref { // its hash may be of another key: one in the cell
		m := queue.Sent{Cell: cell, New: message.New{Key: key}}
		if key != "" {
			m.Hash = hashOf("k")
			m.Hash.Lo += uint64(len(key))
		}
		id := w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())[0].([]message.SendResult)[0].ID
		return queue.Ref{Cell: cell, Seq: id.Seq()}
	}
	lease := func(refs ...queue.Ref) queue.LeaseResult {
		return w.apply((&queue.Lease{Queue: 1, Worker: "w", Length: time.Minute, Items: refs, MaxBytes: 1 << 20}).Command())[0].(queue.LeaseResult)
	}
	ack := func(x queue.Leased) {
		if r := w.settle(message.Token{ID: x.ID, Fence: x.Fence}, message.Ack); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	old, next, other, third := offer("k"), offer("k"), offer("kk"), offer("kkk")
	w.m.CountPaced(1, cell, queue.MaxPaced-1)
	r := lease(old, other)
	if r.Err != nil || len(r.Leased) != 1 || r.Looked != 1 {
		t.Fatalf("the last key that may have a pace, and one more: %+v", r)
	}
	ack(r.Leased[0])
	w.m = queue.New() // the rows know it
	if r := lease(other); r.Err == nil || r.Err.Code != message.ResourceExhausted || len(r.Leased) > 0 {
		t.Errorf("one key too many: %+v", r)
	}
	if r := lease(next, offer("")); r.Err != nil || len(r.Leased) != 2 {
		t.Errorf("a key that has a pace, and no key: %+v", r)
	}
	w.now += 200
	w.apply((&queue.Wake{Queue: 1, Timers: everyTimer(w.rows, cell)}).Command())
	if r := lease(other, third); r.Err != nil || len(r.Leased) != 1 {
		t.Errorf("after the end of a pace: %+v", r)
	}
}
