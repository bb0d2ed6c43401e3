package catalog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/comanda-mq/comanda/internal/message"
)

// Reader reads the meta group's rows.
type Reader interface {
	Get(space uint64, key []byte) ([]byte, bool)
	Scan(space uint64, lo, hi []byte, visit func(key, value []byte) bool)
}

// Rows reads and writes them.
type Rows interface {
	Reader
	Set(space uint64, key, value []byte)
	Delete(space uint64, key []byte)
}

// All rows lie in the group's own space.
const (
	space      = 0
	rowVersion = 'v' // → version (8), command version (1)
	rowCluster = 'c'
	rowNode    = 'n' // | id (8)
	rowGroup   = 'g' // | id (8)
	rowQueue   = 'q' // | number (4)
)

// commandVersion is what this binary writes into a new catalog.
const commandVersion = 1

// Command is one change; exactly one field is set.
type Command struct {
	Found       *Found       `json:"found,omitempty"`
	CreateQueue *CreateQueue `json:"create_queue,omitempty"`
	DeleteQueue *DeleteQueue `json:"delete_queue,omitempty"`
	PauseQueue  *PauseQueue  `json:"pause_queue,omitempty"`
	SetNode     *SetNode     `json:"set_node,omitempty"`
}

// Found makes the cluster, with its first node and groups on it.
type Found struct {
	ClusterID string         `json:"cluster_id"`
	Secret    message.Secret `json:"secret"`
	Node      Node           `json:"node"` // id 1
	Groups    int            `json:"groups"`
}

// CreateQueue creates a queue.
type CreateQueue struct {
	Name     string           `json:"name"`
	Settings message.Settings `json:"settings"`
	Shards   int              `json:"shards"`
	Secret   message.Secret   `json:"secret"`
}

// DeleteQueue deletes a queue; its groups drop their rows when they see it.
type DeleteQueue struct {
	Name string `json:"name"`
}

// PauseQueue stops or resumes a queue's deliveries.
type PauseQueue struct {
	Name   string `json:"name"`
	Paused bool   `json:"paused"`
}

// SetNode updates where a node is reached.
type SetNode struct {
	Node Node `json:"node"`
}

// Result is the answer to a command.
type Result struct {
	Queue   *Queue // CreateQueue, PauseQueue
	Created bool
	Err     *message.Error
}

// Change is what an entry did to a queue.
type Change struct {
	Queue   *Queue
	Deleted bool
}

// AppendEntry joins encoded commands (JSON) to one entry: the command version,
// then a command a line.
func AppendEntry[C ~struct {
	Head   []byte
	Bodies [][]byte
}](b []byte, cmds []C) []byte {
	b = append(b, commandVersion)
	for _, c := range cmds {
		b = append(b, struct {
			Head   []byte
			Bodies [][]byte
		}(c).Head...)
		b = append(b, '\n')
	}
	return b
}

// Encode writes a command for AppendEntry.
func (c Command) Encode() []byte { return encode(c) }

// Machine applies entries to the catalog.
type Machine struct {
	view    *View
	changes []Change
	rows    Rows
}

// New returns a machine that loads its rows with the first entry or Load.
func New() *Machine { return &Machine{} }

// View is the catalog after the last entry; nil before anything was loaded.
func (m *Machine) View() *View { return m.view }

// Changes returns what the last entry did to queues, valid until the next one.
func (m *Machine) Changes() []Change { return m.changes }

// Load reads the catalog's rows, unless that was done before.
func (m *Machine) Load(rows Reader) {
	if m.view != nil {
		return
	}
	v := &View{nodes: map[uint64]*Node{}, groups: map[uint64]*Group{}}
	if row, ok := rows.Get(space, []byte{rowVersion}); ok {
		if len(row) != 9 || row[8] != commandVersion {
			panic(fmt.Errorf("catalog: its rows are damaged or of a newer version: start the newer binary"))
		}
		v.Version = binary.BigEndian.Uint64(row)
	}
	if row, ok := rows.Get(space, []byte{rowCluster}); ok {
		decode(row, &v.Cluster)
	}
	rows.Scan(space, []byte{rowNode}, []byte{rowNode + 1}, func(_, row []byte) bool {
		n := &Node{}
		decode(row, n)
		v.nodes[n.ID] = n
		return true
	})
	rows.Scan(space, []byte{rowGroup}, []byte{rowGroup + 1}, func(_, row []byte) bool {
		g := &Group{}
		decode(row, g)
		v.groups[g.ID] = g
		return true
	})
	for i := range v.byNumber {
		v.byNumber[i], v.byName[i] = map[uint32]*Queue{}, map[string]*Queue{}
	}
	rows.Scan(space, []byte{rowQueue}, []byte{rowQueue + 1}, func(_, row []byte) bool {
		q := &Queue{}
		decode(row, q)
		v.byNumber[numberBucket(q.Number)][q.Number] = q
		v.byName[nameBucket(q.Name)][q.Name] = q
		v.queues++
		return true
	})
	m.view = v
}

// Apply applies one entry and returns a Result for each of its commands.
func (m *Machine) Apply(rows Rows, index uint64, entry []byte) []any {
	m.Load(rows)
	m.rows, m.changes = rows, m.changes[:0]
	if len(entry) == 0 || entry[0] != commandVersion {
		panic(fmt.Errorf("catalog: entry %d is of a newer version: start the newer binary", index))
	}
	before := m.view
	var results []any
	for line := range bytes.Lines(entry[1:]) {
		var c Command
		decode(line, &c)
		results = append(results, m.apply(&c, index))
	}
	if m.view != before {
		m.view.Version = index // of this entry's own View, which nobody has seen yet
		rows.Set(space, []byte{rowVersion}, append(binary.BigEndian.AppendUint64(nil, index), commandVersion))
	}
	m.rows = nil
	return results
}

func (m *Machine) apply(c *Command, index uint64) Result {
	switch {
	case c.Found != nil:
		return m.found(c.Found)
	case c.CreateQueue != nil:
		return m.createQueue(c.CreateQueue, index)
	case c.DeleteQueue != nil:
		return m.deleteQueue(c.DeleteQueue)
	case c.PauseQueue != nil:
		return m.pauseQueue(c.PauseQueue, index)
	case c.SetNode != nil:
		m.setNode(c.SetNode.Node)
		return Result{}
	}
	panic(fmt.Errorf("catalog: entry %d holds a command of a newer version: start the newer binary", index))
}

// found is refused without an error when the cluster is there: who founds may
// have crashed after it was done.
func (m *Machine) found(c *Found) Result {
	if m.view.Founded() {
		return Result{}
	}
	m.setCluster(Cluster{ID: c.ClusterID, Secret: c.Secret, NextQueue: 1, NextNode: c.Node.ID + 1})
	m.setNode(c.Node)
	for i := range c.Groups + 1 {
		m.setGroup(Group{ID: MetaGroup + uint64(i), Replicas: []Replica{{ID: 1, Node: c.Node.ID}}})
	}
	return Result{}
}

func (m *Machine) createQueue(c *CreateQueue, index uint64) Result {
	if q, ok := m.view.Queue(c.Name); ok {
		if !q.Settings.Equal(c.Settings) || len(q.Shards) != c.Shards {
			return Result{Queue: q, Err: message.Errorf(message.QueueExists, "queue %q exists with other settings: see them with 'comanda queue show %s'", c.Name, c.Name)}
		}
		return Result{Queue: q}
	}
	cluster := m.view.Cluster
	if m.view.queues >= message.MaxQueues || cluster.NextQueue > message.MaxQueueNumber {
		return Result{Err: message.Errorf(message.ResourceExhausted, "the cluster has %d queues, the most it can have: delete some", m.view.queues)}
	}
	var data []uint64
	for _, g := range m.view.Groups() {
		if g.ID != MetaGroup {
			data = append(data, g.ID)
		}
	}
	q := &Queue{
		Number: cluster.NextQueue, Name: c.Name, Version: index, Settings: c.Settings.WithDefaults(),
		Secret: c.Secret, Shards: split(cluster.NextQueue, c.Shards, data),
	}
	cluster.NextQueue++
	m.setCluster(cluster)
	m.setQueue(q)
	return Result{Queue: q, Created: true}
}

func (m *Machine) deleteQueue(c *DeleteQueue) Result {
	q, ok := m.view.Queue(c.Name)
	if !ok {
		return Result{Err: message.NoQueue(c.Name)}
	}
	m.view = m.view.withoutQueue(q)
	m.rows.Delete(space, binary.BigEndian.AppendUint32([]byte{rowQueue}, q.Number))
	m.changes = append(m.changes, Change{Queue: q, Deleted: true})
	return Result{Queue: q}
}

func (m *Machine) pauseQueue(c *PauseQueue, index uint64) Result {
	q, ok := m.view.Queue(c.Name)
	if !ok {
		return Result{Err: message.NoQueue(c.Name)}
	}
	if q.Paused == c.Paused {
		return Result{Queue: q}
	}
	n := *q
	n.Paused, n.Version = c.Paused, max(index, q.Version+1)
	m.setQueue(&n)
	return Result{Queue: &n}
}

func (m *Machine) setQueue(q *Queue) {
	m.view = m.view.withQueue(q)
	m.rows.Set(space, binary.BigEndian.AppendUint32([]byte{rowQueue}, q.Number), encode(q))
	m.changes = append(m.changes, Change{Queue: q})
}

func (m *Machine) setCluster(c Cluster) {
	v := *m.view
	v.Cluster = c
	m.view = &v
	m.rows.Set(space, []byte{rowCluster}, encode(c))
}

func (m *Machine) setNode(n Node) {
	v := *m.view
	put(&v.nodes, n.ID, &n)
	m.view = &v
	m.rows.Set(space, binary.BigEndian.AppendUint64([]byte{rowNode}, n.ID), encode(n))
}

func (m *Machine) setGroup(g Group) {
	v := *m.view
	put(&v.groups, g.ID, &g)
	m.view = &v
	m.rows.Set(space, binary.BigEndian.AppendUint64([]byte{rowGroup}, g.ID), encode(g))
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own structs always encode
	}
	return b
}

func decode(b []byte, v any) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		panic(fmt.Errorf("catalog: a row or command is damaged or of a newer version: %w", err))
	}
}
