package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// spinOff does what spins a shard off: the catalog gives the group, and the shard's
// group makes it.
func spinOff(t *testing.T, m *member, name, path string) uint64 {
	t.Helper()
	v := m.view.Load()
	q, _ := v.Queue(name)
	s, _ := q.ShardPath(path)
	parent, _ := v.Group(s.Group)
	add := &catalog.AddGroup{Origin: catalog.Origin{Queue: q.Number, Path: path, Epoch: s.Epoch}}
	for _, r := range parent.Replicas {
		add.Seats = append(add.Seats, catalog.Seat{Node: r.Node, Role: r.Role})
	}
	r, err := m.changed(t.Context(), catalog.Command{AddGroup: add})
	if err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	c := queue.SpinOff{Queue: q.Number, From: s.From, To: s.To, Epoch: s.Epoch, Group: r.Group.ID}
	for _, x := range r.Group.Replicas {
		here, _ := parent.On(x.Node)
		c.Replicas = append(c.Replicas, queue.ReplicaPair{Here: here.ID, There: x.ID})
	}
	eventually(t, "the shard is spun off", func() bool {
		at, err := m.leads(s.Group)
		if err != nil {
			return false
		}
		refusal, err := at.Propose(t.Context(), c.Command())
		if err == nil && refusal != nil {
			t.Fatal(refusal)
		}
		return err == nil
	})
	return r.Group.ID
}

// A shard that is split off and spun off in the middle of load keeps what it
// holds: a leased, a retrying, a scheduled and a dead message, each with its id and
// its attempts, and the leased one's token; and every key keeps its order. It goes
// on when any node is lost.
func TestShardIsSpunOffUnderLoad(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	ctx := t.Context()
	gw := ms[1].Gateway()
	if _, _, err := gw.CreateQueue(ctx, "orders", message.Settings{MaxAttempts: 3}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := gw.SplitShard(ctx, "orders", "0"); err != nil {
		t.Fatal(err)
	}
	send := func(m *member, x message.New) (message.ID, error) {
		rs, err := m.Gateway().Send(ctx, "orders", []message.New{x})
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
			q, _ := ms[1].view.Load().Queue("orders")
			key := fmt.Sprint("special ", next)
			if q.Hash(key).Point().Cell() < message.Cells/2 {
				continue
			}
			next++
			id, err := send(ms[0], message.New{Key: key, Delay: delay})
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	take := func() message.Delivery {
		t.Helper()
		ds, err := gw.Receive(ctx, "orders", message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: "holder"})
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
				if _, err := send(ms[(i+n)%3], message.New{Key: key, Body: fmt.Append(nil, n/3+min(n%3, 1))}); err != nil {
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
				ds, err := ms[i].Gateway().Receive(working, "orders", message.ReceiveOptions{Max: 5, Wait: 20 * time.Second, Lease: 5 * time.Minute, Worker: fmt.Sprint("worker ", i)})
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
	group := spinOff(t, ms[2], "orders", "0.1")
	for _, m := range ms {
		eventually(t, "the catalog knows", func() bool {
			q, _ := m.view.Load().Queue("orders")
			s, ok := q.ShardPath("0.1")
			g, there := m.view.Load().Group(group)
			return ok && s.Group == group && there && len(g.Confirmed.Voters) == 3
		})
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
			g, ok := ms[0].host.Group(group)
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
	settle(leased, message.Settlement{Action: message.Ack})
	if errs, err := gw.Redrive(ctx, []message.ID{dead.ID}, false); err != nil || errs[0] != nil {
		t.Errorf("redrive: %v, %v", errs, err)
	}
	if d := take(); d.ID != dead.ID || d.Fence <= dead.Fence {
		t.Errorf("%s came with fence %d, want %s and more than %d", d.ID, d.Fence, dead.ID, dead.Fence)
	}
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
