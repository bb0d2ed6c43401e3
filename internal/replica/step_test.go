package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/raftlog"
)

// stepped is three nodes that one goroutine drives.
type stepped struct {
	t     *testing.T
	nodes map[uint64]*node
	wire  []Outgoing
	away  uint64
	// perStep is how many bytes of entries a node takes a step; the rest waits.
	perStep, room map[uint64]int
	// onSnapshot is called before a snapshot is handed over.
	onSnapshot func()
}

// newStepped are three nodes without a group.
func newStepped(t *testing.T, tune func(*Options)) *stepped {
	s := &stepped{t: t, nodes: map[uint64]*node{}, perStep: map[uint64]int{}, room: map[uint64]int{}, onSnapshot: func() {}}
	for id := uint64(1); id <= 3; id++ {
		n := newNode(t, newDisk(t, nil))
		n.id, n.transport = id, stepLink{s}
		n.tune = func(o *Options) {
			o.SnapshotRate = 1 << 50
			tune(o)
		}
		h, err := New(n.options())
		if err != nil {
			t.Fatal(err)
		}
		n.host = h
		s.nodes[id] = n
		if err := h.Step(false); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// stepLink keeps messages until the next step.
type stepLink struct{ s *stepped }

func (l stepLink) Send(msgs []Outgoing) {
	for _, o := range msgs {
		l.s.wire = append(l.s.wire, Outgoing{o.Group, proto.Clone(o.Message).(*raftpb.Message)})
	}
}

func (l stepLink) SendSnapshot(ctx context.Context, o Outgoing, body io.Reader) error {
	if o.Message.GetTo() == l.s.away {
		return errors.New("the other node is away")
	}
	all, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	l.s.onSnapshot()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return l.s.nodes[o.Message.GetTo()].host.ReceiveSnapshot(ctx, o.Group, o.Message, bytes.NewReader(all))
}

// step lets every node tick and do a step, and delivers what they sent.
func (s *stepped) step() {
	s.t.Helper()
	for id := uint64(1); id <= 3; id++ {
		if err := s.nodes[id].host.Step(true); err != nil {
			s.t.Fatal(err)
		}
	}
	wire := s.wire
	s.wire = nil
	for id, bytes := range s.perStep {
		s.room[id] = min(s.room[id], 0) + bytes
	}
	for _, o := range wire {
		to := o.Message.GetTo()
		if s.perStep[to] > 0 && s.room[to] <= 0 {
			s.wire = append(s.wire, o)
			continue
		}
		for _, e := range o.Message.GetEntries() {
			s.room[to] -= len(e.GetData())
		}
		if to != s.away && o.Message.GetFrom() != s.away {
			s.nodes[to].host.Receive(o.Group, o.Message)
		}
	}
}

func (s *stepped) until(what string, is func() bool) {
	s.t.Helper()
	for range 2_000 {
		if is() {
			return
		}
		s.step()
	}
	s.t.Fatalf("it did not come: %s", what)
}

func (s *stepped) leader() (found *node) {
	s.t.Helper()
	s.until("a leader", func() bool {
		for id := uint64(1); id <= 3; id++ {
			if n := s.nodes[id]; id != s.away && n.group().Status().Leading {
				found = n
			}
		}
		return found != nil
	})
	return found
}

// add gives true when the command is applied.
func (s *stepped) add(name string) {
	s.t.Helper()
	done, ok := false, false
	s.until("it is applied", func() bool {
		if ok {
			return true
		}
		if s.leader(); !done {
			done = true
			s.leader().group().Propose(Command{Head: []byte(name)}, func(_ any, err error) { ok, done = err == nil, err == nil })
		}
		return ok
	})
}

func (s *stepped) agreed() bool {
	a, b, c := s.nodes[1].group().Status(), s.nodes[2].group().Status(), s.nodes[3].group().Status()
	return a.Applied == a.Commit && a.Applied == b.Applied && b.Applied == c.Applied && s.nodes[1].hash() == s.nodes[2].hash() && s.nodes[2].hash() == s.nodes[3].hash()
}

// Three nodes live by steps alone: they elect, apply, lose a leader, give a
// snapshot to who was away, destroy, create and end.
func TestStepsAloneRunACluster(t *testing.T) {
	s := newStepped(t, func(*Options) {})
	for id, n := range s.nodes {
		if _, err := n.host.Create(first(id)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		s.add(fmt.Sprint(i % 7))
	}
	s.away = s.leader().id
	for i := range 30 {
		s.add(fmt.Sprint(i % 7))
	}
	leader := s.leader()
	s.until("the one that is away does not count", func() bool { return !active(leader, s.away) })
	if err := leader.host.store.Flush(); err != nil {
		t.Fatal(err)
	}
	back := s.nodes[s.away]
	s.until("the log is cut", func() bool {
		leader.host.onFlush() // the follower may have told only now that it has it all
		first, err := leader.host.log.FirstIndex(testGroup)
		return err == nil && first > leader.group().Status().Applied
	})
	s.away = 0
	s.until("all have the same", s.agreed)
	if got := back.host.Stats().SnapshotsReceived; got != 1 {
		t.Errorf("%d snapshots were installed", got)
	}
	if err := back.host.Destroy(testGroup, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := back.host.Create(NewReplica{Group: 2, Replica: 1, Base: raftlog.Position{Index: 1, Term: 1}, Conf: &raftpb.ConfState{Voters: []uint64{1}}}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := back.host.Step(true); err != nil {
			t.Fatal(err)
		}
	}
	if g, ok := back.host.Group(2); !ok || !g.Status().Leading {
		t.Error("the new group has no leader")
	}
	s.away = back.id
	var pending error
	s.leader().group().Propose(Command{Head: []byte("last")}, func(_ any, err error) { pending = err })
	for _, n := range s.nodes {
		if err := n.host.Close(); err != nil {
			t.Error(err)
		}
	}
	if pending == nil {
		t.Error("a command that was not applied has no outcome")
	}
}
