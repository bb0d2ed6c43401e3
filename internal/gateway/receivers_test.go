package gateway_test

import (
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// A queue tells how many receivers wait for it, each once however many groups it
// waits at, and when the last one went.
func TestQueueTellsWhoReceives(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	look := func() message.Receivers {
		t.Helper()
		info, _, err := g.Queue(t.Context(), "orders", message.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return info.Receivers
	}
	if r := look(); r.Waiting != 0 || !r.Last.IsZero() {
		t.Errorf("before anybody came: %+v", r)
	}
	before := time.Now().Truncate(time.Millisecond)
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() { receive(t, g, "orders", 1, message.MaxWait) })
	}
	for deadline := time.Now().Add(20 * time.Second); look().Waiting != 3; {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want 3", look().Waiting)
		}
	}
	send(t, g, "orders", message.New{Key: "a"}, message.New{Key: "b"}, message.New{Key: "c"})
	waiting.Wait()
	if r := look(); r.Waiting != 0 || r.Last.Before(before) || r.Last.After(time.Now()) {
		t.Errorf("after they went: %+v", r)
	}
}
