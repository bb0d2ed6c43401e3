package queue_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

func leaseOf(id, incarnation, version uint64) queue.Command {
	return (&queue.Lease{Queue: 1, Worker: "w", Session: queue.Session{ID: id, Incarnation: incarnation, CatalogVersion: version}}).Command()
}

// TestSessionEffects: what a leader hears is enough to know what is attached and
// what is to be swept.
func TestSessionEffects(t *testing.T) {
	w := newWorld()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	end := func(id, incarnation, version uint64) queue.Command {
		return (&queue.ExpireSession{Session: queue.Session{ID: id, Incarnation: incarnation, CatalogVersion: version}}).Command()
	}
	attached := func(id, incarnation, version uint64) queue.Effect {
		return queue.Effect{Kind: queue.SessionAttached, Session: id, Incarnation: incarnation, Catalog: version}
	}
	ended := func(id, incarnation uint64) queue.Effect {
		return queue.Effect{Kind: queue.SessionEnded, Session: id, Incarnation: incarnation}
	}
	for i, step := range []struct {
		command queue.Command
		want    []queue.Effect
		refused message.Code
	}{
		{command: leaseOf(7, 2, 10), want: []queue.Effect{attached(7, 2, 10)}},
		{command: leaseOf(7, 2, 3)}, // attached already: its catalog does not matter
		{command: leaseOf(7, 1, 11), refused: message.SessionEnded},
		{command: leaseOf(8, 1, 9), refused: message.Unavailable}, // the group has heard of 10
		{command: leaseOf(7, 4, 10), want: []queue.Effect{ended(7, 2), attached(7, 4, 10)}},
		{command: end(7, 3, 11)}, // late
		{command: end(7, 4, 11), want: []queue.Effect{ended(7, 4)}},
		{command: end(7, 4, 12)}, // a second time
		{command: leaseOf(7, 4, 13), refused: message.SessionEnded},
		{command: end(9, 1, 20)}, // not attached: only its version counts
		{command: leaseOf(9, 1, 19), refused: message.Unavailable},
		{command: leaseOf(7, 5, 20), want: []queue.Effect{attached(7, 5, 20)}},
	} {
		if i%2 == 1 {
			w.m = queue.New()
		}
		r, _ := w.apply(step.command)[0].(queue.LeaseResult)
		code := message.Code("")
		if r.Err != nil {
			code = r.Err.Code
		}
		if code != step.refused || !slices.Equal(w.m.Effects(), step.want) {
			t.Errorf("step %d: %q with effects %+v, want %q with %+v", i+1, code, w.m.Effects(), step.refused, step.want)
		}
	}
}

// TestSessionsAreBounded: tombstones make room for others, and what they kept
// out stays out.
func TestSessionsAreBounded(t *testing.T) {
	w := newWorld()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	many := make([]queue.Command, 1<<16)
	for i := range many {
		many[i] = leaseOf(uint64(i+1), 1, 1)
	}
	if r := w.apply(many...)[1<<16-1].(queue.LeaseResult); r.Err != nil {
		t.Fatal(r.Err)
	}
	more := leaseOf(1<<16+1, 1, 3)
	if r := w.apply(more)[0].(queue.LeaseResult); r.Err == nil || r.Err.Code != message.ResourceExhausted {
		t.Errorf("session 65537: %v", r.Err)
	}
	w.apply((&queue.ExpireSession{Session: queue.Session{ID: 1, Incarnation: 1, CatalogVersion: 2}}).Command())
	if r := w.apply(more)[0].(queue.LeaseResult); r.Err != nil {
		t.Errorf("after one had ended: %v", r.Err)
	}
	if r := w.apply(leaseOf(1, 1, 2))[0].(queue.LeaseResult); r.Err == nil {
		t.Error("a session without a tombstone came back")
	}
}

// TestExtendOfASession: what a session holds has no deadline to push out.
func TestExtendOfASession(t *testing.T) {
	w := newWorld()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	w.apply((&queue.Send{Queue: 1, Messages: make([]queue.Sent, 1)}).Command())
	lease := queue.Lease{Queue: 1, Session: queue.Session{ID: 7, Incarnation: 1}, MaxBytes: 1, Items: queue.Refs(queue.Offers(w.rows, 1, 0, nil, 1))}
	x := w.apply(lease.Command())[0].(queue.LeaseResult).Leased[0]
	before := cloneRows(w.rows.rows)
	extend := queue.Settle{Settlements: []message.Settlement{{Token: message.Token{ID: x.ID, Fence: x.Fence, Session: 7}, Action: message.Extend, Lease: time.Second}}}
	if r := w.apply(extend.Command())[0].([]message.SettleResult)[0]; r.Err != nil || r.State != message.Leased {
		t.Errorf("extend: %+v", r)
	}
	if !maps.EqualFunc(before, w.rows.rows, bytes.Equal) || len(w.m.Effects()) > 0 {
		t.Errorf("extend changes rows, or has the effects %+v", w.m.Effects())
	}
}
