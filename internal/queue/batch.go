package queue

import (
	"math"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// A lease may take several messages of a key, in order and to one holder, if the
// receiver asks for that: it handles them one after the other. When one of them comes
// back other than by an ack, also as dead, the later ones of its key that are not
// settled come back before it, uncounted, and their tokens settle nothing. So a key has
// one holder, and nobody goes on with what should have waited.

// follow lets messages go out that stand in their keys' lines directly behind those
// that were leased just now: c.PerKey of a key, c.Extra of all, as long as there is room.
// They are of their key's turn, so that they pass nobody who has a higher priority.
func (m *Machine) follow(q *queue, c *Lease, l *lease, r *LeaseResult) {
	for _, first := range r.Leased {
		if !first.Head.keyed() {
			continue
		}
		at := m.cellOf(q, first.Ref.Cell)
		for _, seq := range m.behind(at, first.Head.Hash, first.Ref.Seq, min(c.PerKey-1, c.Extra)) {
			x, ok := m.load(at, seq)
			if !ok || !m.mayFollow(x, &first.Head) || at.shard.full() || m.rests(at, x.Hash) {
				break
			}
			if c.MaxBytes -= int(x.answer()); c.MaxBytes < 0 {
				return
			}
			r.Leased = append(r.Leased, m.leaseOne(x, x.ref(), l))
			c.Extra--
		}
	}
}

// behind are the next messages of a key's line.
func (m *Machine) behind(c *cell, h message.KeyHash, seq uint64, limit int) (seqs []uint64) {
	if limit <= 0 {
		return nil
	}
	lo := slices.Clone(m.keys.behind(h, seq+1))
	m.rows.Scan(c.space, lo, m.keys.behind(h, math.MaxUint64), func(k, _ []byte) bool {
		seqs = append(seqs, beUint64(k[len(k)-8:]))
		return len(seqs) < limit
	})
	return seqs
}

// mayFollow says that x, which is in the line of a message that is leased, may go out
// with it.
func (m *Machine) mayFollow(x *stored, first *Head) bool {
	ready := !x.scheduled()
	if x.st != nil {
		ready = x.st.state == message.Ready
	}
	return ready && x.Priority == first.Priority && x.TenantHash == first.TenantHash && !m.expired(x)
}

// holding is the lease of a message that is leased.
func (m *Machine) holding(c *cell, seq uint64) *held {
	if h := c.held[seq]; h != nil {
		return h
	}
	_, fence, _ := currentLease(m.rows, &m.keys, c, seq)
	h, _ := m.held(c, seq, fence)
	return h
}

// later are the messages of h's key behind it that are leased with it, the last first.
func (m *Machine) later(h *held) (hs []*held) {
	if !h.keyed() {
		return nil
	}
	for _, seq := range slices.Backward(m.line(h.cell, h.Hash).locked) {
		if seq == h.Seq {
			break
		}
		hs = append(hs, m.holding(h.cell, seq))
	}
	return hs
}

// giveBackLater gives back what h's holder has of its key behind it, before h comes back.
func (m *Machine) giveBackLater(h *held) {
	for _, x := range m.later(h) {
		m.giveBack(x, 0, "an earlier message of its key, "+h.id().String()+", was not done")
	}
}

// firstOver finds the first message of h's key whose lease is over as well: it is the
// one that its holder was at.
func (m *Machine) firstOver(h *held) *held {
	if !h.keyed() {
		return h
	}
	for _, seq := range m.line(h.cell, h.Hash).locked {
		if seq == h.Seq {
			break
		}
		if x := m.holding(h.cell, seq); m.lost(x) || m.overdue(x) {
			return x
		}
	}
	return h
}
