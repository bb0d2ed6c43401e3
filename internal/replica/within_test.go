package replica

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
)

// wristwatch is a node's clock that a test moves.
type wristwatch struct {
	mu  sync.Mutex
	now time.Time
}

func (w *wristwatch) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *wristwatch) move(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// A bounded read says how old it may be, shares what others proved, asks anew
// when that is too old, and refuses when nobody answers.
func TestReadWithinKeepsItsBound(t *testing.T) {
	watch := &wristwatch{now: time.Now()}
	c := newNodes(t, func(o *Options) { o.Now = watch.Now })
	for id, n := range c.nodes {
		if _, err := n.host.Create(first(id)); err != nil {
			t.Fatal(err)
		}
	}
	c.add("a")
	leader := c.leader()
	reader := c.others(leader)[0]
	patience := 10 * time.Second
	read := func(maxAge time.Duration) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return reader.group().ReadWithin(ctx, maxAge)
	}
	until(t, "the first read", func() bool {
		age, err := read(0)
		return err == nil && age == 0
	})
	var mu sync.Mutex
	asked := 0
	c.watch(func(from uint64, m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if m.GetType() == raftpb.MsgReadIndex {
			asked++
		}
		return true
	})
	watch.move(3 * time.Second)
	for range 10 {
		if age, err := read(5 * time.Second); err != nil || age != 3*time.Second {
			t.Fatalf("a read within 5 s is %v old (%v)", age, err)
		}
	}
	mu.Lock()
	if asked != 0 {
		t.Errorf("the leader was asked %d times", asked)
	}
	mu.Unlock()
	c.add("a")
	until(t, "a newer read", func() bool {
		age, err := read(2 * time.Second)
		return err == nil && age == 0
	})
	if got := reader.peek("a"); got != 2 {
		t.Errorf("a read of age 0 shows %d of 2", got)
	}
	// An age counts from the question on, not from the answer.
	c.watch(func(_ uint64, m *raftpb.Message) bool {
		if m.GetType() == raftpb.MsgReadIndexResp {
			watch.move(time.Second)
		}
		return true
	})
	watch.move(3 * time.Second)
	if age, err := read(2 * time.Second); err != nil || age < time.Second {
		t.Errorf("asked a second before its answer came, a read is %v old (%v)", age, err)
	}
	c.watch(nil)
	until(t, "a newer read", func() bool {
		age, err := read(0)
		return err == nil && age == 0
	})
	c.isolate(reader.id, true)
	watch.move(6 * time.Second)
	patience = 200 * time.Millisecond // nobody will answer
	if age, err := read(5 * time.Second); message.CodeOf(err) != message.Unavailable {
		t.Errorf("cut off for 6 s, a read within 5 s got %v, %v", age, err)
	}
	if age, err := read(7 * time.Second); err != nil || age != 6*time.Second {
		t.Errorf("cut off for 6 s, a read within 7 s got %v, %v", age, err)
	}
	if age, err := leader.group().ReadWithin(t.Context(), 0); err != nil || age != 0 {
		t.Errorf("the leader got %v, %v", age, err)
	}
}

// What is proved is the age of what is applied, and not of what is known to be
// committed: a worker that is stuck proves nothing.
func TestReadWithinWaitsForTheWorker(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	reader := c.others(c.leader())[0]
	gate := make(chan struct{})
	m := reader.machine()
	m.mu.Lock()
	m.gate = gate
	m.mu.Unlock()
	c.add("a")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if age, err := reader.group().ReadWithin(ctx, 0); err == nil && reader.peek("a") < 2 {
		t.Errorf("a read of age %v misses what was confirmed before it", age)
	}
	close(gate)
	if got := reader.count("a"); got != 2 {
		t.Errorf("then it shows %d of 2", got)
	}
}

// A leader whose disk stalls sends no heartbeats: the others elect another one,
// and the stalled one confirms nothing, neither writes nor reads (trap 14).
func TestTrap14StalledDiskStopsTheHeartbeats(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	old := c.leader()
	reached, release := old.fs.(*disk).hold()
	letGo := sync.OnceFunc(release)
	t.Cleanup(letGo)
	stalled := propose(old.group(), "a")
	<-reached
	reads := make(chan error, 1)
	go func() { reads <- old.group().ReadIndex(t.Context()) }()
	until(t, "another leader", func() bool {
		for _, n := range c.others(old) {
			if n.group().Status().Leading {
				return true
			}
		}
		return false
	})
	for _, n := range c.others(old) {
		if n.group().Status().Leading {
			if o := <-propose(n.group(), "b"); o.err != nil {
				t.Fatal(o.err)
			}
		}
	}
	select {
	case o := <-stalled:
		t.Errorf("a command that is not on its leader's disk got %v", o)
	case err := <-reads:
		t.Errorf("a read on a stalled leader got %v", err)
	default:
	}
	letGo()
	if err := <-reads; err != nil {
		t.Errorf("after the stall a read got %v", err)
	}
	<-stalled
	c.agree()
	if got := old.count("b"); got != 1 {
		t.Errorf("%d of 1 are there", got)
	}
}
