package gateway

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// A worker names what it holds with every second beat. What this gateway handed
// to it and two of its claims in a row lack never came to it, or it has forgotten
// it: it is released, without counting. So an answer that was lost leaves no
// message leased to a worker that does not know.

// lease names one lease.
type lease struct {
	id    message.ID
	fence uint64
}

// missesAllowed is how many claims may lack a lease: one may have been sent
// before the lease came.
const missesAllowed = 1

// handed are the leases that came here for a stream's worker and that it has not
// settled, with how many claims in a row lacked each.
type handed map[lease]int

// onItsWay is a lease that the worker was not given yet: a receive that waits at
// several groups waits for all of them, for seconds if one has no leader. No claim
// can name it, and none lacks it.
const onItsWay = -1

// arrives notes what has come for the worker.
func (a *attachment) arrives(got []queue.Leased) { a.note(got, onItsWay) }

// give notes what the worker is given. A receiver without a session has no stream.
func (a *attachment) give(got []queue.Leased) {
	if a != nil {
		a.note(got, 0)
	}
}

func (a *attachment) note(got []queue.Leased, misses int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range got {
		a.handed[lease{got[i].At(), got[i].Fence}] = misses
	}
}

// settled forgets a lease that has ended.
func (a *attachment) settled(t message.Token) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.handed, lease{t.At(), t.Fence})
}

// waits notes the groups at which the worker waits for messages.
func (a *attachment) waits(groups []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range groups {
		a.groups[id] = true
	}
}

// Claim takes what the worker holds. It releases what the worker was given and
// does not know of, and has the leaders release what never came here. They are told
// what was given here by then, and of one claim after the other, from giving back on: two
// that a slow leader hears together may both be older than a lease that it has just
// made.
func (a *attachment) Claim(tokens []message.Token) {
	if a.claiming.Swap(true) {
		return
	}
	lost := a.unclaimed(tokens)
	go func() {
		defer a.claiming.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), releaseWithin)
		defer cancel()
		a.g.giveBack(ctx, a.ref.ID, lost)
		claim, groups := a.claim(tokens)
		cancelling := map[message.ID]uint64{}
		for _, id := range groups {
			if a.over() {
				return // another stream speaks for the worker by now, and was given more
			}
			// One that is lost on its way does no harm: the next comes soon.
			if gr, err := a.g.o.Leader(id); err == nil {
				refs, _ := gr.Claim(ctx, claim)
				note(cancelling, refs)
			}
		}
		a.cancel(tokens, cancelling)
	}()
}

// over says that the stream has ended.
func (a *attachment) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reported || a.err != nil
}

// note adds leases by their messages, of which only queue, cell and number are
// known.
func note(all map[message.ID]uint64, refs map[uint32][]queue.LeaseRef) {
	for number, leases := range refs {
		for _, l := range leases {
			all[message.NewID(number, message.CellPoint(l.Cell), l.Seq)] = l.Fence
		}
	}
}

// cancel tells the worker which of the leases that it claims it is to give back.
// It is told again with the next claim, so only the newest news waits.
func (a *attachment) cancel(tokens []message.Token, cancelling map[message.ID]uint64) {
	secret := a.g.newest.Load().Cluster.Secret
	var all []string
	for _, t := range tokens {
		at := t.At()
		if fence, ok := cancelling[message.NewID(at.Queue(), message.CellPoint(at.Point().Cell()), at.Seq())]; ok && fence == t.Fence {
			all = append(all, t.Seal(&secret))
		}
	}
	if len(all) == 0 {
		return
	}
	select {
	case <-a.cancelled:
	default:
	}
	a.cancelled <- all // one claim is carried at a time
}

// Cancelled has the tokens of what the worker is to give back.
func (a *attachment) Cancelled() <-chan []string { return a.cancelled }

// claim is all that the worker or this gateway knows that the session holds, and
// the groups that may have more.
func (a *attachment) claim(tokens []message.Token) (c leader.Claim, groups []uint64) {
	c = leader.Claim{Session: a.ref.ID, Incarnation: a.ref.Incarnation, Attachment: a.number, Holds: map[uint32][]queue.LeaseRef{}}
	hold := func(id message.ID, fence uint64) {
		c.Holds[id.Queue()] = append(c.Holds[id.Queue()], queue.LeaseRef{Cell: id.Point().Cell(), Seq: id.Seq(), Fence: fence})
	}
	for _, t := range tokens {
		hold(t.At(), t.Fence)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for l := range a.handed {
		hold(l.id, l.fence)
	}
	return c, slices.Sorted(maps.Keys(a.groups))
}

func (a *attachment) unclaimed(tokens []message.Token) (lost []queue.Leased) {
	claimed := make(map[lease]bool, len(tokens))
	for _, t := range tokens {
		claimed[lease{t.At(), t.Fence}] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for l, misses := range a.handed {
		switch {
		case claimed[l]:
			a.handed[l] = 0
		case misses == onItsWay:
		case misses < missesAllowed:
			a.handed[l]++
		default:
			delete(a.handed, l)
			lost = append(lost, queue.Leased{ID: l.id, Fence: l.fence})
		}
	}
	slices.SortFunc(lost, func(a, b queue.Leased) int { // fences of two shards may be equal
		return cmp.Or(cmp.Compare(a.Fence, b.Fence), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return lost
}

// attached finds the stream of a session here.
func (s *sessions) attached(id uint64) *attachment {
	if id == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[id]
}

// settled forgets leases that have ended, as their results say.
func (s *sessions) settled(ss []message.Settlement, results []message.SettleResult) {
	for i := range ss {
		if ss[i].Token.Session == 0 || ss[i].Action == message.Extend {
			continue
		}
		if err := results[i].Err; err != nil && err.Code != message.Fenced && err.Code != message.Gone {
			continue
		}
		if a := s.attached(ss[i].Token.Session); a != nil {
			a.settled(ss[i].Token)
		}
	}
}
