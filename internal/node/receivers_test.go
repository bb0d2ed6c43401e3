package node

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Any node tells who receives from a queue, wherever its leaders are and at
// whichever node the receivers wait.
func TestEveryNodeTellsWhoReceives(t *testing.T) {
	ms := startCluster(t, 2)
	for name, shards := range map[string]int{"one": 1, "four": 4} {
		if _, _, err := ms[1].Gateway().CreateQueue(t.Context(), name, message.Settings{}, shards); err != nil {
			t.Fatal(err)
		}
		who := func(m *member) message.Receivers {
			t.Helper()
			q, _, err := m.Gateway().Queue(t.Context(), name, message.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return q.Receivers
		}
		ctx, leave := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		for _, m := range ms {
			waiting.Go(func() {
				_, _ = m.Gateway().Receive(ctx, name, message.ReceiveOptions{Max: 1, Wait: message.MaxWait, Lease: time.Minute, Worker: m.name})
			})
		}
		for _, m := range ms {
			eventually(t, m.name+" tells of both", func() bool { return who(m).Waiting == 2 })
		}
		leave()
		waiting.Wait()
		for _, m := range ms {
			eventually(t, m.name+" tells that both have gone", func() bool { r := who(m); return r.Waiting == 0 && !r.Last.IsZero() })
		}
	}
}

// Who does not wait gets what is there, whichever node it asks.
func TestEveryNodeHandsOutAtOnce(t *testing.T) {
	ms := startCluster(t, 2)
	for name, shards := range map[string]int{"one": 1, "four": 4} {
		if _, _, err := ms[1].Gateway().CreateQueue(t.Context(), name, message.Settings{}, shards); err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			if _, err := m.Gateway().Send(t.Context(), name, []message.New{{Body: []byte("b")}}); err != nil {
				t.Fatal(err)
			}
			got, err := m.Gateway().Receive(t.Context(), name, message.ReceiveOptions{Max: 1, Lease: time.Minute, Worker: m.name})
			if err != nil || len(got) != 1 {
				t.Errorf("%s gives %d messages of queue %s, %v", m.name, len(got), name, err)
			}
		}
	}
}
