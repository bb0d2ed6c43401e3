package node

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// Verbs read while the server stops: each ends with an answer or a refusal, and
// the store is closed when none of them holds it any more.
func TestStopWaitsForReads(t *testing.T) {
	for range 3 { // each takes as long as a verb looks for a leader
		n, err := Start(t.Context(), Config{FS: vfs.NewMem(), DataDir: "data", Listen: "127.0.0.1:0", DiskReserve: 1, LogSegment: smallSegment})
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

// A producer's stream that is open does not hold up the end of the server.
func TestStopEndsProducers(t *testing.T) {
	n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data"})
	(&workload{t: t, g: n.Gateway()}).create("q", 1, message.Settings{})
	stream, err := comandav1.NewMessagesClient(dial(t, n)).Produce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&comandav1.ProduceRequest{Send: &comandav1.SendRequest{Queue: "q", Messages: []*comandav1.NewMessage{{Body: []byte("b")}}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetSent().GetResults()[0].GetId() == "" {
		t.Fatalf("%v, %v", r, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.Stop(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("stop: %v, %v", err, ctx.Err())
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
}
