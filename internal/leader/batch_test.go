package leader

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// sendKeys sends n messages of each key, one key after the other in turn.
func (r *rig) sendKeys(n int, keys ...string) {
	r.t.Helper()
	c := queue.Send{Queue: 1}
	for i := range n {
		for _, key := range keys {
			m := queue.Sent{New: message.New{Key: key, Body: []byte(key + strconv.Itoa(i))}}
			m.Hash = message.KeyHash{Hi: message.HashKey(&message.Secret{}, key).Hi >> 4} // cell 0
			c.Messages = append(c.Messages, m)
		}
	}
	for _, res := range r.propose(c.Command()).([]message.SendResult) {
		if res.Err != nil {
			r.t.Fatal(res.Err)
		}
	}
}

func (r *rig) receiveKeys(n, perKey int) (bodies []string, got []queue.Leased) {
	r.t.Helper()
	c := NewCall(1, message.ReceiveOptions{Max: n, PerKey: perKey, Lease: time.Minute, Worker: "w"}, 1)
	r.Wait(c)
	got, err := c.Collect(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, x := range got {
		bodies = append(bodies, string(x.Body))
	}
	return bodies, got
}

// TestSeveralOfAKey: room that is left is shared by the keys that came, in the order of
// each, and one message of every key goes before a second one of any.
func TestSeveralOfAKey(t *testing.T) {
	r := newRig(t)
	r.sendKeys(5, "a", "b")
	want := func(n, perKey int, want ...string) []queue.Leased {
		t.Helper()
		got, leased := r.receiveKeys(n, perKey)
		if !slices.Equal(got, want) {
			t.Fatalf("of %d, %d of a key: %v, want %v", n, perKey, got, want)
		}
		return leased
	}
	r.settle(want(2, 9, "a0", "b0"), message.Ack, 0)
	r.settle(want(9, 1, "a1", "b1"), message.Ack, 0)
	r.settle(want(9, 2, "a2", "b2", "a3", "b3"), message.Ack, 0)
	r.sendKeys(3, "c")
	r.settle(want(4, 9, "a4", "b4", "c0", "c1"), message.Ack, 0)
	if n := len(r.leases.by); n != 0 || r.leasing != 0 || r.queues[1].leasing != 0 || r.queues[1].workers.load != 0 {
		t.Errorf("%d leases, %d and %d under way, a load of %d", n, r.leasing, r.queues[1].leasing, r.queues[1].workers.load)
	}
	got := want(9, 9, "c2")
	r.sendKeys(1, "c")
	r.settle(got, message.Release, 0)
	got = want(9, 9, "c2", "c0")
	r.want("c is leased", 0, 0, 2)
	r.settle(got[:1], message.Release, 0)
	r.want("c is given back", 2, 0, 0)
}

// TestSeveralOfAKeyWithinLimits: max_in_flight counts them, too.
func TestSeveralOfAKeyWithinLimits(t *testing.T) {
	r := newRig(t)
	r.propose((&queue.Configure{Queue: 1, Version: 2, Settings: message.Settings{MaxInFlight: 3}.WithDefaults(), Shards: []queue.Bounds{{From: 0, To: 0, Path: "0"}}}).Command())
	r.sendKeys(9, "a")
	got, leased := r.receiveKeys(9, 9)
	if !slices.Equal(got, []string{"a0", "a1", "a2"}) {
		t.Fatal(got)
	}
	r.settle(leased[:1], message.Ack, 0)
	r.want("one of three is done", 6, 0, 2)
}
