package catalog

import (
	"cmp"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// A shard that spins off gets a group of its own. The catalog gives the group
// first, the shard's group makes it by an entry of its log, and that group's leader
// has the catalog record it (MoveShard).

// Origin says which shard a group was made for. Queue numbers are never used again
// and a shard's epoch grows with each split and each spin-off, so no two groups
// have the same.
type Origin struct {
	Queue uint32 `json:"queue"`
	Path  string `json:"path"`
	Epoch uint64 `json:"epoch"` // of the shard before it spins off
}

// AddGroup makes a group for a shard that is to spin off, if the shard is still at
// that epoch (else CONFLICT). The replicas get the ids 1 and up in the order of
// Seats. A repeat finds the group.
type AddGroup struct {
	Origin Origin `json:"origin"`
	Seats  []Seat `json:"seats"` // those of the group that the shard is in
	// Operation, if it is not 0, is what wants this: it has to run, else CONFLICT.
	Operation uint64 `json:"operation,omitempty"`
}

// Unborn says that the shard that the group was made for has not spun off yet, as
// far as is known: nobody leads the group, and nothing lies in it.
func (g *Group) Unborn() bool { return g.Origin != nil && g.Confirmed.Index == 0 }

func (m *Machine) addGroup(c *AddGroup) Result {
	if err := m.running(c.Operation); err != nil {
		return Result{Err: err}
	}
	groups := m.view.Groups()
	if i := slices.IndexFunc(groups, func(g *Group) bool { return g.Origin != nil && *g.Origin == c.Origin }); i >= 0 {
		return Result{Group: groups[i]}
	}
	q, s, err := m.shard(c.Origin.Queue, c.Origin.Path)
	if err == nil && s.Epoch != c.Origin.Epoch {
		err = staleShard(q, s, c.Origin.Epoch)
	}
	if err == nil {
		err = m.checkSeats(&Group{}, c.Seats)
	}
	if err == nil && len(groups) >= MaxGroups {
		err = message.Errorf(message.ResourceExhausted, "the cluster has %d groups, the most it can have: delete queues whose shards have groups of their own", len(groups))
	}
	if err != nil {
		return Result{Err: err}
	}
	cluster := m.view.Cluster
	g := &Group{ID: max(cluster.NextGroup, groups[len(groups)-1].ID+1), Epoch: 1, NextReplica: 1, Origin: &c.Origin}
	g.seat(c.Seats)
	cluster.NextGroup = g.ID + 1
	m.set(cluster)
	m.set(g)
	return Result{Group: g, Created: true}
}

// reshard changes the shards of a queue, and takes out the groups that this leaves
// empty.
func (m *Machine) reshard(q *Queue) Result {
	r := m.changeQueue(q)
	m.retire(q.Number)
	return r
}

// retire takes out the groups made for a queue's shards that hold nothing and never
// will: what they had has spun off or was deleted, or the shard that they were made
// for has gone another way. A group that may still be made stays: its entry may be
// on its way, and the next one who spins the shard off finds it.
func (m *Machine) retire(queue uint32) {
	q, _ := m.view.QueueNumber(queue)
	var empty []*Group
	for _, g := range m.view.groups.all() {
		if g.Origin != nil && g.Origin.Queue == queue && !q.needs(g) {
			empty = append(empty, g)
		}
	}
	slices.SortFunc(empty, func(a, b *Group) int { return cmp.Compare(a.ID, b.ID) })
	for _, g := range empty {
		m.remove(g)
	}
}

// needs says that a group made for a shard of the queue has one, or may get it.
// Other queues have no shard in it.
func (q *Queue) needs(g *Group) bool {
	return q != nil && slices.ContainsFunc(q.Shards, func(s Shard) bool {
		return s.Group == g.ID || s.Path == g.Origin.Path && s.Epoch == g.Origin.Epoch
	})
}
