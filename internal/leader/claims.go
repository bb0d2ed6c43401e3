package leader

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Claim is what a worker and its gateway know that its session holds. A lease of
// the session that two claims in a row of one attachment lack was lost on its way,
// with the answer that named it: it is released, without counting. Another
// attachment's claims say nothing of what is on its way to this one.
type Claim struct {
	Session     uint64                      `json:"session"`
	Incarnation uint64                      `json:"incarnation"`
	Attachment  uint64                      `json:"attachment"`
	Holds       map[uint32][]queue.LeaseRef `json:"holds"` // by queue
}

// missesAllowed is how many claims in a row may lack a lease: one may have been
// made while the lease was on its way.
const missesAllowed = 1

// Claim compares what a session claims with what it holds in this group, and
// answers which of those leases are to be given back because somebody cancels
// their messages, by queue.
func (g *Group) Claim(_ context.Context, c Claim) (map[uint32][]queue.LeaseRef, error) {
	lost, cancelling, err := g.unclaimed(c)
	for number, leases := range inOrder(lost) {
		slices.SortFunc(leases, func(a, b queue.LeaseRef) int { // places of two shards may be equal
			return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Cell, b.Cell))
		})
		r := queue.ReleaseLeases{Queue: number, Leases: leases}
		g.raft.Propose(replica.Command(r.Command()), func(any, error) {}) // the next claim finds what is lost
	}
	return cancelling, err
}

func (g *Group) unclaimed(c Claim) (lost, cancelling map[uint32][]queue.LeaseRef, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.leading {
		return nil, nil, message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID())
	}
	b := g.sessions.by[c.Session]
	if b == nil || b.incarnation != c.Incarnation {
		return nil, nil, nil
	}
	// Two leases of one message may be claimed: the gateway doesn't know yet that the
	// first has ended.
	type claim struct {
		leaseKey
		fence uint64
	}
	claimed := map[claim]bool{}
	for number, leases := range c.Holds {
		for _, l := range leases {
			claimed[claim{leaseKey{number, l.Cell, l.Seq}, l.Fence}] = true
		}
	}
	lost, cancelling = map[uint32][]queue.LeaseRef{}, map[uint32][]queue.LeaseRef{}
	for key, d := range b.leases {
		ref := queue.LeaseRef{Cell: key.cell, Seq: key.seq, Fence: d.fence}
		if d.cancelling {
			cancelling[key.queue] = append(cancelling[key.queue], ref)
		}
		switch {
		case claimed[claim{key, d.fence}] || d.ending:
			d.missed = 0
		case d.missed == 0 || d.missedBy != c.Attachment:
			d.missed, d.missedBy = 1, c.Attachment
		case d.missed < missesAllowed:
			d.missed++
		default:
			lost[key.queue] = append(lost[key.queue], ref)
		}
	}
	return lost, cancelling, nil
}

// Claim has the other node compare what a session claims.
func (r *Remote) Claim(ctx context.Context, c Claim) (cancelling map[uint32][]queue.LeaseRef, err error) {
	fields, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	b, err := r.at.ask(ctx, r.id, append(appendRequest(nil, askClaim, r.id), fields...), nil)
	if err == nil && len(b) > 0 { // a node of an older version answers nothing
		err = json.Unmarshal(b, &cancelling)
	}
	return cancelling, err
}

func (s *Service) claim(ctx context.Context, g *Group, fields []byte) ([]byte, error) {
	var c Claim
	if err := json.Unmarshal(fields, &c); err != nil {
		return nil, errWire
	}
	if gone(ctx) {
		return nil, errGone // a newer claim may be on its way
	}
	cancelling, err := g.Claim(ctx, c)
	if err != nil {
		return nil, err
	}
	return appendJSON([]byte{answered}, cancelling)
}
