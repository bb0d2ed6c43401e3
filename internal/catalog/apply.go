package catalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Machine applies entries to the catalog.
type Machine struct {
	view    *View
	changes []Change

	// Of the entry that is being applied:
	rows    Rows
	index   uint64
	written []byte // rows, as Since tells them
}

// New returns a machine that loads its rows with the first entry or Load.
func New() *Machine { return &Machine{} }

// View is the catalog after the last entry; nil before anything was loaded.
func (m *Machine) View() *View { return m.view }

// Changes returns what the last entry changed, valid until the next one.
func (m *Machine) Changes() []Change { return m.changes }

// Load reads the catalog's rows, unless that was done before.
func (m *Machine) Load(rows Reader) {
	if m.view != nil {
		return
	}
	v := &View{}
	if row, ok := rows.Get(space, []byte{rowVersion}); ok {
		if len(row) != 9 || row[8] != commandVersion {
			panic(fmt.Errorf("catalog: its rows are damaged or of a newer version: start the newer binary"))
		}
		v.Version = binary.BigEndian.Uint64(row)
	}
	for _, kind := range []byte(kinds) {
		rows.Scan(space, []byte{kind}, []byte{kind + 1}, func(key, value []byte) bool {
			x, err := decodeRow(key, value)
			must(err)
			v.set(x)
			return true
		})
	}
	m.view = v
}

// Apply applies one entry and returns a Result for each of its commands.
func (m *Machine) Apply(rows Rows, index uint64, entry []byte) []any {
	m.Load(rows)
	m.rows, m.index, m.changes, m.written = rows, index, m.changes[:0], nil
	if len(entry) == 0 || entry[0] != commandVersion {
		panic(fmt.Errorf("catalog: entry %d is of a newer version: start the newer binary", index))
	}
	before := m.view
	var results []any
	for line := range bytes.Lines(entry[1:]) {
		var c Command
		must(decode(line, &c))
		results = append(results, m.apply(&c))
	}
	if m.view != before {
		m.view.tail = before.tail.with(step{from: before.Version, rows: m.written})
		rows.Set(space, []byte{rowVersion}, versionRow(index))
	}
	m.rows = nil
	return results
}

func (m *Machine) apply(c *Command) Result {
	switch {
	case c.Found != nil:
		return m.found(c.Found)
	case c.CreateQueue != nil:
		return m.createQueue(c.CreateQueue)
	case c.DeleteQueue != nil:
		return m.deleteQueue(c.DeleteQueue)
	case c.UpdateQueue != nil:
		return m.updateQueue(c.UpdateQueue)
	case c.PauseQueue != nil:
		return m.pauseQueue(c.PauseQueue)
	case c.SplitShard != nil:
		return m.splitShard(c.SplitShard)
	case c.MoveShard != nil:
		return m.moveShard(c.MoveShard)
	case c.AddNode != nil:
		return m.addNode(c.AddNode)
	case c.SetNode != nil:
		return m.updateNode(c.SetNode)
	case c.SetNodeState != nil:
		return m.setNodeState(c.SetNodeState)
	case c.SetNodeClock != nil:
		return m.setNodeClock(c.SetNodeClock)
	case c.DrainNode != nil:
		return m.drainNode(c.DrainNode)
	case c.AddGroup != nil:
		return m.addGroup(c.AddGroup)
	case c.SetReplicas != nil:
		return m.setReplicas(c.SetReplicas)
	case c.Confirm != nil:
		return m.confirm(c.Confirm)
	case c.OpenSession != nil:
		return m.openSession(c.OpenSession)
	case c.EndSession != nil:
		return m.endSession(c.EndSession)
	case c.DrainWorker != nil:
		return m.drainWorker(c.DrainWorker)
	case c.ForgetSessions != nil:
		return m.forgetSessions(c.ForgetSessions)
	case c.BeginOperation != nil:
		return m.beginOperation(c.BeginOperation)
	case c.AdvanceOperation != nil:
		return m.advanceOperation(c.AdvanceOperation)
	case c.FinishOperation != nil:
		return m.finishOperation(c.FinishOperation)
	case c.CancelOperation != nil:
		return m.cancelOperation(c.CancelOperation)
	case c.PauseOperation != nil:
		return m.pauseOperation(c.PauseOperation)
	}
	panic(fmt.Errorf("catalog: entry %d holds a command of a newer version: start the newer binary", m.index))
}

// found is refused without an error when the cluster is there: who founds may
// have crashed after it was done.
func (m *Machine) found(c *Found) Result {
	if m.view.Founded() {
		return Result{}
	}
	groups := uint64(c.Groups) + 1
	m.set(Cluster{
		ID: c.ClusterID, Secret: c.Secret, NextQueue: 1, NextNode: c.Node.ID + 1,
		NextGroup: MetaGroup + groups, NextSession: 1, NextOperation: 1, Founding: c.Voters,
	})
	m.set(&c.Node)
	for i := range groups {
		m.set(&Group{ID: MetaGroup + i, Epoch: 1, NextReplica: 2, Replicas: []Replica{{ID: 1, Node: c.Node.ID}}})
	}
	return Result{Created: true}
}

// edit is the View that this entry makes. Nobody has seen it yet.
func (m *Machine) edit() *View {
	if m.view.Version != m.index {
		v := *m.view
		v.Version = m.index
		m.view = &v
	}
	return m.view
}

func (m *Machine) set(x row) {
	if c, told := m.edit().set(x); told {
		m.changes = append(m.changes, c)
	}
	key, value := x.key(), encode(x)
	m.rows.Set(space, key, value)
	m.written = appendRow(m.written, key, value)
}

func (m *Machine) remove(x row) {
	m.changes = append(m.changes, m.edit().unset(x))
	m.rows.Delete(space, x.key())
	m.written = appendRow(m.written, x.key(), nil)
}
