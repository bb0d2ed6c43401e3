package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/comanda-mq/comanda/internal/message"
)

// readers wait together for one read index.
type readers struct {
	n     int
	index uint64
	asked time.Time     // when the attempt that gave the index began
	err   error         // set before done is closed
	done  chan struct{} // closed when the index is applied, or with an error
}

func (r *readers) release(err error) {
	if r != nil {
		r.err = err
		close(r.done)
	}
}

// reads is the loop's side of the readers.
type reads struct {
	asking  *readers // for these an index is wanted
	asked   bool     // an attempt is under way
	age     int      // of the attempt, in ticks
	context [24]byte // of the last attempt
	began   time.Time
}

// askAgainAfter is the age in ticks of an attempt whose answer counts as lost.
const askAgainAfter = 5

// ReadIndex returns when everything that was confirmed before the call is
// applied here, so that a View opened after it is linearizable; on a leader the
// machine has been told by then that it leads. It works on any replica. Readers that wait at the same time share one question to the leader.
// An error means that this is not known: ctx ended (Unavailable), too many wait
// (ResourceExhausted), or the host stops (Unavailable).
func (g *Group) ReadIndex(ctx context.Context) error {
	g.mu.Lock()
	if why := g.closed; why != nil {
		g.mu.Unlock()
		return why
	}
	if g.gathering == nil {
		g.gathering = &readers{done: make(chan struct{})}
	}
	r := g.gathering
	if r.n >= maxReaders {
		g.mu.Unlock()
		return message.Errorf(message.ResourceExhausted, "%d readers wait for group %d: try again later", r.n, g.id)
	}
	r.n++
	g.mu.Unlock()
	g.host.mark(g)
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return message.Errorf(message.Unavailable, "group %d did not confirm in time that the read is fresh: %v", g.id, context.Cause(ctx))
	}
}

// ReadWithin returns when the rows here are at most maxAge behind what is
// confirmed, with a bound of their age: a View that is opened after it is not
// older than that, and what has passed since. It works on any replica. What
// proves an age is a ReadIndex: if it was asked at t0, by this node's own
// monotonic clock, and its index is applied, the rows hold all that was
// confirmed before t0. Readers share proofs; only when the newest is too old is
// the leader asked anew. An error means that the bound can't be kept: no proof
// came before ctx ended (Unavailable), or as for ReadIndex.
func (g *Group) ReadWithin(ctx context.Context, maxAge time.Duration) (age time.Duration, err error) {
	for {
		if at := g.proof.Load(); at != nil {
			if age := g.host.o.Now().Sub(*at); age <= maxAge {
				return age, nil
			}
		}
		if err := g.ReadIndex(ctx); err != nil {
			return 0, err
		}
		if ctx.Err() != nil {
			return 0, message.Errorf(message.Unavailable, "group %d: no answer of its leader came within %v: %v", g.id, maxAge, context.Cause(ctx))
		}
	}
}

// prove notes that all that was confirmed before t is applied here. It is called
// with g.mu held.
func (g *Group) prove(t time.Time) {
	if at := g.proof.Load(); at == nil || t.After(*at) {
		g.proof.Store(&t)
	}
}

// askReads asks for the index of those who wait. Each attempt has a context
// that no other ever had, so that the answer to an older one, which may have
// come late, is not taken for it; and a leader answers only when an entry of its
// own term is committed, because before that it does not know what was
// confirmed (trap 9).
func (g *Group) askReads() {
	r := &g.reads
	if r.asking == nil {
		g.mu.Lock()
		r.asking, g.gathering = g.gathering, nil
		g.mu.Unlock()
		r.asked = false
	}
	if !g.shouldAsk() {
		return
	}
	r.asked, r.age = true, 0
	g.host.attempts++
	r.began = g.host.o.Now()
	binary.BigEndian.PutUint64(r.context[0:], g.replica)
	binary.BigEndian.PutUint64(r.context[8:], g.host.boot)
	binary.BigEndian.PutUint64(r.context[16:], g.host.attempts)
	g.raft.ReadIndex(bytes.Clone(r.context[:]))
}

func (g *Group) shouldAsk() bool {
	if g.reads.asking == nil || g.reads.asked {
		return false
	}
	if g.lead != 0 {
		return g.ownTermCommitted()
	}
	return g.role.Load().leader != raft.None
}

// tick gives up on an attempt whose answer is overdue.
func (r *reads) tick() {
	if r.age++; r.age >= askAgainAfter {
		r.again()
	}
}

// again lets those who wait ask anew.
func (r *reads) again() { r.asked = false }

// readsAnswered gives the readers of this attempt their index.
func (g *Group) readsAnswered(states []raft.ReadState) {
	for _, s := range states {
		r := g.reads.asking
		if r == nil || !bytes.Equal(s.RequestCtx, g.reads.context[:]) {
			continue // of an attempt that was given up
		}
		g.reads.asking = nil
		r.index, r.asked = s.Index, g.reads.began
		g.mu.Lock()
		g.awaiting = append(g.awaiting, r)
		g.someAwait.Store(true)
		more := g.gathering != nil
		g.mu.Unlock()
		g.releaseReaders()
		if more {
			g.host.mark(g)
		}
	}
}

// releaseReaders lets those go whose index is applied.
func (g *Group) releaseReaders() {
	applied := g.applied.Load()
	g.mu.Lock()
	defer g.mu.Unlock()
	kept := g.awaiting[:0]
	for _, r := range g.awaiting {
		if r.index <= applied {
			g.prove(r.asked)
			r.release(nil)
		} else {
			kept = append(kept, r)
		}
	}
	clear(g.awaiting[len(kept):])
	g.awaiting = kept
	g.someAwait.Store(len(kept) > 0)
}
