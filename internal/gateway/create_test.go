package gateway_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// A queue that is deleted while it is created is not waited for: its groups will
// never have it.
func TestCreateOfADeletedQueueEnds(t *testing.T) {
	g := start(t)
	for i := 0; i < 30 && !t.Failed(); i++ {
		name := fmt.Sprint("q", i)
		creating, done := context.WithCancel(t.Context())
		var both sync.WaitGroup
		both.Go(func() {
			defer done()
			if _, _, err := g.CreateQueue(t.Context(), name, message.Settings{}, 4); err != nil && message.CodeOf(err) != message.QueueNotFound {
				t.Errorf("%s: %v", name, err)
			}
		})
		both.Go(func() {
			for creating.Err() == nil {
				_ = g.DeleteQueue(t.Context(), name)
			}
		})
		both.Wait()
	}
}
