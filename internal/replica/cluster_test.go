package replica

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/raftlog"
)

// cluster is three nodes with one group, over a network in memory.
type cluster struct {
	t     *testing.T
	nodes map[uint64]*node
	stop  chan struct{}
	clock sync.WaitGroup

	mu  sync.Mutex
	cut map[uint64]bool // nodes that nobody reaches and that reach nobody
	// onSend sees each message before it goes out; false loses it.
	onSend func(from uint64, m *raftpb.Message) bool
	// onSnapshot sees each snapshot, and may give another body.
	onSnapshot func(o Outgoing, body io.Reader) io.Reader
}

type link struct {
	c    *cluster
	from uint64
}

func (l link) Send(msgs []Outgoing) {
	for _, o := range msgs {
		l.c.mu.Lock()
		lost := l.c.cut[l.from] || l.c.cut[o.Message.GetTo()]
		to, hook := l.c.nodes[o.Message.GetTo()], l.c.onSend
		l.c.mu.Unlock()
		if hook != nil && !hook(l.from, o.Message) || lost || to == nil {
			continue
		}
		if h := to.running(); h != nil {
			h.Receive(o.Group, proto.Clone(o.Message).(*raftpb.Message))
		}
	}
}

// SendSnapshot reaches ReceiveSnapshot of the other node through a pipe.
func (l link) SendSnapshot(ctx context.Context, o Outgoing, body io.Reader) error {
	l.c.mu.Lock()
	lost := l.c.cut[l.from] || l.c.cut[o.Message.GetTo()]
	to, hook := l.c.nodes[o.Message.GetTo()], l.c.onSnapshot
	l.c.mu.Unlock()
	if lost || to == nil || to.running() == nil {
		return errors.New("the other node is away")
	}
	if hook != nil {
		body = hook(o, body)
	}
	r, w := io.Pipe()
	var copying sync.WaitGroup
	copying.Go(func() {
		_, err := io.Copy(w, body)
		w.CloseWithError(err)
	})
	defer copying.Wait() // body is not ours when this returns
	defer r.Close()
	return to.running().ReceiveSnapshot(ctx, o.Group, proto.Clone(o.Message).(*raftpb.Message), r)
}

func newCluster(t *testing.T) *cluster {
	c := newNodes(t, nil)
	for id, n := range c.nodes {
		if _, err := n.host.Create(first(id)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// first is a first member of a group of three.
func first(id uint64) NewReplica {
	return NewReplica{Group: testGroup, Replica: id, Base: raftlog.Position{Index: 1, Term: 1}, Conf: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}
}

// newGrowing is a cluster in which replica 1 is the only voter, and 2 and 3 are
// empty and not known to it.
func newGrowing(t *testing.T, tune func(*Options)) *cluster {
	c := newNodes(t, tune)
	c.nodes[1].create(testGroup)
	for id := uint64(2); id <= 3; id++ {
		c.nodes[id].join(testGroup, id)
	}
	until(t, "it leads", func() bool { return c.nodes[1].group().Status().Leading })
	return c
}

// join makes an empty replica.
func (n *node) join(group, replica uint64) {
	n.t.Helper()
	if _, err := n.host.Create(NewReplica{Group: group, Replica: replica, Conf: &raftpb.ConfState{}}); err != nil {
		n.t.Fatalf("join group %d: %v", group, err)
	}
}

// newNodes are three nodes that run, without a group.
func newNodes(t *testing.T, tune func(*Options)) *cluster {
	disks := map[uint64]*disk{}
	for id := uint64(1); id <= 3; id++ {
		disks[id] = newDisk(t, nil)
	}
	return newNodesOn(t, disks, tune)
}

// newNodesOn are three nodes that run, with what is on their disks.
func newNodesOn(t *testing.T, disks map[uint64]*disk, tune func(*Options)) *cluster {
	c := &cluster{t: t, nodes: map[uint64]*node{}, stop: make(chan struct{}), cut: map[uint64]bool{}}
	for id := uint64(1); id <= 3; id++ {
		n := newNode(t, disks[id])
		n.id, n.transport, n.tune = id, link{c, id}, tune
		c.nodes[id] = n
	}
	for _, n := range c.nodes {
		n.start()
	}
	for _, n := range c.nodes {
		c.clock.Go(func() { c.tick(n) })
	}
	t.Cleanup(func() {
		close(c.stop)
		c.clock.Wait()
	})
	return c
}

// tick is a node's clock: twenty times as fast as in life.
func (c *cluster) tick(n *node) {
	ticker := time.NewTicker(TickEvery / 20)
	defer ticker.Stop()
	for {
		select {
		case <-c.stop:
			return
		case now := <-ticker.C:
			select {
			case n.ticks <- now:
			case <-c.stop:
				return
			}
		}
	}
}

func (c *cluster) isolate(id uint64, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[id] = yes
}

func (c *cluster) watchSnapshots(hook func(o Outgoing, body io.Reader) io.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onSnapshot = hook
}

func (c *cluster) watch(hook func(from uint64, m *raftpb.Message) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onSend = hook
}

// until waits for something that must come.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(30 * time.Second)
	for !is() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("it did not come: %s", what)
		}
	}
}

// leader waits for a leader among those that are not cut off.
func (c *cluster) leader() *node {
	c.t.Helper()
	var found *node
	until(c.t, "a leader", func() bool {
		for id, n := range c.nodes {
			c.mu.Lock()
			cut := c.cut[id]
			c.mu.Unlock()
			if h := n.running(); h != nil && !cut {
				if g, ok := h.Group(testGroup); ok && g.Status().Leading {
					found = n
					return true
				}
			}
		}
		return false
	})
	return found
}

func (c *cluster) others(n *node) (ns []*node) {
	for id := uint64(1); id <= 3; id++ {
		if c.nodes[id] != n {
			ns = append(ns, c.nodes[id])
		}
	}
	return ns
}

// add repeats until somebody confirms; only what can't have happened is
// repeated.
func (c *cluster) add(name string) uint64 {
	c.t.Helper()
	for {
		if o := <-propose(c.leader().group(), name); o.err == nil {
			return o.result.(uint64)
		} else if !refused(o.err) {
			c.t.Fatalf("add %s: %v", name, o.err)
		}
	}
}

// agree waits until all have applied the same and checks that their rows are
// equal.
func (c *cluster) agree() {
	c.t.Helper()
	until(c.t, "all applied the same", func() bool {
		a, b, d := c.nodes[1].group().Status(), c.nodes[2].group().Status(), c.nodes[3].group().Status()
		return a.Applied == b.Applied && b.Applied == d.Applied && a.Commit == a.Applied && b.Commit == b.Applied && d.Commit == d.Applied
	})
	if a, b, d := c.nodes[1].hash(), c.nodes[2].hash(), c.nodes[3].hash(); a != b || b != d {
		c.t.Fatalf("rows differ: %x %x %x", a, b, d)
	}
}
