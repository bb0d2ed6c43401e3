package gateway_test

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// TestSeveralOfAKey: who asks for them gets several messages of a key, and when one fails
// the tokens of those behind it settle nothing.
func TestSeveralOfAKey(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 2)
	ids := send(t, g, "q", message.New{Key: "k"}, message.New{Key: "k"}, message.New{Key: "k"}, message.New{Key: "k"})
	if got := receive(t, g, "q", 9, 0); len(got) != 1 || settle(t, g, got[0], message.Ack).Err != nil {
		t.Fatalf("who does not ask for several gets %+v", got)
	}
	got, err := g.Receive(t.Context(), "q", message.ReceiveOptions{Max: 9, PerKey: 2, Wait: time.Second, Lease: time.Minute, Worker: "w"})
	if err != nil || len(got) != 2 || got[0].ID != ids[1] || got[1].ID != ids[2] || got[0].Fence >= got[1].Fence {
		t.Fatalf("%+v, %v", got, err)
	}
	if r := settle(t, g, got[0], message.Nack); r.Err != nil || r.State != message.Scheduled {
		t.Errorf("a nack of the first: %+v", r)
	}
	if r := settle(t, g, got[1], message.Ack); message.CodeOf(r.Err) != message.Fenced {
		t.Errorf("an ack of the one behind it: %+v", r)
	}
	if c := counts(t, g, "q"); c.Leased != 0 || c.Scheduled != 1 || c.Ready != 2 || c.Finished != 1 {
		t.Errorf("%+v", c)
	}
}
