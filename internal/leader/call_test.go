package leader

import (
	"context"
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

// A lost answer to the question whether there is something says nothing of what
// happened, for nothing does: the receiver is told to look again.
func TestLostPeekIsNoUnknownOutcome(t *testing.T) {
	e := &Elsewhere{Caller: silent{}, Self: func() uint64 { return 1 }, Nodes: func(uint64) []uint64 { return []uint64{2} }}
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
	e := &Elsewhere{Caller: nodes, Self: func() uint64 { return 1 }, Nodes: func(uint64) []uint64 { return []uint64{2} }}
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
