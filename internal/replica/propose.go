package replica

import (
	"errors"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
)

// proposal is a command and who waits for its outcome.
type proposal struct {
	command Command
	size    int64
	done    func(result any, err error)
	stages  *Stages // nil: nobody wants to know
}

// Stages tell how long a command was on its way.
type Stages struct {
	Wait   time.Duration // until it was proposed in an entry
	Commit time.Duration // from then until a majority had the entry on disk
	Apply  time.Duration // from then until it was applied

	began time.Time
}

// flight is an entry of ours that is in the log and has no outcome yet.
type flight struct {
	index, term uint64
	commands    []proposal
	bytes       int64
	at          time.Time // when it was proposed
}

// Propose hands a command to the group's next entry. It does not wait. done is
// called exactly once: by the apply worker with the result; by the loop, or when
// the host ends, with an error whose code tells whether the command can still be
// applied (package comment); or by Propose itself before it returns, when the
// command is refused at the door. So done must be quick, must not call the host's
// blocking methods, and must not take a lock that the caller of Propose holds.
func (g *Group) Propose(c Command, done func(result any, err error)) {
	g.ProposeTimed(c, nil, done)
}

// ProposeTimed is Propose. Before it calls done with a result it fills in stages, if
// they are wanted.
func (g *Group) ProposeTimed(c Command, stages *Stages, done func(result any, err error)) {
	p := proposal{command: c, size: c.size(), done: done, stages: stages}
	if stages != nil {
		stages.began = g.host.o.Now()
	}
	if err := g.admit(p.size); err != nil {
		done(nil, err)
		return
	}
	g.mu.Lock()
	if why := g.closed; why != nil {
		g.mu.Unlock()
		g.refuse([]proposal{p}, why)
		return
	}
	g.waiting = append(g.waiting, p)
	g.mu.Unlock()
	g.host.mark(g)
}

func (g *Group) admit(size int64) error {
	if limit := min(maxCommandBytes, g.host.o.Log.SegmentBytes/2); size > limit {
		return message.Errorf(message.TooLarge, "a command of %d bytes for group %d: at most %d fit an entry of the log", size, g.id, limit)
	}
	n, bytes := g.pending.Add(1), g.bytes.Add(size)
	if n <= maxPending && bytes <= maxPendingBytes {
		return nil
	}
	g.release(1, size)
	return message.Errorf(message.ResourceExhausted, "group %d has %d commands and %d bytes waiting for an outcome: try again later", g.id, n-1, bytes-size)
}

func (g *Group) release(n int, bytes int64) {
	g.pending.Add(-int64(n))
	g.bytes.Add(-bytes)
}

// refuse tells proposers that their commands have no result.
func (g *Group) refuse(ps []proposal, err error) {
	for _, p := range ps {
		g.release(1, p.size)
		p.done(nil, err)
	}
}

// propose joins what waits to one entry. At most one is proposed between two
// Readys, as the last thing, so that the next Ready shows its index and term.
func (g *Group) propose() {
	if len(g.taken) == 0 || g.campaign {
		return // a sole voter that starts will lead soon
	}
	if g.lead == 0 {
		if !g.raft.HasReady() { // else it may just have become leader
			g.refuse(g.taken, g.notLeader())
			g.taken = nil
		}
		return
	}
	if !g.mayPropose() {
		return
	}
	n, bytes := g.fitEntry()
	h := g.host
	for _, p := range g.taken[:n] {
		h.commands = append(h.commands, p.command)
	}
	h.joined = g.machine.Join(h.joined[:0], h.commands)
	clear(h.commands)
	h.commands = h.commands[:0]
	err := g.raft.Propose(h.joined)
	if cap(h.joined) > 4*message.MaxEntryBytes {
		h.joined = nil // do not keep the largest entry's room for ever
	}
	if errors.Is(err, raft.ErrProposalDropped) {
		g.held = true // leads no more, or hands over
		return
	}
	g.proposed, g.taken = g.taken[:n:n], g.taken[n:]
	for i := range g.proposed {
		g.proposed[i].command = Command{} // it is in the entry now
	}
	g.proposedAt = g.host.o.Now()
	g.flightSum += bytes
	g.paced.spent += bytes
	h.stats.entries.Add(1)
	h.stats.commands.Add(uint64(n))
}

// mayPropose says that there is something to propose, and room: a committed
// entry makes room again, or a tick; see setPace.
func (g *Group) mayPropose() bool {
	return len(g.taken) > 0 && !g.held && g.flightSum < maxInFlightBytes && g.paced.left() > 0
}

// fitEntry says how many commands make the next entry: up to 1 MiB, or one.
func (g *Group) fitEntry() (n int, bytes int64) {
	limit := min(message.MaxEntryBytes, g.host.o.Log.SegmentBytes/4, g.paced.left())
	for _, p := range g.taken {
		if n > 0 && bytes+p.size > limit {
			break
		}
		n, bytes = n+1, bytes+p.size
	}
	return n, bytes
}

// launched notes where the entry that was just proposed stands.
func (g *Group) launched(e *raftpb.Entry) {
	var bytes int64
	for _, p := range g.proposed {
		bytes += p.size
	}
	g.inFlight = append(g.inFlight, flight{e.GetIndex(), e.GetTerm(), g.proposed, bytes, g.proposedAt})
	g.proposed = nil
}

// landed takes the flights out that a committed entry decides. It returns the
// commands that the entry holds, and refuses those that can't be committed any
// more: another entry has their index, or this one, before them, is of a later
// term than theirs, and terms never fall along a log. Flights of several terms
// may stand at one index, so all are looked at; there are few.
func (g *Group) landed(e *raftpb.Entry) (ours []proposal, proposed time.Time) {
	g.inFlight = slices.DeleteFunc(g.inFlight, func(f flight) bool {
		if f.index > e.GetIndex() && f.term >= e.GetTerm() {
			return false
		}
		g.flightSum -= f.bytes
		if f.index == e.GetIndex() && f.term == e.GetTerm() {
			ours, proposed = f.commands, f.at
		} else {
			g.refuse(f.commands, message.Errorf(message.Unavailable, "another leader of group %d took over before this was on a majority of disks; it will not happen: try again", g.id))
		}
		return true
	})
	return ours, proposed
}

func (g *Group) notLeader() error {
	r := g.role.Load()
	if r.leader == 0 {
		return message.Errorf(message.NotLeader, "group %d has no leader just now: try again", g.id)
	}
	return message.Errorf(message.NotLeader, "group %d is led by replica %d, not by %d here", g.id, r.leader, g.replica)
}
