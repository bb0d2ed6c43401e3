package operation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
)

// MoveKind is the kind of the operations that move a shard.
const MoveKind = "move"

// The steps of a move. Each leaves the shard in good order: wherever a move ends,
// it is led and complete.
const (
	spinOff = ""     // the shard gets a group of its own, on the nodes where it is
	seat    = "seat" // the node gets a voter of the group
	lead    = "lead" // and leads it
)

// Move moves a shard to a node, which is to hold and to lead it. What is in it goes
// along, and nothing stops meanwhile.
type Move struct {
	Queue uint32 `json:"queue"`
	Name  string `json:"name"` // of the queue, for people
	Path  string `json:"path"` // of the shard
	Node  uint64 `json:"node"`
	// NodeName is for people.
	NodeName string `json:"node_name"`
}

// Begin is the operation, to be proposed to the catalog. The same key begins it
// once.
func (m *Move) Begin(key string) *catalog.BeginOperation {
	args, err := json.Marshal(m)
	if err != nil {
		panic(err) // our own structs always encode
	}
	shard := fmt.Sprintf("shard %s/%s", m.Name, m.Path)
	return &catalog.BeginOperation{
		Key: key, Kind: MoveKind, Title: fmt.Sprintf("move %s to %s", shard, m.NodeName), Subject: shard, Args: args,
	}
}

func (m *Move) tell(_ *catalog.Operation, info *message.OperationInfo) { info.To = m.NodeName }

// reached is what a move keeps for its later steps: the shard's own group.
type reached struct {
	Group uint64 `json:"group"`
}

// Bound says why no shard of a queue can get a group of its own; nil: one can.
func Bound(q *catalog.Queue) *message.Error {
	if why := q.Settings.Together(); why != "" && len(q.Shards) > 1 {
		return message.Errorf(message.InvalidArgument, "queue %s: its %s counts over all its messages, so its shards stay in one group", q.Name, why)
	}
	return nil
}

// Unfit says why a node can't get a shard; nil: it can.
func Unfit(n *catalog.Node) *message.Error {
	switch {
	case n.State == catalog.Removed:
		return message.Errorf(message.NodeRemoved, "node %s was removed from the cluster: move the shard to another one", n.Name)
	case n.Draining:
		return message.Errorf(message.Conflict, "node %s is draining: move the shard to another one, or take the drain back with 'comanda node drain %s --undo'", n.Name, n.Name)
	case n.State != catalog.Alive:
		return message.Errorf(message.Conflict, "node %s is %s: move the shard to another one, or bring it back first", n.Name, n.State)
	}
	return nil
}

// step does what is to be done next. What it reads of the catalog may be old: all
// that it does is refused then.
func (m *Move) step(ctx context.Context, c Cluster, v *catalog.View, o *catalog.Operation, _ time.Time) outcome {
	node, known := v.Node(m.Node)
	q, exists := v.QueueNumber(m.Queue)
	if !exists {
		return failed(message.Errorf(message.QueueNotFound, "queue %s was deleted meanwhile", m.Name))
	}
	s, whole := q.ShardPath(m.Path)
	switch {
	case !known:
		return failed(message.Errorf(message.NodeRemoved, "node %s was removed from the cluster: move the shard to another one", m.NodeName))
	case !whole:
		return failed(message.Errorf(message.Conflict, "shard %s/%s was split meanwhile: move what it became, see 'comanda shard list --queue %s --tree'", m.Name, m.Path, m.Name))
	}
	if unfit := Unfit(node); unfit != nil {
		if node.State == catalog.Removed || node.Draining {
			return failed(unfit)
		}
		return waits("for node %s, which is %s", node.Name, node.State)
	}
	g, ok := v.Group(s.Group)
	if !ok {
		return waits("for the catalog to know group %d", s.Group)
	}
	switch o.Step {
	case spinOff:
		return m.spinOff(ctx, c, v, o, q, s, g)
	case seat:
		return m.seat(ctx, c, v, o, g)
	case lead:
		return m.lead(ctx, c, g)
	}
	return waits("for a node whose program knows the step %q", o.Step)
}

// spinOff gives the shard a group of its own, unless it has one or is where it
// shall be already: where the node leads it, and is the one that should. An election
// may give the lead to another for a moment.
func (m *Move) spinOff(ctx context.Context, c Cluster, v *catalog.View, o *catalog.Operation, q *catalog.Queue, s *catalog.Shard, g *catalog.Group) outcome {
	switch {
	case alone(q, g):
		data, err := json.Marshal(reached{Group: g.ID})
		if err != nil {
			panic(err) // our own structs always encode
		}
		return outcome{next: seat, data: data}
	case m.leads(ctx, c, g) && m.shouldLead(v, g):
		return outcome{state: catalog.Done, of: q}
	case Bound(q) != nil: // it was split, or got the setting, since the move was begun
		return failed(Bound(q))
	case !placement.Settled(g):
		return waits("for the replicas of group %d, which are being changed", g.ID)
	}
	child, err := m.child(ctx, c, o, s, g)
	if message.CodeOf(err) == message.ResourceExhausted {
		return failed(message.Errorf(message.ResourceExhausted, "the shard can't get a group of its own: %v", err))
	}
	if err == nil {
		x := SpinOff{Queue: q.Number, Shard: *s, Parent: g.ID, Child: child.ID, Replicas: map[uint64]uint64{}}
		for _, r := range g.Replicas {
			there, _ := child.On(r.Node)
			x.Replicas[r.ID] = there.ID
		}
		err = c.SpinOff(ctx, x)
	}
	if err != nil {
		return waits("for group %d to give the shard away (%s)", g.ID, message.CodeOf(err))
	}
	return waits("for the catalog to hear that the shard is in group %d", child.ID)
}

// child is the group that the shard is to get, with a replica beside each of those
// of its parent, also if they have changed since it was added.
func (m *Move) child(ctx context.Context, c Cluster, o *catalog.Operation, s *catalog.Shard, parent *catalog.Group) (*catalog.Group, error) {
	seats := parent.Seats()
	r, err := c.Change(ctx, catalog.Command{AddGroup: &catalog.AddGroup{
		Origin: catalog.Origin{Queue: m.Queue, Path: s.Path, Epoch: s.Epoch}, Seats: seats, Operation: o.ID,
	}})
	if err == nil && r.Err == nil && r.Group.Unborn() {
		r, err = c.Change(ctx, catalog.Command{SetReplicas: &catalog.SetReplicas{Group: r.Group.ID, Epoch: r.Group.Epoch, Want: seats, AcceptOneDisk: true}})
	}
	if err == nil && r.Err != nil {
		err = r.Err
	}
	return r.Group, err
}

// alone says that a group was made for a shard of the queue and has one only. No
// other one can come into it.
func alone(q *catalog.Queue, g *catalog.Group) bool {
	shards := 0
	for _, s := range q.Shards {
		if s.Group == g.ID {
			shards++
		}
	}
	return g.Origin != nil && shards == 1
}

// seat gives the node a voter's seat, and the group to the node: placement leaves it
// there, and lets it lead.
func (m *Move) seat(ctx context.Context, c Cluster, v *catalog.View, o *catalog.Operation, g *catalog.Group) outcome {
	settled := placement.Settled(g)
	switch {
	case g.Pin == m.Node && settled:
		return outcome{next: lead}
	case g.Pin == m.Node:
		return waits("for node %s to get what is in group %d", m.NodeName, g.ID)
	case !settled:
		return waits("for the replicas of group %d, which are being changed", g.ID)
	}
	err := change(ctx, c, catalog.Command{SetReplicas: &catalog.SetReplicas{
		Group: g.ID, Epoch: g.Epoch, Want: placement.Seat(v, g, m.Node), Pin: &m.Node, Operation: o.ID,
	}})
	if err != nil {
		return waits("for the catalog to take the seat of node %s in group %d (%s)", m.NodeName, g.ID, message.CodeOf(err))
	}
	return waits("for node %s to get what is in group %d", m.NodeName, g.ID)
}

// lead waits until the node leads the group.
func (m *Move) lead(ctx context.Context, c Cluster, g *catalog.Group) outcome {
	switch {
	case g.Pin != m.Node:
		return outcome{next: seat} // its seat was given away meanwhile
	case m.leads(ctx, c, g):
		return outcome{state: catalog.Done}
	}
	return waits("for node %s to lead group %d", m.NodeName, g.ID)
}

// leads says that the node holds and leads the group.
func (m *Move) leads(ctx context.Context, c Cluster, g *catalog.Group) bool {
	r, ok := g.On(m.Node)
	return ok && r.Role == catalog.Voter && slices.Contains(g.Confirmed.Voters, r.ID) && c.Leader(ctx, g.ID) == r.ID
}

// shouldLead says that placement has the node lead the group.
func (m *Move) shouldLead(v *catalog.View, g *catalog.Group) bool {
	r, ok := g.On(m.Node)
	return ok && placement.Leaders(v)[g.ID] == r.ID
}

// undo takes the pin back of a move that is not to go on: what it reached stands,
// and placement is free again.
func (m *Move) undo(ctx context.Context, c Cluster, v *catalog.View, o *catalog.Operation) error {
	var at reached
	if len(o.Data) > 0 {
		if err := json.Unmarshal(o.Data, &at); err != nil {
			return err
		}
	}
	g, ok := v.Group(at.Group)
	if !ok {
		return nil
	}
	x := &catalog.SetReplicas{Group: g.ID, Epoch: g.Epoch, Want: g.Seats()}
	if g.Pin == m.Node {
		x.Pin = new(uint64(0))
	} // else it changes nothing, and is refused if the view is older than the pin
	return change(ctx, c, catalog.Command{SetReplicas: x})
}
