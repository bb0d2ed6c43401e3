package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Queues are deleted while their creation is still on its way to the groups; in
// the end no group has a queue that the catalog does not have.
func TestDeletedQueueLeavesNothing(t *testing.T) {
	n, err := Start(t.Context(), Config{FS: vfs.NewMem(), DataDir: "data", Listen: "127.0.0.1:0", DiskReserve: 1, LogSegment: smallSegment})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	g := n.Gateway()
	for i := range 30 {
		name := fmt.Sprint("q", i)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		var both sync.WaitGroup
		both.Go(func() { _, _, _ = g.CreateQueue(short, name, message.Settings{}, 4) })
		both.Go(func() {
			for short.Err() == nil {
				if err := g.DeleteQueue(short, name); err == nil {
					cancel()
				}
			}
		})
		both.Wait()
		cancel()
		_ = g.DeleteQueue(t.Context(), name)
	}
	until := time.Now().Add(20 * time.Second)
	for {
		left := 0
		for _, group := range n.host.Groups() {
			if group.ID() == catalog.MetaGroup {
				continue
			}
			if err := group.ReadIndex(t.Context()); err != nil {
				t.Fatal(err)
			}
			view := group.View()
			left += len(queue.Queues(view))
			view.Close()
		}
		if left == 0 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d deleted queues live on in groups", left)
		}
	}
}
