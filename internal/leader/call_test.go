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
