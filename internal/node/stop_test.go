package node

import (
	"context"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
)

// Verbs read while the server stops: each ends with an answer or a refusal, and
// the store is closed when none of them holds it any more.
func TestStopWaitsForReads(t *testing.T) {
	for range 10 {
		n, err := Start(t.Context(), Config{FS: vfs.NewMem(), DataDir: "data", Listen: "127.0.0.1:0", DiskReserve: 1, LogSegment: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		g := n.Gateway()
		if _, _, err := g.CreateQueue(t.Context(), "q", message.Settings{}, 4); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Send(t.Context(), "q", make([]message.New, 200)); err != nil {
			t.Fatal(err)
		}
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				for {
					_, err := g.List(t.Context(), "q", message.ListOptions{State: message.Ready, Max: 200})
					if err != nil {
						if message.CodeOf(err) != message.Unavailable {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		if err := n.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		readers.Wait()
	}
}
