package queue_test

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// A cell that remembers as many dedup ids as it may refuses another one, and
// nothing else, until a window ends.
func TestDedupLimit(t *testing.T) {
	w := newWorld()
	settings := message.Settings{DedupWindow: time.Minute}.WithDefaults()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: settings, Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	send := func(dedup string) message.SendResult {
		m := queue.Sent{Cell: 3, Hash: hashOf("k"), New: message.New{Key: "k", DedupID: dedup}}
		mark(&m)
		return w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())[0].([]message.SendResult)[0]
	}
	cell := send("").ID.Point().Cell()
	w.m.CountDedups(1, cell, queue.MaxDedups-1)
	last := send("last")
	if last.Err != nil {
		t.Fatal(last.Err)
	}
	w.m = queue.New() // the rows know it
	if r := send("more"); r.Err == nil || r.Err.Code != message.ResourceExhausted {
		t.Errorf("one dedup id too many: %+v", r)
	}
	if r := send("last"); r.Err != nil || !r.Existing || r.ID != last.ID {
		t.Errorf("a repeat: %+v, want %s", r, last.ID)
	}
	if r := send(""); r.Err != nil {
		t.Errorf("without a dedup id: %v", r.Err)
	}
	w.now += time.Minute.Milliseconds()
	w.apply((&queue.Wake{Queue: 1, Timers: everyTimer(w.rows, cell)}).Command())
	if r := send("more"); r.Err != nil || r.Existing {
		t.Errorf("after a window's end: %+v", r)
	}
}
