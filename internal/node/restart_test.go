package node

import (
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// A cluster of which every node was stopped comes back with all that it had:
// nobody needs to hear from another node first.
func TestWholeClusterStartsAgain(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[1], 3)
	if _, _, err := ms[0].Gateway().CreateQueue(t.Context(), "orders", message.Settings{}, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := ms[1].Gateway().Send(t.Context(), "orders", []message.New{{Body: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, m := range ms {
		all.Go(m.stop)
	}
	all.Wait()
	for _, m := range ms {
		all.Go(m.start)
	}
	all.Wait()
	got, err := ms[2].Gateway().Receive(t.Context(), "orders", message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: time.Minute})
	if err != nil || len(got) != 1 {
		t.Fatalf("%d messages, %v", len(got), err)
	}
}
