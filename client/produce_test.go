package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func mustSend(t *testing.T, c *client.Client, queue string) {
	t.Helper()
	if id, err := c.Send(t.Context(), queue, client.Message{Body: []byte("x")}); err != nil || id != "id-x" {
		t.Fatalf("%q, %v", id, err)
	}
}

// A queue's sends go by one stream, also after a refusal; another queue has its own.
// After a refusal that says that nobody was there to do it, and after one of a kind
// that nobody knows, a new one is opened.
func TestSendsShareAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refusal error
		f := &fake{onSend: func(context.Context, *comandav1.SendRequest) (err error) {
			err, refusal = refusal, nil
			return err
		}}
		c := start(t, f)
		open := func() (int64, int64) { synctest.Wait(); return f.producers.Load(), f.produced.Load() }
		for range 3 {
			mustSend(t, c, "q")
		}
		refusal = refuse(codes.NotFound, "QUEUE_NOT_FOUND", "no")
		if _, err := c.Send(t.Context(), "q", client.Message{}); !errors.Is(err, client.ErrQueueNotFound) {
			t.Error(err)
		}
		mustSend(t, c, "q")
		if now, ever := open(); now != 1 || ever != 1 {
			t.Errorf("one queue: %d streams of %d", now, ever)
		}
		mustSend(t, c, "other")
		if now, ever := open(); now != 2 || ever != 2 {
			t.Errorf("two queues: %d streams of %d", now, ever)
		}
		refusal = refuse(codes.Unavailable, "UNAVAILABLE", "no leader")
		mustSend(t, c, "q") // is tried again, perhaps by another server
		if now, ever := open(); now != 2 || ever != 3 {
			t.Errorf("after UNAVAILABLE: %d streams of %d", now, ever)
		}
	})
}

// Results say what was there already, by whichever call.
func TestResultsSayExisting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, &fake{})
		ms := []client.Message{{Body: []byte("a")}, {Body: []byte("again")}}
		for name, send := range map[string]func(context.Context, string, []client.Message) ([]client.SendResult, error){"batch": c.SendBatch, "atomic": c.SendAtomic} {
			results, err := send(t.Context(), "q", ms)
			if want := []client.SendResult{{ID: "id-a"}, {ID: "id-again", Existing: true}}; err != nil || !slices.Equal(results, want) {
				t.Errorf("%s: %v, %v", name, results, err)
			}
		}
	})
}

// A server that answers that it can't reach a message's group, or does not know what
// became of it, is left for another one.
func TestStreamLeavesAServerThatCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		c := start(t, f)
		for i, code := range []string{"", "TOO_LARGE", "UNAVAILABLE", "UNKNOWN_OUTCOME", ""} {
			f.item = code
			if _, err := c.Send(t.Context(), "q", client.Message{}); string(client.CodeOf(err)) != code {
				t.Errorf("%s: %v", code, err)
			}
			synctest.Wait()
			if want := int64(1 + max(0, i-2)); f.produced.Load() != want {
				t.Errorf("after %q: %d streams, want %d", code, f.produced.Load(), want)
			}
		}
	})
}

// A client keeps a stream each for no more than 64 queues, those that it sent to last, and
// sends to all.
func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		c := start(t, f)
		for i := range 100 {
			mustSend(t, c, fmt.Sprint("q", i))
		}
		synctest.Wait()
		mustSend(t, c, "q36")
		mustSend(t, c, "q99")
		synctest.Wait()
		if now, ever := f.producers.Load(), f.produced.Load(); now != 64 || ever != 100 {
			t.Errorf("%d streams of %d", now, ever)
		}
		mustSend(t, c, "q0") // in place of q37
		mustSend(t, c, "q36")
		if ever := f.produced.Load(); ever != 101 {
			t.Errorf("%d streams were opened", ever)
		}
		for i := range 2000 { // the line of most is forgotten
			mustSend(t, c, fmt.Sprint("r", i))
		}
		mustSend(t, c, "q0")
		synctest.Wait()
		if n := f.producers.Load(); n < 1 || n > 64 {
			t.Errorf("%d streams", n)
		}
	})
}

// A stream that broke while nothing was under way is opened again, and the send does
// not know; one that broke under way leaves it unknown.
func TestBrokenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		l := listen(t, f)
		var mu sync.Mutex
		var conns []net.Conn
		c, err := client.New("fake:7400", client.WithDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := l.DialContext(ctx)
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, conn)
			return conn, err
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		cut := func() {
			mu.Lock()
			defer mu.Unlock()
			conns[len(conns)-1].Close()
		}
		mustSend(t, c, "q")
		cut()
		synctest.Wait()
		mustSend(t, c, "q")
		f.onSend = func(context.Context, *comandav1.SendRequest) error {
			f.onSend = nil
			cut()
			return nil
		}
		if _, err := c.Send(t.Context(), "q", client.Message{}); !errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("it broke under way: %v", err)
		}
		mustSend(t, c, "q")
		if n := len(f.calls()); n != 4 {
			t.Errorf("the server had %d calls", n)
		}
	})
}
