package catalog

import (
	"cmp"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// Cluster is what there is one of.
type Cluster struct {
	ID     string         `json:"id"`     // 32 hex digits
	Secret message.Secret `json:"secret"` // authenticates tokens
	// Founding is how many voters each group is to have before sends are taken; 0
	// from when all have had them.
	Founding int `json:"founding,omitempty"`
	// The numbers that the next ones get; numbers are never used again.
	NextQueue     uint32 `json:"next_queue"`
	NextNode      uint64 `json:"next_node"`
	NextGroup     uint64 `json:"next_group,omitempty"`
	NextSession   uint64 `json:"next_session,omitempty"`
	NextOperation uint64 `json:"next_operation,omitempty"`
}

// View is the catalog at one version. It never changes: a change makes a new
// View that shares all that stayed.
type View struct {
	Version    uint64 // index of the entry that changed it last
	Cluster    Cluster
	nodes      table[uint64, *Node]
	groups     table[uint64, *Group]
	queues     table[uint64, *Queue] // by number
	queueNames table[string, *Queue]
	sessions   table[uint64, *Session]
	workers    table[string, []*Session] // by worker; a worker's by incarnation
	operations table[uint64, *Operation]
	tail       tail // how it came about
}

// Founded says whether there is a cluster yet.
func (v *View) Founded() bool { return v.Cluster.ID != "" }

// Queue finds a queue by its name.
func (v *View) Queue(name string) (*Queue, bool) { return v.queueNames.get(name) }

// QueueNumber finds a queue by its number.
func (v *View) QueueNumber(n uint32) (*Queue, bool) { return v.queues.get(uint64(n)) }

// Queues returns up to limit queues whose names come after the given one, by
// name.
func (v *View) Queues(after string, limit int) []*Queue {
	var qs []*Queue
	for name, q := range v.queueNames.all() {
		if name > after {
			qs = append(qs, q)
		}
	}
	slices.SortFunc(qs, func(a, b *Queue) int { return cmp.Compare(a.Name, b.Name) })
	return qs[:min(limit, len(qs))]
}

// Len is the number of queues.
func (v *View) Len() int { return v.queues.len }

// Node finds a node, also one that was removed.
func (v *View) Node(id uint64) (*Node, bool) { return v.nodes.get(id) }

// Gone says that a node was removed, also if that was forgotten since.
func (v *View) Gone(id uint64) bool {
	if n, ok := v.Node(id); ok {
		return n.State == Removed
	}
	return id != 0 && id < v.Cluster.NextNode
}

// Nodes returns all nodes by id, removed ones as well.
func (v *View) Nodes() []*Node { return v.nodes.sorted() }

// Group finds a group.
func (v *View) Group(id uint64) (*Group, bool) { return v.groups.get(id) }

// Groups returns all groups by id, the meta group first.
func (v *View) Groups() []*Group { return v.groups.sorted() }

// Session finds a session, also one that has ended and is not forgotten.
func (v *View) Session(id uint64) (*Session, bool) { return v.sessions.get(id) }

// Live says whether a session may hold leases.
func (v *View) Live(id, incarnation uint64) bool {
	s, ok := v.sessions.get(id)
	return ok && s.Live() && s.Incarnation == incarnation
}

// Sessions returns all sessions by id, ended ones as well.
func (v *View) Sessions() []*Session { return v.sessions.sorted() }

// Worker returns the sessions of a worker by incarnation.
func (v *View) Worker(name string) []*Session {
	s, _ := v.workers.get(name)
	return s
}

// Operation finds an operation.
func (v *View) Operation(id uint64) (*Operation, bool) { return v.operations.get(id) }

// Operations returns all operations by id.
func (v *View) Operations() []*Operation { return v.operations.sorted() }
