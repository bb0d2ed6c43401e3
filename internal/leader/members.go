package leader

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Members brings the configuration of a group that is led here to what the
// catalog wants, and tells the catalog when it is so:
//
//  1. replicas that are wanted and in no configuration join as learners;
//  2. when every one that shall vote has caught up, ONE joint change makes all of
//     them voters and takes out whoever is not wanted: 1 → 3, never 2;
//  3. the catalog hears of it, and forgets the replicas that have left.
//
// Whoever leads the group goes on where the last leader stood, because all of it
// follows from the catalog and the configuration.
type Members struct {
	raft *replica.Group
	// change proposes a change of the catalog.
	change Change
	busy   atomic.Bool // a step is under way
	handed time.Time   // when another was last asked to lead; of whoever is busy
}

// NewMembers makes the Members of one group.
func NewMembers(g *replica.Group, change Change) *Members {
	return &Members{raft: g, change: change}
}

// Of says whether these are a replica's Members.
func (m *Members) Of(g *replica.Group) bool { return m.raft == g }

// Step does the next thing, if there is one and none is under way. It returns
// when that is done or has failed; then the next Step tries again.
//
// prefer is the replica that should lead (0: none is known), now a monotonic
// time.
func (m *Members) Step(ctx context.Context, v *catalog.View, prefer uint64, now time.Time) error {
	st := m.raft.Status()
	g, ok := v.Group(m.raft.ID())
	changing := len(st.VotersOutgoing) > 0 // raft ends a joint change by itself
	if !ok || !st.Leading || changing || !m.busy.CompareAndSwap(false, true) {
		return nil
	}
	defer m.busy.Store(false)
	voters, learners := wanted(g)
	if same(voters, st.Voters) && same(learners, st.Learners) {
		m.giveUpLead(v, g, st, prefer, now)
		return m.confirm(ctx, g, st)
	}
	var newcomers []uint64
	for _, id := range slices.Concat(voters, learners) {
		if !slices.Contains(st.Voters, id) && !slices.Contains(st.Learners, id) {
			newcomers = append(newcomers, id)
		}
	}
	if len(newcomers) > 0 {
		return m.raft.SetMembers(ctx, st.Voters, slices.Concat(st.Learners, newcomers))
	}
	if !m.ready(voters, st) {
		return nil
	}
	return m.raft.SetMembers(ctx, voters, learners)
}

// askAgain is how long after another was asked to lead it is asked again.
const askAgain = 5 * time.Second

// giveUpLead lets the preferred replica lead, if it is near enough. If it is not, a
// node whose wall clock is off lets another lead whose clock is right.
func (m *Members) giveUpLead(v *catalog.View, g *catalog.Group, st replica.Status, prefer uint64, now time.Time) {
	if prefer == 0 || prefer == st.Replica || now.Sub(m.handed) < askAgain {
		return
	}
	progress := m.raft.Progress()
	heir := uint64(0)
	if i := slices.IndexFunc(progress, func(p replica.Progress) bool { return p.Replica == prefer }); i >= 0 && progress[i].Near(ownMatch(progress, st.Replica)) {
		heir = prefer
	} else if clockOff(v, g, st.Replica) {
		heir = nearest(progress, st, func(id uint64) bool { return !clockOff(v, g, id) })
	}
	if heir != 0 {
		m.handed = now
		m.raft.TransferLeader(heir)
	}
}

// clockOff says that the wall clock of a replica's node is off.
func clockOff(v *catalog.View, g *catalog.Group, id uint64) bool {
	i := slices.IndexFunc(g.Replicas, func(r catalog.Replica) bool { return r.ID == id })
	if i < 0 {
		return false
	}
	n, ok := v.Node(g.Replicas[i].Node)
	return ok && n.ClockOff
}

// HandOver lets another voter lead that is near enough, because this node stops.
func (m *Members) HandOver() {
	st := m.raft.Status()
	if !st.Leading {
		return
	}
	if heir := nearest(m.raft.Progress(), st, func(uint64) bool { return true }); heir != 0 {
		m.raft.TransferLeader(heir)
	}
}

// nearest is the other voter that is heard of and has the most of the log; 0: none.
func nearest(progress []replica.Progress, st replica.Status, may func(replica uint64) bool) uint64 {
	var best replica.Progress
	for _, p := range progress {
		if p.Replica != st.Replica && slices.Contains(st.Voters, p.Replica) && p.Active && p.Match >= best.Match && may(p.Replica) {
			best = p
		}
	}
	return best.Replica
}

// ownMatch is how far the leader itself was when it looked at the others. To
// compare them with where it is now would never find them near, under load: it
// looks ten times a second.
func ownMatch(progress []replica.Progress, own uint64) uint64 {
	for _, p := range progress {
		if p.Replica == own {
			return p.Match
		}
	}
	return math.MaxUint64 // it leads no more: nobody is near
}

// ready says that all who shall become voters are near enough.
func (m *Members) ready(voters []uint64, st replica.Status) bool {
	near := map[uint64]bool{}
	progress := m.raft.Progress()
	last := ownMatch(progress, st.Replica)
	for _, p := range progress {
		near[p.Replica] = p.Near(last)
	}
	for _, id := range voters {
		if !slices.Contains(st.Voters, id) && !near[id] {
			return false
		}
	}
	return true
}

// confirm reports the configuration, unless the catalog knows it.
func (m *Members) confirm(ctx context.Context, g *catalog.Group, st replica.Status) error {
	leaving := slices.ContainsFunc(g.Replicas, func(r catalog.Replica) bool { return r.Role == catalog.Leaving })
	if !leaving && same(g.Confirmed.Voters, st.Voters) && same(g.Confirmed.Learners, st.Learners) {
		return nil
	}
	r, err := m.change(ctx, catalog.Command{Confirm: &catalog.Confirm{
		Group: g.ID, Epoch: g.Epoch,
		Configuration: catalog.Configuration{Term: st.Term, Index: st.Applied, Voters: st.Voters, Learners: st.Learners},
	}})
	if err == nil && r.Err != nil {
		err = r.Err
	}
	return err
}

// wanted are the replicas that the catalog wants in the configuration.
func wanted(g *catalog.Group) (voters, learners []uint64) {
	for _, r := range g.Replicas {
		switch r.Role {
		case catalog.Voter:
			voters = append(voters, r.ID)
		case catalog.Learner:
			learners = append(learners, r.ID)
		case catalog.Leaving:
		}
	}
	return voters, learners
}

// same compares two sets.
func same(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}
