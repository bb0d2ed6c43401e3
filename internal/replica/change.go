package replica

import (
	"context"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/comanda-mq/comanda/internal/message"
)

// maxBehind is how many entries a replica may lack to become a voter or the leader:
// it has them within a moment, also under load.
const maxBehind = 128

// quietTicks after which a replica that was not heard of counts as not active:
// raft asks twice for a sign of life in that time.
const quietTicks = 2 * electionTicks

// Progress is what a leader knows of one replica.
type Progress struct {
	Replica  uint64
	Match    uint64 // index up to which it is known to have the log
	Learner  bool
	Active   bool // it was heard of in the last 1 to 2 seconds
	Snapshot bool // it needs, or is being sent, a snapshot
	// Since is when it was last Near to what was committed, that this leader knows;
	// zero: it is now.
	Since time.Time
}

// Near says that the replica lacks so little of the log up to an index that it may
// become a voter or the leader.
func (p Progress) Near(index uint64) bool {
	return p.Active && p.Match > 0 && p.Match+maxBehind >= index
}

// peer is a replica as its leader sees it.
type peer struct {
	Progress
	quiet int // ticks since it was heard of
}

// fed is a follower that was given a snapshot and has yet to catch up.
type fed struct{ to, index uint64 }

// change is a change of the configuration under way.
type change struct {
	voters, learners []uint64 // what it is to be, sorted
	done             chan error
}

// Progress tells, on a replica that leads, how far each replica of the group is,
// as of the last tick or change; nil elsewhere.
func (g *Group) Progress() []Progress {
	if p := g.progress.Load(); p != nil {
		return slices.Clone(*p)
	}
	return nil
}

// notePeers looks how far the replicas are.
func (g *Group) notePeers() {
	var now []peer
	commit, at := g.commit.Load(), g.host.o.Now()
	g.raft.WithProgress(func(id uint64, kind raft.ProgressType, pr tracker.Progress) {
		p := peer{Progress: Progress{
			Replica: id, Match: pr.Match, Active: true,
			Learner: kind == raft.ProgressTypeLearner, Snapshot: pr.State == tracker.StateSnapshot,
		}}
		old, ok := g.peer(id)
		if ok && !pr.RecentActive && id != g.replica {
			p.quiet = old.quiet + 1
			p.Active = p.quiet < quietTicks
		}
		if !p.Near(commit) {
			if p.Since = old.Since; p.Since.IsZero() {
				p.Since = at
			}
		}
		now = append(now, p)
	})
	g.peers = now
	if p, ok := g.peer(g.fed.to); !ok || !p.Active || p.Near(commit) {
		g.fed = fed{}
	}
	shown := make([]Progress, len(now))
	for i, p := range now {
		shown[i] = p.Progress
	}
	g.progress.Store(&shown)
}

func (g *Group) peer(id uint64) (peer, bool) {
	i := slices.IndexFunc(g.peers, func(p peer) bool { return p.Replica == id })
	if i < 0 {
		return peer{}, false
	}
	return g.peers[i], true
}

// forgetPeers is called when this replica leads no more.
func (g *Group) forgetPeers() {
	g.peers, g.fed = nil, fed{}
	g.progress.Store(nil)
	g.endChange(message.Errorf(message.UnknownOutcome, "group %d changed its leader during a change of its replicas: look at its configuration", g.id))
}

// SetMembers makes the given replicas the voters and learners of the group, and
// returns when the configuration is so. More than one change is one joint
// change, so that no configuration between counts (trap 8). It is refused with
// NotLeader where the replica does not lead, with Unavailable while another
// change is under way, and with Unavailable when a learner that is to vote
// lacks more than a few entries; a new replica must be a learner first
// (InvalidArgument). When ctx ends before the change it is UnknownOutcome: the
// change may go on.
func (g *Group) SetMembers(ctx context.Context, voters, learners []uint64) error {
	c := &change{voters: slices.Sorted(slices.Values(voters)), learners: slices.Sorted(slices.Values(learners)), done: make(chan error, 1)}
	g.host.call(g, func(err error) {
		if err == nil {
			err = g.begin(c)
		}
		if err != nil || g.change != c { // refused, or nothing to do
			c.done <- err
		}
	})
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return message.Errorf(message.UnknownOutcome, "group %d: the call ended before its replicas were changed: look at its configuration: %v", g.id, context.Cause(ctx))
	}
}

// begin proposes a change. What raft itself would refuse it drops without a
// word, so it is looked at here: a change that is not applied, perhaps one of
// the leader before, and a joint configuration.
func (g *Group) begin(c *change) error {
	role := g.role.Load()
	switch {
	case g.gone || g.lead == 0:
		return g.notLeader()
	case g.change != nil || len(role.outgoing) > 0 || !g.ownTermCommitted():
		return message.Errorf(message.Unavailable, "group %d: another change of its replicas is under way, or its leader is new: try again", g.id)
	}
	changes, err := g.diff(role, c)
	if err != nil || len(changes) == 0 {
		return err
	}
	if err := g.raft.ProposeConfChange(&raftpb.ConfChangeV2{Changes: changes}); err != nil {
		return message.Errorf(message.Unavailable, "group %d does not take a change of its replicas just now: %v", g.id, err)
	}
	g.change = c
	return nil
}

// diff says what leads from the configuration as it is to the one wanted.
func (g *Group) diff(is *role, c *change) ([]*raftpb.ConfChangeSingle, error) {
	wanted := slices.Concat(c.voters, c.learners)
	slices.Sort(wanted)
	if len(c.voters) == 0 || wanted[0] == 0 || len(slices.Compact(slices.Clone(wanted))) != len(wanted) {
		return nil, message.Errorf(message.InvalidArgument, "group %d can't have voters %v and learners %v", g.id, c.voters, c.learners)
	}
	var changes []*raftpb.ConfChangeSingle
	add := func(kind raftpb.ConfChangeType, id uint64) {
		changes = append(changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: &id})
	}
	for _, id := range c.voters {
		if slices.Contains(is.voters, id) {
			continue
		}
		if err := g.mayVote(is, id); err != nil {
			return nil, err
		}
		add(raftpb.ConfChangeAddNode, id)
	}
	for _, id := range c.learners {
		if !slices.Contains(is.learners, id) {
			add(raftpb.ConfChangeAddLearnerNode, id)
		}
	}
	for _, id := range slices.Concat(is.voters, is.learners) {
		if !slices.Contains(wanted, id) {
			add(raftpb.ConfChangeRemoveNode, id)
		}
	}
	return changes, nil
}

// mayVote refuses a vote to who lacks entries, or is not there yet: with it the
// group could be without a majority until it has them.
func (g *Group) mayVote(is *role, id uint64) error {
	if !slices.Contains(is.learners, id) {
		return message.Errorf(message.InvalidArgument, "replica %d of group %d can't vote at once: make it a learner first", id, g.id)
	}
	p := Progress{Active: true}
	g.raft.WithProgress(func(of uint64, _ raft.ProgressType, pr tracker.Progress) {
		if of == id {
			p.Match = pr.Match
		}
	})
	if commit := g.commit.Load(); !p.Near(commit) {
		return message.Errorf(message.Unavailable, "replica %d of group %d is at index %d of %d: try again when it has caught up", id, g.id, p.Match, commit)
	}
	return nil
}

// noteConf notes the configuration that counts from now on.
func (g *Group) noteConf(conf *raftpb.ConfState) {
	now := *g.role.Load()
	now.setConf(conf)
	g.role.Store(&now)
	if g.lead != 0 {
		g.notePeers()
	}
	c := g.change
	if c != nil && len(now.outgoing) == 0 && sameIDs(c.voters, now.voters) && sameIDs(c.learners, now.learners) {
		g.endChange(nil)
	}
}

func sameIDs(sorted, ids []uint64) bool {
	return slices.Equal(sorted, slices.Sorted(slices.Values(ids)))
}

func (g *Group) endChange(err error) {
	if g.change != nil {
		g.change.done <- err
		g.change = nil
	}
}

// TransferLeader asks for another voter to lead; it has no effect where this
// replica does not lead, and none if that one does not answer within an election
// timeout. Commands that come meanwhile are held until one or the other.
func (g *Group) TransferLeader(to uint64) {
	g.host.call(g, func(err error) {
		if err == nil && !g.gone && g.lead != 0 {
			g.raft.TransferLeader(to)
		}
	})
}

// call has the loop run f for the group, between two rounds; with an error, and
// anywhere, if the host stops.
func (h *Host) call(g *Group, f func(stopped error)) {
	h.mu.Lock()
	if h.stopped {
		h.mu.Unlock()
		f(errStopped)
		return
	}
	h.calls = append(h.calls, f)
	h.mu.Unlock()
	h.mark(g)
}

// runCalls runs what was asked for up to now.
func (h *Host) runCalls() {
	h.mu.Lock()
	calls := h.calls
	h.calls = nil
	h.mu.Unlock()
	for _, f := range calls {
		f(nil)
	}
}
