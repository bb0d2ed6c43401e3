package leader

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// A receiver whose lease gets no outcome, because the group has no majority, is
// let go; what comes after that is told to be nobody's.
func TestReceiverIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCall(1, message.ReceiveOptions{Max: 2, Worker: "w"}, 2)
		c.reserve(1)
		c.reserve(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		time.AfterFunc(2*time.Second, func() {
			if !c.deliver(1, make([]queue.Leased, 1), nil) {
				t.Error("what came in time is nobody's")
			}
		})
		got, err := c.Collect(ctx)
		if waited := time.Since(begun); len(got) != 1 || err != nil || waited != time.Second+answerWithin {
			t.Errorf("after %v it has %d messages, %v", waited, len(got), err)
		}
		if c.deliver(1, make([]queue.Leased, 1), nil) {
			t.Error("what came too late was taken")
		}
	})
}

// A lease that comes when its receiver has been let go is given back.
func TestLateLeaseIsGivenBack(t *testing.T) {
	r := newRig(t)
	r.send(1, 0)
	c := NewCall(1, message.ReceiveOptions{Max: 1, Lease: time.Minute, Worker: "w"}, 1)
	c.left = true
	r.Wait(c)
	r.propose(queue.Tick()) // behind the lease
	r.propose(queue.Tick()) // behind its release
	r.want("given back", 1, 0, 0)
}

// silent is a way to another node on which every answer is lost.
type silent struct{}

func (silent) Call(context.Context, uint64, []byte, <-chan struct{}) ([]byte, error) {
	return nil, message.Errorf(message.UnknownOutcome, "the connection broke")
}

func nobody(uint64) uint64 { return 0 }

// A lost answer to the question whether there is something says nothing of what
// happened, for nothing does: the receiver is told to look again.
func TestLostPeekIsNoUnknownOutcome(t *testing.T) {
	e := &Elsewhere{Caller: silent{}, Self: func() uint64 { return 1 }, Nodes: func(uint64) []uint64 { return []uint64{2} }, Leads: nobody}
	c := NewCall(1, message.ReceiveOptions{Max: 1, Worker: "w"}, 2)
	e.Group(7).Wait(c)
	if _, err := c.Collect(t.Context()); message.CodeOf(err) != message.NotLeader {
		t.Errorf("the receiver is told %v", err)
	}
}

// served asks nodes that are services here, and counts what each was asked.
type served struct {
	by    map[uint64]*Service
	asked map[uint64]int
}

func (s served) Call(ctx context.Context, to uint64, request []byte, _ <-chan struct{}) ([]byte, error) {
	s.asked[to]++
	return s.by[to].Answer(ctx, request), nil
}

// A receiver that is alone asks nothing but to take: a node that does not lead any
// more tells it who does, and is not asked again.
func TestTakeFindsTheNewLeader(t *testing.T) {
	leads, follows := newRig(t), newRig(t)
	leads.send(1, 0)
	follows.Follow()
	service := func(g *Group) *Service {
		return &Service{Group: func(uint64) (*Group, bool) { return g, true }, Leads: func(uint64) uint64 { return 3 }}
	}
	nodes := served{map[uint64]*Service{2: service(follows.Group), 3: service(leads.Group)}, map[uint64]int{}}
	e := &Elsewhere{Caller: nodes, Self: func() uint64 { return 1 }, Nodes: func(uint64) []uint64 { return []uint64{2} }, Leads: nobody}
	for attempt, refused := range []bool{true, false} {
		c := NewCall(1, message.ReceiveOptions{Max: 1, Lease: time.Minute, Worker: "w"}, 1)
		e.Group(2).Wait(c)
		if got, err := c.Collect(t.Context()); refused != (err != nil && err.Code == message.NotLeader) || len(got) != attempt {
			t.Fatalf("attempt %d: %d messages, %v", attempt, len(got), err)
		}
	}
	if nodes.asked[2] != 1 || nodes.asked[3] != 1 {
		t.Errorf("asked %v", nodes.asked)
	}
}

// stalled is a node that never answers.
type stalled struct{ asked []uint64 }

func (s *stalled) Call(ctx context.Context, to uint64, _ []byte, _ <-chan struct{}) ([]byte, error) {
	s.asked = append(s.asked, to)
	<-ctx.Done()
	return nil, message.Errorf(message.UnknownOutcome, "%v", context.Cause(ctx))
}

// Nobody waits for a leader that stands still when another is known to lead, which is
// asked next; a leader of whom only the replica here does not know yet is waited for.
func TestFollowedLeaderIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leads atomic.Uint64
		leads.Store(4) // as was known here before node 2 followed
		s := &stalled{}
		e := &Elsewhere{
			Caller: s, Self: func() uint64 { return 1 }, Leads: func(uint64) uint64 { return leads.Load() },
			Nodes: func(uint64) []uint64 { return []uint64{leads.Load()} },
		}
		e.note(7, 2)
		time.AfterFunc(3*time.Second, func() { leads.Store(2) })
		time.AfterFunc(5*time.Second, func() { leads.Store(3) })
		began := time.Now()
		_, err := e.Group(7).Propose(t.Context(), queue.Tick())
		if waited := time.Since(began); message.CodeOf(err) != message.UnknownOutcome || waited < 5*time.Second || waited > 5*time.Second+lookEvery {
			t.Errorf("after %v: %v", waited, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, _ = e.Group(7).Propose(ctx, queue.Tick())
		if !slices.Equal(s.asked, []uint64{2, 3}) {
			t.Errorf("asked %v", s.asked)
		}
	})
}
