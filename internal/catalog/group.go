package catalog

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// MetaGroup is the number of the group that holds the catalog. Data groups
// follow it.
const MetaGroup = 1

// Limits of groups.
const (
	MaxGroups   = 1 << 16
	MaxVoters   = 5
	MaxLearners = 4
)

// Group is a replica set: Replicas is what is wanted, Confirmed what its leader
// says is so. Nodes create the replicas that they find here; the group's leader
// changes its raft configuration until it is what is wanted; a replica that is
// in no configuration any more is forgotten here, and then its node destroys it.
type Group struct {
	ID          uint64        `json:"id"`
	Epoch       uint64        `json:"epoch,omitempty"`        // grows with each change of what is wanted
	NextReplica uint64        `json:"next_replica,omitempty"` // all replica ids given so far are below
	Replicas    []Replica     `json:"replicas"`               // by id
	Confirmed   Configuration `json:"confirmed,omitzero"`
	// Origin is the shard that a group beyond those of the founding was made for.
	Origin *Origin `json:"origin,omitempty"`
	// Pin is the node that an operator has moved the group to, 0: none. Its seat
	// stays there, and while it can it leads; the pin goes with the seat.
	Pin uint64 `json:"pin,omitempty"`
}

// Replica is a node's copy of a group. A node has at most one of a group, whose
// id is never used again.
type Replica struct {
	ID   uint64 `json:"id"`
	Node uint64 `json:"node"`
	Role Role   `json:"role,omitempty"`
}

// Role is what a replica is wanted as.
type Role uint8

// The roles of a replica.
const (
	Voter   Role = iota
	Learner      // copies, does not vote
	Leaving      // is taken out of the configuration, then destroyed
)

var roles = []string{"voter", "learner", "leaving"}

func (r Role) String() string { return word(roles, r) }

// MarshalText writes the role's word.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the role's word.
func (r *Role) UnmarshalText(b []byte) error { return parseWord(roles, b, r) }

// Configuration is a group's raft configuration as its leader reported it: the
// replica ids, and the log position at which it held, which orders reports.
type Configuration struct {
	Term     uint64   `json:"term,omitempty"`
	Index    uint64   `json:"index,omitempty"`
	Voters   []uint64 `json:"voters,omitempty"`
	Learners []uint64 `json:"learners,omitempty"`
}

// Seat is a node's place in a group.
type Seat struct {
	Node uint64 `json:"node"`
	Role Role   `json:"role,omitempty"` // Voter or Learner
}

// SetReplicas says which nodes shall hold a group, if its epoch is still the one
// that the decision was made from (else CONFLICT). Nodes that stay keep their
// replica's id, new ones get the next, those not wanted become Leaving.
type SetReplicas struct {
	Group uint64 `json:"group"`
	Epoch uint64 `json:"epoch"`
	Want  []Seat `json:"want"` // 1, 3 or 5 voters, never fewer than before
	// AcceptOneDisk allows fewer voters than before.
	AcceptOneDisk bool `json:"accept_one_disk,omitempty"`
	// Pin, one of the voters' nodes, is the group's from now on; 0: none, nil: the
	// one that it has.
	Pin *uint64 `json:"pin,omitempty"`
	// Operation, if it is not 0, is what wants this: it has to run, else CONFLICT.
	Operation uint64 `json:"operation,omitempty"`
}

// Confirm is a leader's report of the configuration that it has applied, while
// it has no change under way. Older reports than the known one are ignored.
// Leaving replicas that are not in it are forgotten, if the leader knew that
// they shall leave: if Epoch is the group's.
type Confirm struct {
	Group         uint64        `json:"group"`
	Epoch         uint64        `json:"epoch"` // of the wish that the leader knows
	Configuration Configuration `json:"configuration"`
}

func (g *Group) key() []byte { return binary.BigEndian.AppendUint64([]byte{rowGroup}, g.ID) }

// Voters are the replicas that are wanted as voters.
func (g *Group) Voters() int {
	n := 0
	for _, r := range g.Replicas {
		if r.Role == Voter {
			n++
		}
	}
	return n
}

// Seats are the group's seats as they are wanted.
func (g *Group) Seats() (seats []Seat) {
	for _, r := range g.Replicas {
		if r.Role != Leaving {
			seats = append(seats, Seat{Node: r.Node, Role: r.Role})
		}
	}
	return seats
}

// On finds the group's replica on a node.
func (g *Group) On(node uint64) (Replica, bool) {
	for _, r := range g.Replicas {
		if r.Node == node {
			return r, true
		}
	}
	return Replica{}, false
}

// MinNext is the lowest id that a node's next replica of the group may have: what
// the node keeps when it destroys the one that it has.
func (g *Group) MinNext(node uint64) uint64 {
	if r, ok := g.On(node); ok {
		return r.ID
	}
	return g.nextReplica()
}

// nextReplica is the lowest id that was never given.
func (g *Group) nextReplica() uint64 {
	next := max(g.NextReplica, 1)
	for _, r := range g.Replicas {
		next = max(next, r.ID+1)
	}
	return next
}

func noGroup(id uint64) *message.Error {
	return message.Errorf(message.NotFound, "there is no group %d in this cluster: see 'comanda node list'", id)
}

func (m *Machine) setReplicas(c *SetReplicas) Result {
	old, ok := m.view.Group(c.Group)
	if !ok {
		return Result{Err: noGroup(c.Group)}
	}
	g := *old
	g.NextReplica, g.Epoch = old.nextReplica(), old.Epoch+1
	g.Replicas = slices.Clone(old.Replicas)
	g.seat(c.Want)
	if c.Pin != nil {
		g.Pin = *c.Pin
	}
	if r, ok := g.On(g.Pin); !ok || r.Role != Voter {
		g.Pin = 0
	}
	err := m.checkSeats(old, c.Want)
	switch {
	case old.Epoch != c.Epoch:
		err = message.Errorf(message.Conflict, "the replicas of group %d were changed meanwhile: its epoch is %d, not %d", old.ID, old.Epoch, c.Epoch)
	case err == nil && g.Voters() < old.Voters() && !c.AcceptOneDisk:
		err = message.Errorf(message.InvalidArgument, "group %d has %d voters, and %d are wanted: fewer are made by 'comanda node remove --accept-one-disk' only", old.ID, old.Voters(), g.Voters())
	}
	if err == nil && c.Pin != nil && g.Pin != *c.Pin {
		err = message.Errorf(message.InvalidArgument, "group %d can't be pinned to node %d, which is not to be one of its voters", old.ID, *c.Pin)
	}
	if err == nil {
		err = m.running(c.Operation)
	}
	if err != nil {
		return Result{Group: old, Err: err}
	}
	if g.Pin == old.Pin && slices.Equal(g.Replicas, old.Replicas) {
		return Result{Group: old}
	}
	m.set(&g)
	return Result{Group: &g}
}

// seat makes the replicas those that seats want. One that stays keeps its id,
// also if it was leaving: its node has not destroyed it before it is forgotten.
func (g *Group) seat(seats []Seat) {
	for i := range g.Replicas {
		r := &g.Replicas[i]
		r.Role = Leaving
		if at := slices.IndexFunc(seats, func(s Seat) bool { return s.Node == r.Node }); at >= 0 {
			r.Role = seats[at].Role
		}
	}
	for _, s := range seats {
		if _, ok := g.On(s.Node); !ok {
			g.Replicas = append(g.Replicas, Replica{ID: g.NextReplica, Node: s.Node, Role: s.Role})
			g.NextReplica++
		}
	}
}

// checkSeats refuses what a group can't have. A removed node keeps a seat that
// it has: without a spare one, its group must not have fewer voters.
func (m *Machine) checkSeats(g *Group, seats []Seat) *message.Error {
	count, nodes := [Leaving + 1]int{}, map[uint64]bool{}
	for _, s := range seats {
		_, err := m.member(s.Node)
		_, seated := g.On(s.Node)
		switch {
		case err != nil && !seated:
			return err
		case nodes[s.Node] || s.Role > Learner:
			return message.Errorf(message.InvalidArgument, "node %d can't be wanted twice in a group, nor as %s", s.Node, s.Role)
		}
		nodes[s.Node] = true
		count[s.Role]++
	}
	if v := count[Voter]; v != 1 && v != 3 && v != MaxVoters {
		return message.Errorf(message.InvalidArgument, "a group has 1, 3 or 5 voters, not %d", v)
	}
	if count[Learner] > MaxLearners {
		return message.Errorf(message.InvalidArgument, "a group has at most %d learners, not %d", MaxLearners, count[Learner])
	}
	return nil
}

func (m *Machine) confirm(c *Confirm) Result {
	old, ok := m.view.Group(c.Group)
	if !ok {
		return Result{Err: noGroup(c.Group)}
	}
	g, now := *old, c.Configuration
	if older := cmp.Or(cmp.Compare(now.Term, old.Confirmed.Term), cmp.Compare(now.Index, old.Confirmed.Index)) < 0; older {
		return Result{Group: old}
	}
	g.Confirmed = now
	g.NextReplica = old.nextReplica()
	g.Replicas = slices.Clone(old.Replicas)
	if c.Epoch == old.Epoch {
		g.Replicas = slices.DeleteFunc(g.Replicas, func(r Replica) bool {
			return r.Role == Leaving && !slices.Contains(now.Voters, r.ID) && !slices.Contains(now.Learners, r.ID)
		})
	}
	if len(g.Replicas) == len(old.Replicas) && now.equal(old.Confirmed) {
		return Result{Group: old}
	}
	m.set(&g)
	m.endFounding()
	return Result{Group: &g}
}

// endFounding has sends taken once each group has the voters that the founders
// wanted, and from then on, whatever becomes of them.
func (m *Machine) endFounding() {
	cluster := m.view.Cluster
	short := func(g *Group) bool { return !g.Unborn() && len(g.Confirmed.Voters) < cluster.Founding }
	if cluster.Founding > 0 && !slices.ContainsFunc(m.view.Groups(), short) {
		cluster.Founding = 0
		m.set(cluster)
	}
}

func (c Configuration) equal(o Configuration) bool {
	return c.Term == o.Term && c.Index == o.Index && slices.Equal(c.Voters, o.Voters) && slices.Equal(c.Learners, o.Learners)
}
