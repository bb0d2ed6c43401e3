package catalog

import (
	"bytes"
	"encoding/binary"

	"github.com/comanda-mq/comanda/internal/message"
)

// Limits of the nodes of a cluster.
const (
	MaxNodes     = 4_096 // that are not removed
	keptRemovals = 4_096 // removed nodes that are remembered; older ones are forgotten
	MaxNodeBytes = 4_096 // of what a node says of itself, as a row
)

// Node is a server. Its id is given once: a removed node that comes back joins
// as a new one, with an empty directory.
type Node struct {
	ID      uint64            `json:"id"`
	Name    string            `json:"name"`             // unique among those that are not removed
	Listen  string            `json:"listen"`           // where clients reach it
	Peer    string            `json:"peer,omitempty"`   // where other nodes reach it
	StoreID uint64            `json:"store,omitempty"`  // of its data directory
	Boot    uint64            `json:"boot,omitempty"`   // of its last start: its boot number and BootBits that it drew
	Labels  map[string]string `json:"labels,omitempty"` // of --label
	Version string            `json:"binary,omitempty"` // of its binary
	// State is what the monitor thinks of it; Draining is the operator's wish
	// that it holds nothing.
	State    NodeState `json:"state,omitempty"`
	Draining bool      `json:"draining,omitempty"`
	// ClockOff: its wall clock is far from the median of the nodes', as the monitor
	// saw it.
	ClockOff bool `json:"clock_off,omitempty"`
}

// BootBits is how many bits of Node.Boot each process draws: two processes that
// started from copies of one directory have the same number, and not the same
// bits.
const BootBits = 16

// NodeState is what the monitor thinks of a node.
type NodeState uint8

// The states of a node. Removed is an end.
const (
	Alive   NodeState = iota
	Suspect           // its beats are late: it gets no new work
	Down              // it is taken for dead; its replicas keep their seats
	Removed           // its replicas are rebuilt elsewhere
)

var nodeStates = []string{"alive", "suspect", "down", "removed"}

func (s NodeState) String() string { return word(nodeStates, s) }

// MarshalText writes the state's word.
func (s NodeState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the state's word.
func (s *NodeState) UnmarshalText(b []byte) error { return parseWord(nodeStates, b, s) }

// Holds says whether the node may get new replicas, leaders and workers' calls.
func (n *Node) Holds() bool { return n.State == Alive && !n.Draining }

// Leads says whether the node may lead groups: a leader's wall clock decides when
// what has a time of day is due.
func (n *Node) Leads() bool { return n.Holds() && !n.ClockOff }

// AddNode lets a node join; the answer has its id. A store that joined before
// gets its id again, and one that was removed is refused with NODE_REMOVED.
type AddNode struct {
	Node Node `json:"node"` // without ID, State, Draining and ClockOff
}

// SetNode updates what a node says of itself: name, addresses, labels, binary
// and boot number. A boot number below the known one is refused with CONFLICT:
// an old copy of the directory was started.
type SetNode struct {
	Node Node `json:"node"` // State, Draining and ClockOff are not looked at
}

// SetNodeState is the monitor's verdict, or an operator's removal. It is
// refused with CONFLICT where a group would not keep a majority of its voters on
// nodes that are not removed: that group could never get new ones.
type SetNodeState struct {
	ID    uint64    `json:"id"`
	State NodeState `json:"state"`
}

// SetNodeClock is the monitor's verdict on a node's wall clock.
type SetNodeClock struct {
	ID  uint64 `json:"id"`
	Off bool   `json:"off"`
}

// DrainNode asks that a node holds nothing, or takes that back.
type DrainNode struct {
	ID       uint64 `json:"id"`
	Draining bool   `json:"draining"`
}

func (n *Node) key() []byte { return binary.BigEndian.AppendUint64([]byte{rowNode}, n.ID) }

func noNode(id uint64) *message.Error {
	return message.Errorf(message.NotFound, "there is no node %d in this cluster: see 'comanda node list'", id)
}

// addNode finds a store that joined before, so that a repeat changes nothing.
func (m *Machine) addNode(c *AddNode) Result {
	if c.Node.StoreID == 0 || c.Node.Name == "" {
		return Result{Err: message.Errorf(message.InvalidArgument, "a node that joins tells its store's id and its name")}
	}
	living, removed := 0, []*Node(nil)
	for _, n := range m.view.Nodes() {
		if n.StoreID == c.Node.StoreID {
			c.Node.ID = n.ID
			return m.updateNode(&SetNode{Node: c.Node})
		}
		if n.State == Removed {
			removed = append(removed, n)
		} else {
			living++
		}
	}
	if living >= MaxNodes {
		return Result{Err: message.Errorf(message.ResourceExhausted, "the cluster has %d nodes, the most it can have: remove some with 'comanda node remove'", living)}
	}
	if err := m.checkNode(&c.Node); err != nil {
		return Result{Err: err}
	}
	if len(removed) >= keptRemovals {
		m.remove(removed[0])
	}
	cluster := m.view.Cluster
	n := c.Node
	n.ID, n.State, n.Draining, n.ClockOff = cluster.NextNode, Alive, false, false
	cluster.NextNode++
	m.set(cluster)
	m.set(&n)
	return Result{Node: &n, Created: true}
}

func (m *Machine) updateNode(c *SetNode) Result {
	old, err := m.member(c.Node.ID)
	if err != nil {
		return Result{Node: old, Err: err}
	}
	n := c.Node
	n.State, n.Draining, n.ClockOff = old.State, old.Draining, old.ClockOff
	if n.StoreID == 0 {
		n.StoreID = old.StoreID
	}
	switch err := m.checkNode(&n); {
	case err != nil:
		return Result{Node: old, Err: err}
	case old.StoreID != 0 && n.StoreID != old.StoreID:
		return Result{Node: old, Err: message.Errorf(message.Conflict, "node %d has another data directory: two servers may use one id", n.ID)}
	case n.Boot < old.Boot:
		return Result{Node: old, Err: message.Errorf(message.Conflict, "node %d was started with boot number %d, after %d: its data directory is an old copy; join with an empty one", n.ID, n.Boot, old.Boot)}
	}
	return m.changeNode(old, n)
}

func (m *Machine) changeNode(old *Node, n Node) Result {
	if bytes.Equal(encode(n), encode(old)) {
		return Result{Node: old}
	}
	m.set(&n)
	return Result{Node: &n}
}

// checkNode refuses a name that no node may have, or another node has, and more
// than a row should hold: whoever joins is not known yet.
func (m *Machine) checkNode(n *Node) *message.Error {
	if message.CheckQueueName(n.Name) != nil || len(encode(n)) > MaxNodeBytes {
		return message.Errorf(message.InvalidArgument, "a node wants a name of 1 to %d letters, digits, '.', '_' and '-', and at most %d bytes of addresses and labels in all", message.MaxQueueName, MaxNodeBytes)
	}
	for _, other := range m.view.Nodes() {
		if other.Name == n.Name && other.ID != n.ID && other.State != Removed {
			return message.Errorf(message.Conflict, "node %d is called %q: choose another --node-name, or remove it with 'comanda node remove %s'", other.ID, n.Name, n.Name)
		}
	}
	return nil
}

func (m *Machine) setNodeState(c *SetNodeState) Result {
	old, err := m.member(c.ID)
	if c.State == Removed {
		if old != nil && old.State == Removed {
			return Result{Node: old}
		}
		if err == nil {
			err = m.checkRemoval(c.ID)
		}
	}
	if err != nil {
		return Result{Node: old, Err: err}
	}
	n := *old
	n.State = c.State
	return m.changeNode(old, n)
}

// checkRemoval refuses a removal that would leave a group without a majority.
func (m *Machine) checkRemoval(id uint64) *message.Error {
	for _, g := range m.view.Groups() {
		if r, ok := g.On(id); !ok || r.Role != Voter || g.Unborn() {
			continue
		}
		left := 0
		for _, r := range g.Replicas {
			n, ok := m.view.Node(r.Node)
			if ok && r.Role == Voter && n.ID != id && n.State != Removed {
				left++
			}
		}
		if voters := g.Voters(); 2*left <= voters {
			return message.Errorf(message.Conflict, "without node %d group %d would have %d of %d voters, no majority: drain the node first, or bring other nodes back", id, g.ID, left, voters)
		}
	}
	return nil
}

func (m *Machine) setNodeClock(c *SetNodeClock) Result {
	old, err := m.member(c.ID)
	if err != nil {
		return Result{Node: old, Err: err}
	}
	n := *old
	n.ClockOff = c.Off
	return m.changeNode(old, n)
}

func (m *Machine) drainNode(c *DrainNode) Result {
	old, err := m.member(c.ID)
	if err != nil {
		return Result{Node: old, Err: err}
	}
	n := *old
	n.Draining = c.Draining
	return m.changeNode(old, n)
}

// member finds a node that is not removed.
func (m *Machine) member(id uint64) (*Node, *message.Error) {
	n, ok := m.view.Node(id)
	switch {
	case !ok:
		return nil, noNode(id)
	case n.State == Removed:
		return n, message.Errorf(message.NodeRemoved, "node %d (%s) was removed: join with an empty data directory", id, n.Name)
	}
	return n, nil
}
