package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/state"
)

// child is a replica that the worker of its parent has made: its rows are there,
// and the log does not know it yet.
type child struct {
	group, replica uint64
	root           uint64
	// base is where its log begins: where its parent's log stood, so that what
	// rows say of indexes stays true.
	base raftlog.Position
	conf *raftpb.ConfState
}

// young are a group's children of which not yet a majority is known to have their
// rows. For as long, a row of the parent leads to each, so that a start finds them.
type young struct {
	mu  sync.Mutex
	all []child
}

func (y *young) add(cs ...child) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.all = append(y.all, cs...)
}

// remove takes out those that are grown, and returns them.
func (y *young) remove(grown func(*child) bool) (out []child) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.all = slices.DeleteFunc(y.all, func(c child) bool {
		if !grown(&c) {
			return false
		}
		out = append(out, c)
		return true
	})
	return out
}

// applying is the rows of one entry as its machine sees them.
type applying struct {
	*state.Batch
	worker *worker
	at     raftlog.Position // of the entry
}

// SpinOff is Rows.SpinOff.
func (a *applying) SpinOff(group uint64, replicas map[uint64]uint64, spaces []uint64) (func(key, value []byte), *message.Error) {
	w := a.worker
	conf, err := decodeConf(w.conf)
	if err != nil {
		panic(fmt.Sprintf("replica: group %d: its own configuration can't be read", w.g.id))
	}
	if len(conf.GetVotersOutgoing()) > 0 || len(conf.GetLearnersNext()) > 0 {
		return nil, message.Errorf(message.Conflict, "the replicas of group %d are being changed: try again when that is done", w.g.id)
	}
	all := slices.Concat(conf.GetVoters(), conf.GetLearners())
	known := len(replicas) == len(all)
	for _, id := range all {
		known = known && replicas[id] != 0
	}
	if !known {
		return nil, message.Errorf(message.Conflict, "group %d has the voters %v and the learners %v, and another group shall be made of other ones: look again", w.g.id, conf.GetVoters(), conf.GetLearners())
	}
	if replicas[w.g.replica] == 0 { // this one has left the group
		for _, space := range spaces {
			a.Clear(space)
		}
		return func(_, _ []byte) {}, nil
	}
	c := child{group: group, replica: replicas[w.g.replica], base: a.at, conf: &raftpb.ConfState{AutoLeave: new(false)}}
	for _, id := range conf.GetVoters() {
		c.conf.Voters = append(c.conf.Voters, replicas[id])
	}
	for _, id := range conf.GetLearners() {
		c.conf.Learners = append(c.conf.Learners, replicas[id])
	}
	part := a.Give(group, spaces,
		appendApplied(nil, a.at.Index, a.at.Term, appendConf(nil, c.conf)),
		binary.BigEndian.AppendUint64(nil, c.replica))
	c.root = part.Root()
	w.children = append(w.children, c)
	return part.Set, nil
}

// bringUp lets the children of an entry take part in their groups, beside the
// worker. The order is that of trap 7: the rows of parent and child, which
// commit in one batch, are durable; then the log's record of the child is; then
// it takes part. The row that led to it goes when it has grown, see keptForChild. A
// power cut in between leaves that row, or nothing of all this.
func (h *Host) bringUp(parent *Group, children []child) {
	if err := h.store.Flush(); err != nil {
		h.fail(fmt.Errorf("replica: group %d: make what is spun off durable: %w", parent.id, err))
		return
	}
	for i := range children {
		c := &children[i]
		err := h.ask(request{
			record:  func(b *raftlog.Batch) error { return h.recordChild(b, c) },
			durable: func() error { return h.startChild(parent, c) },
		})
		if errors.Is(err, errStopped) {
			return // the next start goes on
		}
		if errors.Is(err, errChildExists) {
			h.o.Logger.Info("what was spun off is on this node already", "group", c.group)
			parent.young.remove(func(x *child) bool { return x.root == c.root })
			err = errors.Join(h.store.Drop(c.root), h.store.Taken(parent.rows.Root(), c.group))
		}
		if err != nil {
			h.fail(fmt.Errorf("replica: group %d, spun off group %d: %w", c.group, parent.id, err))
			return
		}
	}
}

var errChildExists = errors.New("the replica is there already, or was destroyed")

// recordChild adds the log's record of a child to b. One that is here already and
// is still empty gets its rows by it, as it would by a snapshot; its term and its
// vote stay. One that has rows has got them from others, and goes on.
func (h *Host) recordChild(b *raftlog.Batch, c *child) error {
	r, ok := h.log.Replica(c.group)
	switch {
	case !ok && c.replica >= h.log.MinReplica(c.group):
		b.Create(c.born())
		return nil
	case ok && r.ID == c.replica && r.Base.Index == 0:
		hard := h.hardOf(r)
		hard.Commit = new(c.base.Index)
		if hard.GetTerm() < c.base.Term {
			hard.Term, hard.Vote = new(c.base.Term), new(uint64(0))
		}
		b.Reset(c.group, c.base, c.conf, c.root, hard)
		return nil
	}
	return errChildExists
}

// hardOf is a replica's hard state with what this round's batch has of it.
func (h *Host) hardOf(r raftlog.Replica) *raftpb.HardState {
	is := r.HardState
	if g, ok := h.Group(r.Group); ok {
		is = g.hard
	}
	return &raftpb.HardState{Term: new(is.GetTerm()), Vote: new(is.GetVote()), Commit: new(is.GetCommit())}
}

// born is the child as the log creates it.
func (c *child) born() raftlog.Replica {
	return raftlog.Replica{
		Group: c.group, ID: c.replica, Root: c.root, Base: c.base, Conf: c.conf,
		HardState: &raftpb.HardState{Term: new(c.base.Term), Vote: new(uint64(0)), Commit: new(c.base.Index)},
	}
}

// startChild lets a child take part whose record is durable. Where its parent
// leads it asks for votes until there is a leader: the others have it about now.
func (h *Host) startChild(parent *Group, c *child) error {
	r, _ := h.log.Replica(c.group)
	var g *Group
	var err error
	if old, ok := h.Group(c.group); ok {
		g, err = h.beginAnew(old, r, message.Errorf(message.Unavailable, "the replica of group %d on this node was empty until now: try again", c.group))
	} else if g, err = h.open(r); err == nil {
		h.enter(g)
	}
	if err != nil {
		return fmt.Errorf("replica: group %d: %w", c.group, err)
	}
	if parent.lead != 0 && !parent.gone {
		g.campaign, g.eager = true, electionTicks
	}
	return nil
}

// adoptChildren makes the records of children that a crash left without one,
// before any handle is swept. A row that leads to a child that takes part by it
// stays: the child may be young.
func (h *Host) adoptChildren() error {
	type given struct{ root, child uint64 }
	var unwanted []given
	for _, r := range h.log.Replicas() {
		all, err := h.store.Given(r.Root)
		if err != nil {
			return err
		}
		for _, x := range all {
			if is, ok := h.log.Replica(x.Child); ok && is.Root == x.Root {
				continue
			}
			c, err := h.readChild(x)
			if err == nil {
				err = h.recordChild(&h.batch, c)
			}
			if errors.Is(err, errChildExists) {
				unwanted = append(unwanted, given{r.Root, x.Child})
			} else if err != nil {
				return fmt.Errorf("replica: group %d, spun off group %d: %w", x.Child, r.Group, err)
			}
		}
	}
	if err := h.log.Write(&h.batch); err != nil {
		return err
	}
	for _, x := range unwanted {
		if err := h.store.Taken(x.root, x.child); err != nil {
			return err
		}
	}
	return nil
}

// youngOf finds the children of a replica that may be young.
func (h *Host) youngOf(r raftlog.Replica) (all []child, err error) {
	given, err := h.store.Given(r.Root)
	for _, x := range given {
		if is, ok := h.log.Replica(x.Child); ok && is.Root == x.Root {
			all = append(all, child{group: x.Child, replica: is.ID, root: is.Root, base: is.Base})
		}
	}
	return all, err
}

// readChild reads what the rows say of a child. If it has no record yet it has
// applied nothing of its own.
func (h *Host) readChild(x state.Given) (*child, error) {
	row, err := h.store.Applied(x.Root)
	if err != nil {
		return nil, err
	}
	if row == nil { // its rows have gone, after the record
		return nil, errChildExists
	}
	at, conf, err := decodeApplied(row)
	if err == nil && len(x.Note) != 8 {
		err = errRow
	}
	if err != nil {
		return nil, err
	}
	return &child{group: x.Child, replica: binary.BigEndian.Uint64(x.Note), root: x.Root, base: at, conf: conf}, nil
}

// keptForChild is the index up to which the log may forget, for its children's
// sake: the entry that makes one stays until the child has committed an entry of
// its own, and so has its rows on a majority. Else whoever has the entry and has not
// applied it could be carried over it by a snapshot, and its copy be lost.
func (g *Group) keptForChild(upTo uint64) uint64 {
	h := g.host
	grown := g.young.remove(func(c *child) bool {
		own, ok := h.Group(c.group)
		if destroyed := !ok && h.log.MinReplica(c.group) > c.replica; destroyed || ok && own.commit.Load() > c.base.Index {
			return true
		}
		upTo = min(upTo, c.base.Index-1)
		return false
	})
	if len(grown) > 0 {
		h.spawn(func() {
			for _, c := range grown {
				if err := h.store.Taken(g.rows.Root(), c.group); err != nil {
					h.fail(fmt.Errorf("replica: group %d, spun off group %d: %w", c.group, g.id, err))
				}
			}
		})
	}
	return upTo
}
