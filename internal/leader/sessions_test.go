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
