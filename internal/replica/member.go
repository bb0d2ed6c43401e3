package replica

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
)

// request changes the set of replicas: its records are written by the loop, and
// it takes effect when they are durable.
type request struct {
	record  func(*raftlog.Batch) error // an error refuses the request
	durable func() error
	reply   func(error)
}

// NewReplica says what a replica is created from. The catalog gives ids: a
// replica id is never used twice in a group.
type NewReplica struct {
	Group, Replica uint64
	// Base is where its log begins: (1, 1) for the first member of a group. A
	// replica that joins a group begins with nothing, at (0, 0): it does not
	// campaign, and becomes real by its first snapshot.
	Base raftlog.Position
	// Conf is the configuration there: for a first member, itself as the voter;
	// empty for one that joins.
	Conf *raftpb.ConfState
	// Patience is for how many ticks a replica that joins takes no messages, and
	// no snapshot above all: its rows are about to be spun off here.
	Patience int
}

// Create makes a replica: when it returns, the log's record of it is durable
// and it takes part in its group. It needs a running host.
func (h *Host) Create(r NewReplica) (*Group, error) {
	root, err := h.handles.take()
	if err != nil {
		return nil, err
	}
	replica := raftlog.Replica{
		Group: r.Group, ID: r.Replica, Root: root, Base: r.Base, Conf: r.Conf,
		HardState: &raftpb.HardState{Term: new(r.Base.Term), Vote: new(uint64(0)), Commit: new(r.Base.Index)},
	}
	var g *Group
	err = h.ask(request{
		record: func(b *raftlog.Batch) error {
			if old, ok := h.Group(r.Group); ok {
				return message.Errorf(message.InvalidArgument, "group %d has replica %d here already", r.Group, old.replica)
			}
			if lowest := h.log.MinReplica(r.Group); r.Replica < lowest {
				return message.Errorf(message.InvalidArgument, "group %d had replicas up to %d here: replica %d may not come back", r.Group, lowest-1, r.Replica)
			}
			b.Create(replica)
			return nil
		},
		durable: func() (err error) {
			if g, err = h.open(replica); err != nil {
				return fmt.Errorf("replica: group %d: %w", r.Group, err)
			}
			g.patience.Store(int64(r.Patience))
			h.enter(g)
			return nil
		},
	})
	return g, err
}

// Destroy ends this node's replica of a group: the record that only ids from
// minNext on may come back is durable first, then the rows are deleted (trap 6;
// if the node stops in between, its next start deletes them). Commands without an
// outcome get UnknownOutcome.
func (h *Host) Destroy(group, minNext uint64) error {
	ended := make(chan error, 1)
	err := h.ask(request{
		record: func(b *raftlog.Batch) error {
			if _, ok := h.Group(group); !ok {
				return message.Errorf(message.InvalidArgument, "group %d has no replica here", group)
			}
			b.Destroy(group, minNext)
			return nil
		},
		durable: func() error {
			g, _ := h.Group(group)
			h.leave(g, message.Errorf(message.Unavailable, "group %d has no replica on this node any more: ask another one", group), func(err error) { ended <- err })
			h.setGroup(group, nil)
			return nil
		},
	})
	if err != nil {
		return err
	}
	if h.stepped {
		h.runInline()
	}
	return <-ended
}

// enter lets a replica take part.
func (h *Host) enter(g *Group) {
	h.setGroup(g.id, g)
	h.startWorker(g)
	h.mark(g)
}

// leave ends a replica that is no longer in the log. Its worker does its last,
// for it owns the rows; ended hears whether they could be deleted.
func (h *Host) leave(g *Group, why error, ended func(error)) {
	g.gone = true
	h.abortSnapshot(g, why)
	g.shut(why)
	// What is committed and queued is applied first; nothing comes after.
	g.queue.push(task{last: func() {
		g.answerAll()
		ended(g.rows.Destroy())
	}})
}

// ask gives a request to the loop and waits.
func (h *Host) ask(r request) error {
	reply := make(chan error, 1)
	r.reply = func(err error) { reply <- err }
	h.mu.Lock()
	if h.stopped {
		h.mu.Unlock()
		return errStopped
	}
	h.requests = append(h.requests, r)
	h.mu.Unlock()
	h.rouse()
	for h.stepped && len(reply) == 0 {
		if h.failed() != nil {
			return errStopped
		}
		h.writeNow()
	}
	return <-reply
}

// takeRequest adds the records of the next request to the round's batch.
func (h *Host) takeRequest() (request, bool) {
	for {
		r, ok := h.nextRequest()
		if !ok {
			return r, false
		}
		if err := r.record(&h.batch); err != nil {
			r.reply(err)
			continue
		}
		h.mustSync = true
		return r, true
	}
}

func (h *Host) nextRequest() (request, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.requests) == 0 {
		return request{}, false
	}
	r := h.requests[0]
	h.requests = h.requests[1:]
	if len(h.requests) > 0 {
		h.rouse() // one a round: the next may depend on this one
	}
	return r, true
}

// write makes the round's batch durable: one write and one sync for all groups.
func (h *Host) write() error {
	r, asked := h.takeRequest()
	upTo, reserve := h.handles.wanted()
	if reserve {
		h.batch.ReserveHandles(upTo)
		h.mustSync = true
	}
	if !h.mustSync {
		return nil
	}
	h.mustSync = false
	began := h.o.Now()
	err := h.log.Write(&h.batch)
	if err != nil {
		if asked {
			r.reply(errStopped)
		}
		return fmt.Errorf("replica: the raft log can't be written, so nothing is confirmed any more and the process must start anew: %w", err)
	}
	h.stats.synced(h.o.Now().Sub(began))
	if reserve {
		h.handles.reserved(upTo)
	}
	if asked {
		err = r.durable()
		r.reply(err)
	}
	return err
}
