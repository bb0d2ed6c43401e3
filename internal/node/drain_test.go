package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

// info tells of a node as another one knows it.
func (m *member) info(name string) message.NodeInfo {
	m.t.Helper()
	all, err := m.Gateway().Nodes(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(n message.NodeInfo) bool { return n.Name == name })
	if i < 0 {
		m.t.Fatalf("no node %s in %+v", name, all)
	}
	return all[i]
}

// A shard is split although its leader changes again and again: the split is tried
// again where the group is led then.
func TestSplitWhileLeadersMove(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[1], 3)
	if _, _, err := ms[0].Gateway().CreateQueue(t.Context(), "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	moving, stop := context.WithCancel(t.Context())
	var mover sync.WaitGroup
	mover.Go(func() {
		ticks := time.NewTicker(2 * time.Millisecond)
		defer ticks.Stop()
		for moving.Err() == nil {
			for _, m := range ms {
				for _, g := range m.host.Groups() {
					m.membersOf(g).HandOver()
				}
			}
			<-ticks.C
		}
	})
	defer mover.Wait()
	defer stop()
	path := "0"
	for i := range 4 { // to one cell
		halves, err := ms[i%3].Gateway().SplitShard(t.Context(), "orders", path)
		if err != nil || len(halves) != 2 {
			t.Fatalf("split %s: %v, %v", path, halves, err)
		}
		path += ".0"
	}
}

// A node drains while it is sent to and worked: it ends up with nothing, and no
// message is lost, nor handed out twice. Then it is removed, and a node without a
// replica of a group still knows who leads it.
func TestDrainUnderLoad(t *testing.T) {
	ms := startCluster(t, 4)
	voters(t, ms[1], 3)
	ctx := t.Context()
	if _, _, err := ms[0].Gateway().CreateQueue(ctx, "orders", message.Settings{}, 4); err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if shards, _, _, err := m.Gateway().Shards(ctx, "orders", 1, "", message.ReadOptions{}); err != nil || len(shards) != 4 || slices.ContainsFunc(shards, func(s message.ShardInfo) bool {
			return s.Leader == "" || len(s.Followers) != 2
		}) {
			t.Errorf("%s knows %+v, %v", m.name, shards, err)
		}
	}
	loading, stop := context.WithCancel(ctx)
	sent, sending := map[message.ID]bool{}, sync.WaitGroup{}
	unknown := 0 // sends that may have been stored
	sending.Go(func() {
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for i := 0; loading.Err() == nil; i++ {
			<-pace.C
			rs, err := ms[1+i%3].Gateway().Send(ctx, "orders", []message.New{{Body: []byte("x"), Key: fmt.Sprint("k", i%50)}})
			if err == nil && rs[0].Err != nil {
				err = rs[0].Err
			}
			switch {
			case err == nil:
				sent[rs[0].ID] = true
			case message.CodeOf(err) == message.UnknownOutcome:
				unknown++
			}
		}
	})
	if n, err := ms[2].Gateway().DrainNode(ctx, "node-1", false); err != nil || !n.Draining {
		t.Fatalf("drain: %+v, %v", n, err)
	}
	eventually(t, "the drained node has nothing", func() bool {
		n := ms[3].info("node-1")
		return n.Draining && n.Leads == 0 && n.Replicas == 0
	})
	eventually(t, "the drained node knows it, although its replica of the catalog is gone", func() bool {
		return ms[0].info("node-1").Replicas == 0
	})
	if err := ms[2].Gateway().RemoveNode(ctx, "node-1", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody has a way to the removed node", func() bool {
		_, known := ms[2].address(ms[0].id)
		return !known && !ms[2].transport.peers.Load().Connected(ms[0].id)
	})
	stop()
	sending.Wait()
	for i := 0; len(sent) > 0; i++ {
		ds, err := ms[1+i%3].Gateway().Receive(ctx, "orders", message.ReceiveOptions{Max: 100, Wait: 20 * time.Second, Lease: time.Minute, Worker: "w"})
		if err != nil || len(ds) == 0 {
			t.Fatalf("%d are missing: %v", len(sent), err)
		}
		for _, d := range ds {
			if !sent[d.ID] {
				if unknown--; unknown < 0 {
					t.Fatalf("%s came twice or from nowhere", d.ID)
				}
			}
			delete(sent, d.ID)
			tok, err := ms[1].Gateway().OpenToken(d.Token)
			if err != nil {
				t.Fatal(err)
			}
			if rs, err := ms[1+i%3].Gateway().Settle(ctx, []message.Settlement{{Token: tok, Action: message.Ack}}); err != nil || rs[0].Err != nil {
				t.Fatalf("ack: %v, %v", err, rs)
			}
		}
	}
}

// attach opens or takes up the session of a worker for a stream of a number.
func attach(t *testing.T, g *gateway.Gateway, worker string, number uint64) message.Attachment {
	t.Helper()
	a, err := g.OpenSession(t.Context(), message.SessionOptions{Worker: worker, Incarnation: 1, Attachment: number, TTL: message.MaxTTL, Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func told(a message.Attachment) func() bool {
	return func() bool {
		select {
		case <-a.Draining():
			return true
		default:
			return false
		}
	}
}

// A worker is told that it is drained wherever it is, and again at the node to which it
// goes when its own stops. What it holds stays its; it gets nothing more at either, and
// nothing counts as an attempt.
func TestDrainedWorkerStaysDrained(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[1], 3)
	ctx := t.Context()
	w := &workload{t: t, g: ms[1].Gateway()}
	w.create("orders", 1, message.Settings{})
	w.send(ctx, "orders", 2, message.New{})
	a := attach(t, ms[2].Gateway(), "oven", 1)
	asks := func(m *member, wait time.Duration) []message.Delivery {
		t.Helper()
		ds, err := m.Gateway().Receive(ctx, "orders", message.ReceiveOptions{Max: 1, Wait: wait, Worker: "oven", Session: a.Session()})
		if err != nil {
			t.Fatal(err)
		}
		return ds
	}
	held := asks(ms[2], 20*time.Second)
	drain := func(worker string) ([]message.WorkerInfo, error) {
		l, err := ms[0].Gateway().DrainWorker(ctx, worker)
		return l.Workers, err
	}
	for range 2 {
		if all, err := drain("oven"); err != nil || len(all) != 1 || all[0].State != "draining" || all[0].Holds != 1 {
			t.Fatalf("drained: %+v, %v", all, err)
		}
	}
	if all, err := drain("nobody"); message.CodeOf(err) != message.NotFound {
		t.Errorf("nobody is drained: %+v, %v", all, err)
	}
	eventually(t, "it is told", told(a))
	if ds := asks(ms[2], 100*time.Millisecond); len(ds) > 0 {
		t.Errorf("it got %+v", ds)
	}
	ms[2].stop()
	b := attach(t, ms[1].Gateway(), "oven", 2)
	eventually(t, "it is told elsewhere", told(b))
	if ds := asks(ms[1], 100*time.Millisecond); len(ds) > 0 {
		t.Errorf("elsewhere it got %+v", ds)
	}
	w.settle(ctx, held[0], message.Settlement{Action: message.Ack})
	b.Close(true)
	if ds := w.receive(ctx, "orders", 1, time.Minute); len(ds) != 1 || ds[0].Attempt != 1 || ds[0].Deliveries != 1 {
		t.Errorf("another one got %+v", ds)
	}
	eventually(t, "its session ended by its goodbye", func() bool {
		all, err := drain("oven")
		return err == nil && all[0].State == "dead" && all[0].Reason == "goodbye"
	})
	ms[2].start()
}
