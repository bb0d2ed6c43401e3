package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
	"github.com/comanda-mq/comanda/internal/queue"
)

// catalogLeader is the node that leads the catalog, once that is as it shall stay.
func catalogLeader(t *testing.T, ms []*member) (at *member) {
	t.Helper()
	eventually(t, "the catalog is led where it shall be", func() bool {
		v := ms[0].view.Load()
		g, _ := v.Group(catalog.MetaGroup)
		i := slices.IndexFunc(ms, func(m *member) bool {
			r, ok := g.On(m.id)
			here, is := m.host.Group(catalog.MetaGroup)
			return ok && is && here.Leading() && placement.Leaders(v)[g.ID] == r.ID
		})
		if i >= 0 {
			at = ms[i]
		}
		return i >= 0
	})
	return at
}

func leadsHere(m *member, group uint64) bool {
	g, ok := m.host.Group(group)
	return ok && g.Leading()
}

// queueToMove makes a queue whose shard 0.1 is to move, and names a node that holds
// nothing of it and is not the one that is to be stopped.
func queueToMove(t *testing.T, gw *gateway.Gateway, ms []*member, victim *member) (name string, to *member) {
	t.Helper()
	for i := range dataGroups {
		name := fmt.Sprint("orders-", i)
		if _, _, err := gw.CreateQueue(t.Context(), name, message.Settings{MaxAttempts: 3}, 1); err != nil {
			t.Fatal(err)
		}
		q, _ := gw.View().Queue(name)
		g, _ := gw.View().Group(q.Shards[0].Group)
		for _, m := range ms {
			if _, holds := g.On(m.id); !holds && m != victim {
				if _, err := gw.SplitShard(t.Context(), name, "0"); err != nil {
					t.Fatal(err)
				}
				return name, m
			}
		}
	}
	t.Fatal("every group lies everywhere but on the node that is to be stopped")
	return "", nil
}

// A shard that is split off and moved to a node that had nothing of it, in the middle
// of load, keeps what it holds: a leased, a retrying, a scheduled and a dead message,
// each with its id and its attempts, and the leased one's token; and every key keeps
// its order. The node that runs the move stops half-way, and the move ends all the
// same. The shard goes on when any node is lost.
func TestShardMovesUnderLoad(t *testing.T) {
	ms := startCluster(t, 4)
	voters(t, ms[0], 3)
	ctx := t.Context()
	victim := catalogLeader(t, ms)
	others := slices.DeleteFunc(slices.Clone(ms), func(m *member) bool { return m == victim })
	gw := others[1].Gateway()
	orders, to := queueToMove(t, gw, ms, victim)
	send := func(m *member, x message.New) (message.ID, error) {
		rs, err := m.Gateway().Send(ctx, orders, []message.New{x})
		if err == nil && rs[0].Err != nil {
			err = rs[0].Err
		}
		if err != nil {
			return message.ID{}, err
		}
		return rs[0].ID, nil
	}
	settle := func(d message.Delivery, s message.Settlement) {
		t.Helper()
		var err error
		if s.Token, err = gw.OpenToken(d.Token); err != nil {
			t.Fatal(err)
		}
		rs, err := gw.Settle(ctx, []message.Settlement{s})
		if err == nil && rs[0].Err != nil {
			err = rs[0].Err
		}
		if err != nil {
			t.Fatalf("%v of %s: %v", s.Action, d.ID, err)
		}
	}
	// One message at a time, all in the upper half of the cells.
	next := 0
	special := func(delay time.Duration) message.ID {
		t.Helper()
		for ; ; next++ {
			q, _ := others[1].view.Load().Queue(orders)
			key := fmt.Sprint("special ", next)
			if q.Hash(key).Point().Cell() < message.Cells/2 {
				continue
			}
			next++
			id, err := send(others[0], message.New{Key: key, Delay: delay})
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	take := func() message.Delivery {
		t.Helper()
		ds, err := gw.Receive(ctx, orders, message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "holder"})
		if err != nil || len(ds) != 1 {
			t.Fatal(ds, err)
		}
		return ds[0]
	}
	special(0)
	leased := take()
	special(0)
	retrying := take()
	settle(retrying, message.Settlement{Action: message.Nack, Delay: 5 * time.Minute, HasDelay: true})
	special(0)
	dead := take()
	settle(dead, message.Settlement{Action: message.Reject, Error: "burnt"})
	scheduled := special(5 * time.Minute)
	first, err := gw.List(ctx, orders, message.ListOptions{State: message.Scheduled, Max: 1})
	if err != nil || len(first.Messages) != 1 || first.NextPage == "" {
		t.Fatal(first, err)
	}

	stop := make(chan struct{})
	var load sync.WaitGroup
	var mu sync.Mutex
	sent, handled := map[string]int{}, map[string]int{}
	for i := range 4 {
		load.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprint("key ", i, " ", n%3)
				if _, err := send(others[(i+n)%3], message.New{Key: key, Body: fmt.Append(nil, n/3+min(n%3, 1))}); err != nil {
					t.Errorf("send: %v", err)
					return
				}
				mu.Lock()
				sent[key]++
				mu.Unlock()
			}
		})
	}
	working, rest := context.WithCancel(ctx)
	defer rest()
	var work sync.WaitGroup
	for i := range 3 {
		work.Go(func() {
			for working.Err() == nil {
				ds, err := others[i].Gateway().Receive(working, orders, message.ReceiveOptions{Max: 5, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: fmt.Sprint("worker ", i)})
				if err != nil && working.Err() == nil {
					t.Errorf("receive: %v", err)
				}
				for _, d := range ds {
					mu.Lock()
					handled[d.Key]++
					if want := fmt.Sprint(handled[d.Key]); string(d.Body) != want {
						t.Errorf("key %q: %s came, want %s", d.Key, d.Body, want)
					}
					mu.Unlock()
					settle(d, message.Settlement{Action: message.Ack})
				}
			}
		})
	}
	all := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			total := 0
			for _, k := range handled {
				total += k
			}
			return total >= n
		}
	}
	eventually(t, "there is load", all(100))
	begun, err := gw.MoveShard(ctx, orders, "0.1", to.name, "ann")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shard has a group of its own", func() bool {
		o, ok := victim.view.Load().Operation(begun.ID)
		return ok && o.Step != ""
	})
	victim.stop()
	var o message.OperationInfo
	eventually(t, "the move has ended", func() bool {
		now, err := others[0].Gateway().Operation(ctx, begun.ID)
		o = now
		return err == nil && o.State != "running"
	})
	v := others[0].view.Load()
	q, _ := v.Queue(orders)
	s, _ := q.ShardPath("0.1")
	g, _ := v.Group(s.Group)
	group := g.ID
	if r, ok := g.On(to.id); o.State != "done" || !ok || r.Role != catalog.Voter || g.Origin == nil || !leadsHere(to, group) {
		t.Fatalf("%+v: group %+v", o, g)
	}
	mu.Lock()
	before := 0
	for _, k := range handled {
		before += k
	}
	mu.Unlock()
	eventually(t, "the load goes on", all(before+100))
	close(stop)
	load.Wait()
	total := 0
	for _, k := range sent {
		total += k
	}
	eventually(t, "all is handled", all(total))
	rest()
	work.Wait()

	for id, want := range map[message.ID]struct {
		state    message.State
		attempts int
	}{leased.ID: {message.Leased, 0}, retrying.ID: {message.Scheduled, 1}, dead.ID: {message.Dead, 1}, scheduled: {message.Scheduled, 0}} {
		eventually(t, "it is found", func() bool {
			g, ok := to.host.Group(group)
			if !ok {
				return false
			}
			view := g.View()
			defer view.Close()
			d, ok := queue.Show(view, id)
			if !ok {
				return false
			}
			if d.State != want.state || d.Attempts != want.attempts {
				t.Errorf("message %s is %+v, want %+v", id, d, want)
			}
			return true
		})
	}
	// A list that began before the move goes on after it.
	remaining, err := gw.List(ctx, orders, message.ListOptions{State: message.Scheduled, Max: 10, Page: first.NextPage})
	if ids := []message.ID{retrying.ID, scheduled}; err != nil || len(remaining.Messages) != 1 || remaining.NextPage != "" ||
		!slices.Contains(ids, remaining.Messages[0].ID) || remaining.Messages[0].ID == first.Messages[0].ID {
		t.Errorf("after %s came %+v, %v; want the other of %s", first.Messages[0].ID, remaining, err, ids)
	}
	settle(leased, message.Settlement{Action: message.Ack})
	if errs, err := gw.Redrive(ctx, []message.ID{dead.ID}, false); err != nil || errs[0] != nil {
		t.Errorf("redrive: %v, %v", errs, err)
	}
	if d := take(); d.ID != dead.ID || d.Fence <= dead.Fence {
		t.Errorf("%s came with fence %d, want %s and more than %d", d.ID, d.Fence, dead.ID, dead.Fence)
	}
	victim.start()
	voters(t, others[0], 3)
	for _, m := range ms {
		m.stop()
		other := ms[0]
		if m == other {
			other = ms[1]
		}
		if _, err := send(other, message.New{Key: "key 0 0"}); err != nil {
			t.Errorf("without %s: %v", m.name, err)
		}
		m.start()
	}
}

// Of two nodes one votes and one copies: a shard that moves lets them change roles,
// and changes them again when it moves back. When its queue is deleted, no replica of
// its group is left anywhere.
func TestShardMovesBetweenTwoNodes(t *testing.T) {
	ms := startCluster(t, 2)
	eventually(t, "every group has a learner", func() bool {
		return !slices.ContainsFunc(ms[1].view.Load().Groups(), func(g *catalog.Group) bool { return len(g.Confirmed.Learners) != 1 })
	})
	ctx := t.Context()
	gw := ms[1].Gateway()
	if _, _, err := gw.CreateQueue(ctx, "orders", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	if rs, err := gw.Send(ctx, "orders", []message.New{{Body: []byte("x")}}); err != nil || rs[0].Err != nil {
		t.Fatal(rs, err)
	}
	ds, err := gw.Receive(ctx, "orders", message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "w"})
	if err != nil || len(ds) != 1 {
		t.Fatal(ds, err)
	}
	var group uint64
	for _, to := range []*member{ms[1], ms[0]} {
		begun, err := gw.MoveShard(ctx, "orders", "0", to.name, "ann")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has moved", func() bool {
			o, err := gw.Operation(ctx, begun.ID)
			if err == nil && o.State != "running" && o.State != "done" {
				t.Fatalf("%+v", o)
			}
			return err == nil && o.State == "done"
		})
		q, _ := gw.View().Queue("orders")
		g, _ := gw.View().Group(q.Shards[0].Group)
		if r, _ := g.On(to.id); r.Role != catalog.Voter || !leadsHere(to, g.ID) || g.Voters() != 1 || group != 0 && group != g.ID {
			t.Errorf("moved to %s: group %+v, %d before", to.name, g, group)
		}
		group = g.ID
	}
	token, err := gw.OpenToken(ds[0].Token)
	if err != nil {
		t.Fatal(err)
	}
	if rs, err := gw.Settle(ctx, []message.Settlement{{Token: token, Action: message.Ack}}); err != nil || rs[0].Err != nil {
		t.Errorf("the token of before: %v, %v", rs, err)
	}
	if err := gw.DeleteQueue(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		eventually(t, "its group is gone", func() bool {
			_, known := m.view.Load().Group(group)
			_, here := m.host.Group(group)
			return !known && !here
		})
	}
}
