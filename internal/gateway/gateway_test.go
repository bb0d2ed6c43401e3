package gateway_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a node on a disk in memory and returns its gateway.
func start(t *testing.T) *gateway.Gateway {
	t.Helper()
	n, err := node.Start(t.Context(), node.Config{FS: vfs.NewMem(), DataDir: "data", LogSegment: 2 << 20, Listen: "127.0.0.1:0", DiskReserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return n.Gateway()
}

func create(t *testing.T, g *gateway.Gateway, name string, s message.Settings, shards int) {
	t.Helper()
	if _, _, err := g.CreateQueue(t.Context(), name, s, shards); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, g *gateway.Gateway, queue string, msgs ...message.New) []message.ID {
	t.Helper()
	rs, err := g.Send(t.Context(), queue, msgs)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]message.ID, len(rs))
	for i, r := range rs {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		ids[i] = r.ID
	}
	return ids
}

func receive(t *testing.T, g *gateway.Gateway, queue string, limit int, wait time.Duration) []message.Delivery {
	t.Helper()
	ds, err := g.Receive(t.Context(), queue, message.ReceiveOptions{Max: limit, Wait: wait, Lease: time.Minute, Worker: "w"})
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func settle(t *testing.T, g *gateway.Gateway, d message.Delivery, a message.Action) message.SettleResult {
	t.Helper()
	tok, err := g.OpenToken(d.Token)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := g.Settle(t.Context(), []message.Settlement{{Token: tok, Action: a}})
	if err != nil {
		t.Fatal(err)
	}
	return rs[0]
}

func counts(t *testing.T, g *gateway.Gateway, queue string) message.Counts {
	t.Helper()
	info, _, err := g.Queue(t.Context(), queue, message.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info.Counts
}

// outdated makes a catalog in which the queue's shards lie in other groups.
func outdated(t *testing.T, v *catalog.View, name string) *catalog.View {
	t.Helper()
	q, _ := v.Queue(name)
	wrong := *q
	wrong.Shards = slices.Clone(q.Shards)
	for i := range wrong.Shards {
		wrong.Shards[i].Group = 2 + (wrong.Shards[i].Group-2+1)%4
	}
	row, err := json.Marshal(wrong)
	if err != nil {
		t.Fatal(err)
	}
	m := catalog.New()
	m.Load(oneQueue{wrong.Number, row})
	return m.View()
}

// oneQueue are the rows of a catalog with one queue.
type oneQueue struct {
	number uint32
	row    []byte
}

func (oneQueue) Get(uint64, []byte) ([]byte, bool) { return nil, false }

func (r oneQueue) Scan(_ uint64, lo, _ []byte, visit func(k, v []byte) bool) {
	if lo[0] == 'q' {
		visit(binary.BigEndian.AppendUint32(lo, r.number), r.row)
	}
}

// A key's messages keep their order although the gateway's route is made wrong
// again and again while they are under way: nothing overtakes what has to be
// carried anew.
func TestKeyKeepsOrderWhileRouteIsOutdated(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	bad := outdated(t, g.View(), "orders")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(3)) * time.Millisecond):
				g.Outdate(bad)
			}
		}
	}()
	const keys, calls, per = 3, 6, 100
	for c := range calls {
		var msgs []message.New
		for i := range per {
			// Large enough that one call takes several entries.
			body := append(fmt.Appendf(nil, "%06d", c*per+i), make([]byte, 20<<10)...)
			msgs = append(msgs, message.New{Key: fmt.Sprint(i % keys), Body: body})
		}
		send(t, g, "orders", msgs...)
	}
	close(stop)
	<-done
	last := map[string]string{}
	for seen := 0; seen < calls*per; {
		for _, d := range receive(t, g, "orders", 100, time.Second) {
			if n := string(d.Body[:6]); n <= last[d.Key] {
				t.Fatalf("key %s: %s came after %s", d.Key, n, last[d.Key])
			} else {
				last[d.Key] = n
			}
			if r := settle(t, g, d, message.Ack); r.Err != nil {
				t.Fatal(r.Err)
			}
			seen++
		}
	}
}

// A receiver that waits is woken by a send.
func TestWaitingReceiverIsWoken(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	got := make(chan []message.Delivery)
	go func() {
		ds, _ := g.Receive(t.Context(), "orders", message.ReceiveOptions{Max: 1, Wait: message.MaxWait, Lease: time.Minute, Worker: "w"})
		got <- ds
	}()
	for len(got) == 0 {
		ids := send(t, g, "orders", message.New{Body: []byte("pizza")})
		select {
		case ds := <-got:
			if len(ds) != 1 || string(ds[0].Body) != "pizza" {
				t.Fatalf("got %v after %v", ds, ids)
			}
			return
		case <-time.After(10 * time.Second):
			t.Fatal("nobody woke the receiver")
		}
	}
}

// Receivers go away at every moment; nothing is handed to one that has gone, so
// in the end every message was handled at its first attempt and none is left
// leased to nobody.
func TestReceiverThatLeavesGetsNothing(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 2)
	const total = 400
	var mu sync.Mutex
	seen := map[message.ID]int{}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				patience := time.Duration(rand.IntN(2000)) * time.Microsecond
				if rand.IntN(4) == 0 {
					patience = time.Minute // however slow the machine is, this one gets something
				}
				leaving, cancel := context.WithTimeout(ctx, patience)
				ds, err := g.Receive(leaving, "orders", message.ReceiveOptions{Max: 3, Wait: 100 * time.Millisecond, Lease: 12 * time.Hour, Worker: "w"})
				if leaving.Err() != nil && err != nil && len(ds) > 0 {
					t.Error("messages came with an error")
				}
				cancel()
				for _, d := range ds {
					if d.Attempt != 1 {
						t.Errorf("attempt %d", d.Attempt)
					}
					if r := settle(t, g, d, message.Ack); r.Err != nil {
						t.Error(r.Err)
					}
					mu.Lock()
					seen[d.ID]++
					if len(seen) == total {
						stop()
					}
					mu.Unlock()
				}
			}
		})
	}
	var ids []message.ID
	for range total {
		ids = append(ids, send(t, g, "orders", message.New{Body: []byte("x")})...)
	}
	wait := time.AfterFunc(30*time.Second, stop)
	defer wait.Stop()
	wg.Wait()
	if len(seen) != len(ids) || slices.Max(slices.Collect(maps.Values(seen))) != 1 {
		t.Fatalf("%d messages were handled of %d", len(seen), len(ids))
	}
	if c := counts(t, g, "orders"); c.Leased != 0 || c.Ready != 0 || c.Finished != total {
		t.Fatalf("counts: %+v", c)
	}
}

func TestDelayedMessageBecomesReady(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 1)
	id := send(t, g, "orders", message.New{Body: []byte("later"), Delay: 300 * time.Millisecond})[0]
	if s, _, err := g.Show(t.Context(), id, message.ReadOptions{}, 0); err != nil || s.State != message.Scheduled || s.Reason == "" {
		t.Fatal(s, err)
	}
	if ds := receive(t, g, "orders", 1, 0); len(ds) != 0 {
		t.Fatal("it was handed out too early")
	}
	if ds := receive(t, g, "orders", 1, 20*time.Second); len(ds) != 1 || ds[0].ID != id {
		t.Fatal("it was not handed out")
	}
}

func TestLeaseThatRunsOutCountsAsFailed(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{MaxAttempts: 2}, 1)
	send(t, g, "orders", message.New{Body: []byte("x")})
	for attempt := 1; attempt <= 2; attempt++ {
		ds, err := g.Receive(t.Context(), "orders", message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: time.Second, Worker: "w"})
		if err != nil || len(ds) != 1 || ds[0].Attempt != attempt {
			t.Fatal(ds, err)
		}
		if attempt == 2 {
			for deadline := time.Now().Add(20 * time.Second); counts(t, g, "orders").Dead == 0; {
				if time.Now().After(deadline) {
					t.Fatalf("not dead: %+v", counts(t, g, "orders"))
				}
			}
			if r := settle(t, g, ds[0], message.Ack); message.CodeOf(r.Err) != message.Fenced {
				t.Fatalf("a late ack: %+v", r)
			}
		}
	}
}

func TestPausedQueueHandsOutNothing(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	if err := g.PauseQueue(t.Context(), "orders", true, message.Pause{}); err != nil {
		t.Fatal(err)
	}
	id := send(t, g, "orders", message.New{Body: []byte("x"), Key: "k"})[0]
	if ds := receive(t, g, "orders", 1, 100*time.Millisecond); len(ds) != 0 {
		t.Fatal("a paused queue handed out")
	}
	if s, _, _ := g.Show(t.Context(), id, message.ReadOptions{}, 0); s.Reason != "the queue is paused" {
		t.Fatalf("reason: %q", s.Reason)
	}
	got := make(chan []message.Delivery)
	go func() {
		ds, _ := g.Receive(t.Context(), "orders", message.ReceiveOptions{Max: 1, Wait: message.MaxWait, Lease: time.Minute, Worker: "w"})
		got <- ds
	}()
	if err := g.PauseQueue(t.Context(), "orders", false, message.Pause{}); err != nil {
		t.Fatal(err)
	}
	select {
	case ds := <-got:
		if len(ds) != 1 {
			t.Fatal(ds)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("resume did not wake the receiver")
	}
}

// New settings count as soon as the call has been answered.
func TestUpdatedSettingsCount(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	info, _, err := g.Queue(t.Context(), "orders", message.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.UpdateQueue(t.Context(), "orders", message.Settings{MaxAttempts: -1}, 0, true); message.CodeOf(err) != message.InvalidArgument {
		t.Fatal(err)
	}
	if _, err := g.UpdateQueue(t.Context(), "none", message.Settings{}, 0, true); message.CodeOf(err) != message.QueueNotFound {
		t.Fatal(err)
	}
	if dry, err := g.UpdateQueue(t.Context(), "orders", message.Settings{MaxAttempts: 1}, 0, true); err != nil || dry.Settings.MaxAttempts != 1 || dry.Version != info.Version {
		t.Fatal(dry, err)
	}
	newer, err := g.UpdateQueue(t.Context(), "orders", message.Settings{MaxAttempts: 1, MaxMessageBytes: 3}, info.Version, false)
	if err != nil || newer.Version <= info.Version || newer.Settings.MaxAttempts != 1 {
		t.Fatal(newer, err)
	}
	if _, err := g.UpdateQueue(t.Context(), "orders", message.Settings{}, info.Version, false); message.CodeOf(err) != message.Conflict {
		t.Fatal(err)
	}
	rs, err := g.Send(t.Context(), "orders", []message.New{{Body: []byte("long")}, {Body: []byte("x")}})
	if err != nil || message.CodeOf(rs[0].Err) != message.TooLarge || rs[1].Err != nil {
		t.Fatal(rs, err)
	}
	d := receive(t, g, "orders", 1, 10*time.Second)[0]
	if r := settle(t, g, d, message.Nack); r.Err != nil {
		t.Fatal(r.Err)
	}
	if s, _, err := g.Show(t.Context(), d.ID, message.ReadOptions{}, 0); err != nil || s.State != message.Dead {
		t.Fatalf("after its only attempt: %v, %v", s.State, err)
	}
}

func TestDeletedQueueIsGone(t *testing.T) {
	g := start(t)
	create(t, g, "orders", message.Settings{}, 4)
	old := send(t, g, "orders", message.New{Body: []byte("x")})[0]
	if err := g.DeleteQueue(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Send(t.Context(), "orders", []message.New{{}}); message.CodeOf(err) != message.QueueNotFound {
		t.Fatal(err)
	}
	create(t, g, "orders", message.Settings{}, 4) // a new one under the old name
	if c := counts(t, g, "orders"); c != (message.Counts{}) {
		t.Fatalf("counts: %+v", c)
	}
	if _, _, err := g.Show(t.Context(), old, message.ReadOptions{}, 0); message.CodeOf(err) != message.MessageNotFound {
		t.Fatal(err)
	}
}
