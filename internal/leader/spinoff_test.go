package leader

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// viewOf is a catalog with one queue.
func viewOf(t *testing.T, q catalog.Queue) *catalog.View {
	t.Helper()
	row, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	m := catalog.New()
	m.Load(oneQueue{row})
	return m.View()
}

// TestSpinOffChangesLeaders spins a shard off with a ready, a leased, a scheduled
// and an about to be retried message in it. Its leader goes on with all of them,
// tells the catalog, and the old group's leader watches none of them any more.
func TestSpinOffChangesLeaders(t *testing.T) {
	r := newRig(t)
	r.propose((&queue.Drop{Queue: 1}).Command())
	r.propose((&queue.Configure{Queue: 1, Version: 2, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 7, Path: "0.0"}, {From: 8, To: 15, Path: "0.1"}}}).Command())
	send := func(cells ...int) {
		c := queue.Send{Queue: 1}
		for _, n := range cells {
			c.Messages = append(c.Messages, queue.Sent{Cell: n})
		}
		r.propose(c.Command())
	}
	send(9)
	retried := r.receive(1, time.Minute)
	nack := message.Settlement{Token: message.Token{ID: retried[0].ID, Fence: retried[0].Fence}, Action: message.Nack, Delay: 15 * time.Second, HasDelay: true}
	r.propose((&queue.Settle{Settlements: []message.Settlement{nack}}).Command())
	send(1, 10)
	held := r.receive(2, 20*time.Second)
	r.propose((&queue.Send{Queue: 1, Messages: []queue.Sent{{Cell: 11, New: message.New{Delay: 10 * time.Second}}}}).Command())
	done := make(chan error, 2)
	for _, c := range []queue.Command{
		(&queue.Send{Queue: 1, Messages: []queue.Sent{{Cell: 12}}}).Command(),
		(&queue.SpinOff{Queue: 1, From: 8, To: 15, Epoch: 1, Group: 9, Replicas: []queue.ReplicaPair{{Here: 1, There: 1}}}).Command(),
	} {
		r.raft.Propose(replica.Command(c), func(_ any, err error) { done <- err })
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	child := &rig{t: t, clock: r.clock, Group: <-r.spun}
	child.lead()

	// As when the entry that spins off had settings for the queue before these.
	for _, k := range []queue.EffectKind{queue.Offered, queue.LeaseSet, queue.Due, queue.Withdrawn} {
		r.learn([]queue.Effect{{Kind: k, Queue: 1, Ref: queue.Ref{Cell: 9, Seq: 77}, At: 1}})
	}
	r.mu.Lock()
	if l := r.queues[1]; len(l.cells) != 8 || len(r.leases.by) != 1 || len(r.timed) != 0 {
		t.Errorf("the old leader has %d cells, %d leases, and %d cells with timers", len(l.cells), len(r.leases.by), len(r.timed))
	}
	r.mu.Unlock()
	var token []queue.Leased
	for _, x := range held {
		if x.Ref.Cell == 10 {
			token = append(token, x)
		}
	}
	child.settle(token, message.Release, 0)
	child.step(time.Second)
	got := child.receive(5, time.Hour)
	if len(got) < 2 {
		t.Errorf("the new leader hands out %+v", got)
	}
	// Everything that was timed comes.
	for range 60 {
		child.step(time.Second)
	}
	left := child.receive(5, time.Hour)
	for _, x := range append(got, left...) {
		if x.ID == retried[0].ID && x.Attempts != 1 {
			t.Errorf("the retried message has %d attempts", x.Attempts)
		}
	}
	if all := len(got) + len(left); all != 4 {
		t.Errorf("the new leader handed out %d messages", all)
	}

	// The catalog hears of it from the new group's leader, and from nobody else.
	changes := make(chan catalog.Command, 8)
	change := func(_ context.Context, c catalog.Command) (catalog.Result, error) {
		changes <- c
		return catalog.Result{}, nil
	}
	r.change, child.change = change, change
	old := catalog.Queue{Number: 1, Name: "orders", Version: 2, Shards: []catalog.Shard{
		{To: 7, Path: "0.0", Group: r.ID(), Epoch: 1}, {From: 8, To: 15, Path: "0.1", Group: r.ID(), Epoch: 1},
	}}
	// step lets the child's leader tell, when it has told what it had before.
	step := func() {
		t.Helper()
		told(t, child)
		child.step(0)
	}
	r.Learn(viewOf(t, old), nil)
	child.Learn(viewOf(t, old), nil)
	r.step(0)
	step()
	want := catalog.MoveShard{Queue: 1, Path: "0.1", Epoch: 1, Group: 9}
	if c := <-changes; c.MoveShard == nil || *c.MoveShard != want {
		t.Errorf("the catalog hears %+v", c)
	}
	// Split before that was recorded: first comes the move.
	if r := child.propose((&queue.Split{Queue: 1, From: 8, To: 15, Epoch: 2, At: 12}).Command()); r != nil {
		t.Fatal(r)
	}
	step()
	if c := <-changes; c.MoveShard == nil || *c.MoveShard != want {
		t.Errorf("after a split the catalog hears %+v", c)
	}
	moved := old
	moved.Version, moved.Shards = 3, []catalog.Shard{old.Shards[0], {From: 8, To: 15, Path: "0.1", Group: 9, Epoch: 2}}
	r.Learn(viewOf(t, moved), nil)
	child.Learn(viewOf(t, moved), nil)
	r.step(0)
	step()
	if c := <-changes; c.SplitShard == nil || c.SplitShard.Epoch != 2 {
		t.Errorf("then it hears %+v", c)
	}
	if len(changes) != 0 {
		t.Errorf("more was recorded: %+v", <-changes)
	}
}

// told waits until nobody tells the catalog anything.
func told(t *testing.T, r *rig) {
	t.Helper()
	for busy := true; busy; runtime.Gosched() {
		r.mu.Lock()
		busy = r.recording
		r.mu.Unlock()
	}
}

// While the catalog refuses to record what became of a shard, it is asked ever less
// often, and by one at a time.
func TestRefusedRecordsAreTriedEverLessOften(t *testing.T) {
	r := newRig(t)
	var asked atomic.Int64
	goOn := make(chan struct{})
	r.change = func(context.Context, catalog.Command) (catalog.Result, error) {
		asked.Add(1)
		<-goOn
		return catalog.Result{Err: message.Errorf(message.Conflict, "not now")}, nil
	}
	r.Learn(viewOf(t, catalog.Queue{Number: 1, Name: "orders", Version: 1, Shards: []catalog.Shard{{Path: "0", Group: 99}}}), nil)
	for range 20 {
		r.Learn(r.view, nil)
		r.step(Every)
	}
	if got := asked.Load(); got > 1 {
		t.Errorf("the catalog was asked %d times at once", got)
	}
	close(goOn)
	for range 3 * time.Minute / Every {
		told(t, r)
		r.clock.add(Every)
		r.Tick()
	}
	told(t, r)
	if got := asked.Load(); got < 6 || got > 10 { // after 1, 2, 4, … s
		t.Errorf("in three minutes the catalog was asked %d times", got)
	}
}
