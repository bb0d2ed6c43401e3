package node

import (
	"slices"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Who waits for the end of a message at a node that does not lead its group is told
// of it, also when the leader stops in between.
func TestWaitOutlivesALeader(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	if _, _, err := ms[0].Gateway().CreateQueue(t.Context(), "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	q, _ := ms[0].Gateway().View().Queue("orders")
	group := q.Shards[0].Group
	var led *member
	eventually(t, "the group is led", func() bool {
		i := slices.IndexFunc(ms, func(m *member) bool { return leadsHere(m, group) })
		if i >= 0 {
			led = ms[i]
		}
		return i >= 0
	})
	others := slices.DeleteFunc(slices.Clone(ms), func(m *member) bool { return m == led })
	gw := others[0].Gateway()
	take := func() (message.ID, message.Settlement) {
		t.Helper()
		if _, err := gw.Send(t.Context(), "orders", []message.New{{}}); err != nil {
			t.Fatal(err)
		}
		ds, err := gw.Receive(t.Context(), "orders", message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "w"})
		if err != nil || len(ds) != 1 {
			t.Fatal(ds, err)
		}
		token, err := gw.OpenToken(ds[0].Token)
		if err != nil {
			t.Fatal(err)
		}
		return ds[0].ID, message.Settlement{Token: token, Action: message.Ack}
	}
	for _, meanwhile := range []func(){func() {}, led.stop} {
		id, ack := take()
		waited := make(chan message.State, 2)
		for _, m := range others {
			go func() {
				s, _, err := m.Gateway().Show(t.Context(), id, message.ReadOptions{}, message.MaxWait)
				if err != nil {
					t.Errorf("wait: %v", err)
				}
				waited <- s.State
			}()
		}
		meanwhile()
		if rs, err := gw.Settle(t.Context(), []message.Settlement{ack}); err != nil || rs[0].Err != nil {
			t.Fatal(rs, err)
		}
		for range others {
			if state := <-waited; state != message.Finished {
				t.Errorf("it is %s at the end of the wait", state)
			}
		}
	}
}
