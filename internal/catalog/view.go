package catalog

import (
	"cmp"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// Cluster is what there is one of.
type Cluster struct {
	ID     string         `json:"id"`     // 32 hex digits
	Secret message.Secret `json:"secret"` // authenticates tokens
	// NextQueue and NextNode are the numbers that the next ones get; numbers are
	// never used again.
	NextQueue uint32 `json:"next_queue"`
	NextNode  uint64 `json:"next_node"`
}

// Node is a server.
type Node struct {
	ID     uint64 `json:"id"`
	Name   string `json:"name"`
	Listen string `json:"listen"` // where clients reach it
}

// Group is a replica set.
type Group struct {
	ID       uint64    `json:"id"`
	Replicas []Replica `json:"replicas"`
}

// Replica is a node's copy of a group.
type Replica struct {
	ID   uint64 `json:"id"`
	Node uint64 `json:"node"`
}

// MetaGroup is the number of the group that holds the catalog. Data groups
// follow it.
const MetaGroup = 1

// Queue is a queue with its range table.
type Queue struct {
	Number   uint32           `json:"number"`
	Name     string           `json:"name"`
	Version  uint64           `json:"version"` // grows with each change of the queue
	Settings message.Settings `json:"settings"`
	Paused   bool             `json:"paused,omitempty"`
	Secret   message.Secret   `json:"secret"` // places keys
	Shards   []Shard          `json:"shards"` // by their first cell; they cover all cells
}

// Shard is a run of a queue's cells, both included, and the group that has it.
type Shard struct {
	From  int    `json:"from"`
	To    int    `json:"to"`
	Path  string `json:"path"`
	Group uint64 `json:"group"`
	Epoch uint64 `json:"epoch"`
}

// View is the catalog at one version. It never changes: a change makes a new
// View that shares all that stayed.
type View struct {
	Version uint64 // index of the entry that changed it last
	Cluster Cluster
	nodes   map[uint64]*Node
	groups  map[uint64]*Group
	// Queues lie in buckets, so that a change copies a bucket and not all.
	byNumber [buckets]map[uint32]*Queue
	byName   [buckets]map[string]*Queue
	queues   int
}

const buckets = 256

func numberBucket(n uint32) int { return int(n % buckets) }

func nameBucket(s string) int {
	h := uint32(2166136261) // FNV-1a
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return int(h % buckets)
}

// Founded says whether there is a cluster yet.
func (v *View) Founded() bool { return v.Cluster.ID != "" }

// Queue finds a queue by its name.
func (v *View) Queue(name string) (*Queue, bool) {
	q, ok := v.byName[nameBucket(name)][name]
	return q, ok
}

// QueueNumber finds a queue by its number.
func (v *View) QueueNumber(n uint32) (*Queue, bool) {
	q, ok := v.byNumber[numberBucket(n)][n]
	return q, ok
}

// Queues returns up to limit queues whose names come after the given one, by
// name.
func (v *View) Queues(after string, limit int) []*Queue {
	var qs []*Queue
	for i := range v.byName {
		for name, q := range v.byName[i] {
			if name > after {
				qs = append(qs, q)
			}
		}
	}
	slices.SortFunc(qs, func(a, b *Queue) int { return cmp.Compare(a.Name, b.Name) })
	return qs[:min(limit, len(qs))]
}

// Len is the number of queues.
func (v *View) Len() int { return v.queues }

// Node finds a node.
func (v *View) Node(id uint64) (*Node, bool) {
	n, ok := v.nodes[id]
	return n, ok
}

// Nodes returns all nodes by id.
func (v *View) Nodes() []*Node { return sorted(v.nodes) }

// Group finds a group.
func (v *View) Group(id uint64) (*Group, bool) {
	g, ok := v.groups[id]
	return g, ok
}

// Groups returns all groups by id, the meta group first.
func (v *View) Groups() []*Group { return sorted(v.groups) }

func sorted[T any](m map[uint64]*T) []*T {
	out := make([]*T, 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[id])
	}
	return out
}

func (v *View) withQueue(q *Queue) *View {
	n := *v
	if old, ok := v.QueueNumber(q.Number); !ok {
		n.queues++
	} else if old.Name != q.Name {
		panic("catalog: a queue's name does not change")
	}
	put(&n.byNumber[numberBucket(q.Number)], q.Number, q)
	put(&n.byName[nameBucket(q.Name)], q.Name, q)
	return &n
}

func (v *View) withoutQueue(q *Queue) *View {
	n := *v
	n.queues--
	remove(&n.byNumber[numberBucket(q.Number)], q.Number)
	remove(&n.byName[nameBucket(q.Name)], q.Name)
	return &n
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	c := maps.Clone(*m)
	if c == nil {
		c = map[K]V{}
	}
	c[k] = v
	*m = c
}

func remove[K comparable, V any](m *map[K]V, k K) {
	c := maps.Clone(*m)
	delete(c, k)
	*m = c
}
