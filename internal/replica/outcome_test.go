package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
)

// refused says that a command can't be applied any more.
func refused(err error) bool {
	switch message.CodeOf(err) {
	case message.NotLeader, message.Unavailable, message.ResourceExhausted, message.TooLarge:
		return true
	default:
		return false
	}
}

// Leaders are cut off, killed and started again while commands are under way. What got
// a result is there exactly once, what was refused is not there, and what is
// unknown is there at most once.
func TestOutcomesHoldAcrossLeaders(t *testing.T) {
	c := newCluster(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	outcomes := map[string]error{}
	var all sync.WaitGroup
	for round := range 12 {
		leader := c.leader()
		for i := range 60 {
			name := fmt.Sprintf("%d-%d", round, i)
			all.Add(1)
			leader.group().Propose(Command{Head: []byte(name)}, func(_ any, err error) {
				mu.Lock()
				defer mu.Unlock()
				outcomes[name] = err
				all.Done()
			})
			if i == 20 {
				c.add("progress") // these are confirmed
			}
			if i == 40 {
				until(t, "the rest is under way", func() bool { return leader.group().boxEmpty() })
				switch id := leader.id; round % 3 {
				case 0:
					c.isolate(id, true)
				case 1:
					leader.restart()
				default: // with a disk that loses some of what was not synced
					leader.kill()
					leader.fs = leader.fs.(*disk).crash(t, 50, rng.Uint64())
					leader.start()
				}
			}
		}
		c.add("progress") // the others go on
		c.isolate(leader.id, false)
		c.add("progress") // and take it back
	}
	all.Wait()
	c.agree()
	v := c.nodes[1].group().View()
	defer v.Close()
	var kinds [3]int
	for name, err := range outcomes {
		n := readCount(v, name)
		switch {
		case err == nil:
			kinds[0]++
			if n != 1 {
				t.Errorf("%s was confirmed and is there %d times", name, n)
			}
		case refused(err):
			kinds[1]++
			if n != 0 {
				t.Errorf("%s was refused (%v) and is there", name, err)
			}
		default:
			kinds[2]++
			if message.CodeOf(err) != message.UnknownOutcome || n > 1 {
				t.Errorf("%s: %v, and it is there %d times", name, err, n)
			}
		}
	}
	t.Logf("%d confirmed, %d refused, %d unknown", kinds[0], kinds[1], kinds[2])
	if kinds[0] == 0 || kinds[1] == 0 {
		t.Error("the test meets too few outcomes")
	}
}

func (g *Group) boxEmpty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting) == 0
}

// An entry that another leader replaced is NOT_APPLIED as soon as its place is
// taken, and not before.
func TestReplacedEntryIsRefused(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	old := c.leader()
	c.isolate(old.id, true)
	lost := propose(old.group(), "lost")
	until(t, "another leader", func() bool { return c.leader() != old })
	c.add("b")
	select {
	case o := <-lost:
		t.Fatalf("it was answered with %v while nobody could know", o)
	default:
	}
	c.isolate(old.id, false)
	if o := <-lost; message.CodeOf(o.err) != message.Unavailable {
		t.Fatalf("a replaced entry got %v, %v", o.result, o.err)
	}
	c.agree()
	if n := old.count("lost"); n != 0 {
		t.Fatalf("a refused command is there %d times", n)
	}
}

// Reads that began after a confirmation see it, on every replica, also while
// leaders change.
func TestReadsAreLinearizable(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var confirmed uint64
	var readers sync.WaitGroup
	reads := make([]int, 4)
	for id, n := range c.nodes {
		readers.Go(func() {
			g := n.group()
			for ctx.Err() == nil {
				mu.Lock()
				want := confirmed
				mu.Unlock()
				if g.ReadIndex(ctx) != nil {
					continue
				}
				v := g.View()
				got := readCount(v, "a")
				v.Close()
				reads[id]++
				if got < want {
					t.Errorf("node %d read %d after %d was confirmed", id, got, want)
				}
			}
		})
	}
	for range 6 {
		for range 20 {
			n := c.add("a")
			mu.Lock()
			confirmed = max(confirmed, n)
			mu.Unlock()
		}
		leader := c.leader()
		c.isolate(leader.id, true)
		n := c.add("a")
		mu.Lock()
		confirmed = max(confirmed, n)
		mu.Unlock()
		c.isolate(leader.id, false)
	}
	cancel()
	readers.Wait()
	t.Logf("reads by node: %v", reads[1:])
}

// A replica counts a vote or an entry towards its group only when its own disk
// has it: when a node has sent its vote or its acknowledgement, a power cut does
// not take that back (trap 3).
func TestTrap03MessagesLeaveAfterTheSync(t *testing.T) {
	c := newCluster(t)
	var mu sync.Mutex
	votes, acks := 0, 0
	c.watch(func(from uint64, m *raftpb.Message) bool {
		kind := m.GetType()
		if kind != raftpb.MsgVoteResp && kind != raftpb.MsgAppResp && kind != raftpb.MsgVote || m.GetReject() {
			return true
		}
		r, last := logAfterCrash(t, c.nodes[from])
		mu.Lock()
		defer mu.Unlock()
		hard := r.HardState
		switch kind {
		case raftpb.MsgVote:
			if hard.GetTerm() < m.GetTerm() || hard.GetTerm() == m.GetTerm() && hard.GetVote() != from {
				t.Errorf("node %d asks for votes in term %d, its disk is in %d with a vote for %d", from, m.GetTerm(), hard.GetTerm(), hard.GetVote())
			}
		case raftpb.MsgVoteResp:
			votes++
			if hard.GetTerm() < m.GetTerm() || hard.GetTerm() == m.GetTerm() && hard.GetVote() != m.GetTo() {
				t.Errorf("node %d votes for %d in term %d, its disk says %d in %d", from, m.GetTo(), m.GetTerm(), hard.GetVote(), hard.GetTerm())
			}
		default:
			acks++
			if last < m.GetIndex() {
				t.Errorf("node %d acknowledges %d, its disk has %d", from, m.GetIndex(), last)
			}
		}
		return true
	})
	for range 3 {
		for range 5 {
			c.add("a")
		}
		old := c.leader()
		c.isolate(old.id, true)
		until(t, "another leader", func() bool { return c.leader() != old })
		c.isolate(old.id, false)
	}
	c.watch(nil)
	mu.Lock()
	defer mu.Unlock()
	if votes == 0 || acks == 0 {
		t.Fatalf("saw %d votes and %d acknowledgements", votes, acks)
	}
}

// logAfterCrash is what a power cut now would leave of the group in the log.
func logAfterCrash(t *testing.T, n *node) (raftlog.Replica, uint64) {
	o := (&node{id: n.id, fs: n.fs.(*disk).crash(t, 0, 1)}).options().Log
	l, err := raftlog.Open(o)
	if err != nil {
		t.Errorf("the log after a power cut: %v", err)
		return raftlog.Replica{}, 0
	}
	defer l.Close()
	for _, r := range l.Replicas() {
		if r.Group == testGroup {
			last, err := l.LastIndex(testGroup)
			if err != nil {
				t.Error(err)
			}
			return r, last
		}
	}
	t.Error("the group is not in the log after a power cut")
	return raftlog.Replica{}, 0
}
