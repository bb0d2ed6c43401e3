package gateway

import (
	"context"
	"sync"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// lanes numbers the commands that this gateway sends to groups with more than one
// replica, one counter for all of them. The group keeps what it answered until
// the floor has passed it, so a command whose answer was lost is sent again, to
// whoever leads then, and does nothing twice.
type lanes struct {
	mu   sync.Mutex
	next uint64
	// open are the commands from floor on, in order; true: it is over.
	open  []bool
	floor uint64
}

// begin gives the next number, and the lowest that may still come again.
func (l *lanes) begin() (seq, floor uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.floor == 0 {
		l.next, l.floor = 1, 1
	}
	seq = l.next
	l.next++
	l.open = append(l.open, false)
	return seq, l.floor
}

// end says that a command will not come again.
func (l *lanes) end(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[seq-l.floor] = true
	done := 0
	for done < len(l.open) && l.open[done] {
		done++
	}
	l.open, l.floor = l.open[done:], l.floor+uint64(done)
}

// propose puts a command into a group's log, wherever it is led. It goes on by
// itself when an answer was lost and the group tells copies of a command apart.
func (g *Gateway) propose(ctx context.Context, group uint64, c queue.Command) (any, error) {
	if x, ok := g.newest.Load().Group(group); !ok || len(x.Replicas) < 2 {
		return g.proposeOnce(ctx, group, c)
	}
	seq, floor := g.lanes.begin()
	defer g.lanes.end(seq)
	c = c.WithLane(queue.Lane{Node: g.o.NodeID(), Boot: g.o.Boot, Seq: seq, Floor: floor})
	r := g.retry(ctx)
	var lost error // the outcome of an attempt is not known
	for {
		result, err := g.proposeOnce(ctx, group, c)
		code := message.CodeOf(err)
		switch {
		case err == nil:
			if refusal, ok := result.(*message.Error); ok && refusal != nil {
				return nil, refusal
			}
			return result, nil
		case code == message.UnknownOutcome:
			lost = err
		case lost == nil:
			return nil, err
		case code != message.NotLeader && code != message.Unavailable && code != message.ResourceExhausted:
			return nil, err
		}
		if !r.again() {
			return nil, lost
		}
	}
}

func (g *Gateway) proposeOnce(ctx context.Context, group uint64, c queue.Command) (any, error) {
	gr, err := g.o.Leader(group)
	if err != nil {
		return nil, err
	}
	return gr.Propose(ctx, c)
}
