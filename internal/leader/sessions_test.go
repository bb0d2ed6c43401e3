package leader

import (
	"testing"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// A session that was looked up in a newer catalog than the leader has is not taken
// for one that has ended, also by the next leader; once the leader has that
// catalog, it is.
func TestSessionOfANewerCatalogLives(t *testing.T) {
	r := newRig(t)
	r.Learn(&catalog.View{Version: 4}, nil)
	r.send(1, 0)
	c := NewCall(1, message.ReceiveOptions{Max: 1, Worker: "w"}, 1)
	c.Lease.Session = queue.Session{ID: 7, Incarnation: 9, CatalogVersion: 5}
	r.Wait(c)
	if got, refusal := c.Collect(t.Context()); refusal != nil || len(got) != 1 {
		t.Fatalf("%d leased, %v", len(got), refusal)
	}
	behind := func() {
		for range 3 { // the end of the session, then of its lease
			r.propose(queue.Tick())
		}
	}
	behind()
	r.want("with an older catalog", 0, 0, 1)
	r.restart()
	r.Learn(&catalog.View{Version: 4}, nil)
	behind()
	r.want("with an older catalog at the next leader", 0, 0, 1)
	r.Learn(&catalog.View{Version: 5}, nil)
	behind()
	r.want("with a catalog in which it is not", 1, 0, 0)
}

// A leader counts what sessions hold, and the next one as well; what they have settled
// is not held.
func TestHolds(t *testing.T) {
	r := newRig(t)
	r.send(3, 0)
	c := NewCall(1, message.ReceiveOptions{Max: 3, Worker: "w"}, 1)
	c.Lease.Session = queue.Session{ID: 7, Incarnation: 9, CatalogVersion: 5}
	r.Wait(c)
	got, refusal := c.Collect(t.Context())
	if refusal != nil || len(got) != 3 {
		t.Fatalf("%d leased, %v", len(got), refusal)
	}
	want := func(what string, n int) {
		t.Helper()
		if holds, err := r.Holds(t.Context(), []uint64{6, 7}); err != nil || len(holds) != 1 || holds[7] != n {
			t.Errorf("%s: %v, %v", what, holds, err)
		}
	}
	want("leased", 3)
	ack := message.Settlement{Token: message.Token{ID: got[0].ID, Fence: got[0].Fence, Session: 7}, Action: message.Ack}
	r.propose((&queue.Settle{Settlements: []message.Settlement{ack}}).Command())
	want("one is acked", 2)
	r.restart()
	want("at the next leader", 2)
}

// A leader forgets sessions that have ended, whether they still held something or
// not: workers come and go for as long as it leads.
func TestEndedSessionsAreForgotten(t *testing.T) {
	r := newRig(t)
	r.send(2, 0)
	receive := func(session uint64) []queue.Leased {
		c := NewCall(1, message.ReceiveOptions{Max: 1, Worker: "w"}, 1)
		c.Lease.Session = queue.Session{ID: session, Incarnation: 9, CatalogVersion: 5}
		r.Wait(c)
		got, refusal := c.Collect(t.Context())
		if refusal != nil || len(got) != 1 {
			t.Fatalf("%d leased, %v", len(got), refusal)
		}
		return got
	}
	receive(6)
	got := receive(7)
	ack := message.Settlement{Token: message.Token{ID: got[0].ID, Fence: got[0].Fence, Session: 7}, Action: message.Ack}
	r.propose((&queue.Settle{Settlements: []message.Settlement{ack}}).Command())
	known := func() int {
		for range 3 { // the ends of the sessions, then of the lease
			r.propose(queue.Tick())
		}
		r.step(0)
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.sessions.by) + len(r.sessions.ending)
	}
	r.Learn(&catalog.View{Version: 4}, nil)
	if n := known(); n != 2 {
		t.Fatalf("%d sessions are known, want the two that live", n)
	}
	r.Learn(&catalog.View{Version: 5}, nil)
	if n := known(); n != 0 {
		t.Errorf("%d sessions are known after their end", n)
	}
	r.want("in the end", 1, 0, 0)
	r.restart()
	if n := known(); n != 0 {
		t.Errorf("the next leader knows of %d", n)
	}
}
