package catalog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
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

// All rows lie in the group's own space. The View is made of those that kinds
// lists.
const (
	space        = 0
	rowVersion   = 'v' // → version (8), command version (1)
	rowCluster   = 'c'
	rowGroup     = 'g' // | id (8)
	rowNode      = 'n' // | id (8)
	rowOperation = 'o' // | id (8)
	rowQueue     = 'q' // | number (4)
	rowSession   = 's' // | id (8)

	kinds = "cgnoqs"
)

// row is what has a row of its own: *Queue, *Node, *Group, *Session, *Operation
// and Cluster.
type row interface{ key() []byte }

func (Cluster) key() []byte { return []byte{rowCluster} }

// decodeRow reads a row, and refuses what a newer version wrote.
func decodeRow(key, value []byte) (x row, err error) {
	switch key[0] {
	case rowCluster:
		var c Cluster
		err = decode(value, &c)
		return c, err
	case rowGroup:
		x = &Group{}
	case rowNode:
		x = &Node{}
	case rowOperation:
		x = &Operation{}
	case rowQueue:
		x = &Queue{}
	case rowSession:
		x = &Session{}
	default:
		return nil, fmt.Errorf("catalog: row %q is of a newer version: start the newer binary", key)
	}
	if err = decode(value, x); err == nil && !bytes.Equal(x.key(), key) {
		err = fmt.Errorf("catalog: row %q holds %q", key, x.key())
	}
	return x, err
}

// find returns what has a row in the View.
func (v *View) find(key []byte) (row, bool) {
	id := uint64(0)
	for _, b := range key[1:] {
		id = id<<8 | uint64(b)
	}
	switch key[0] {
	case rowGroup:
		return asRow(v.groups.get(id))
	case rowNode:
		return asRow(v.nodes.get(id))
	case rowOperation:
		return asRow(v.operations.get(id))
	case rowQueue:
		return asRow(v.queues.get(id))
	case rowSession:
		return asRow(v.sessions.get(id))
	}
	return nil, false
}

func asRow[R row](x R, ok bool) (row, bool) { return x, ok }

// set puts x into a View that nobody has seen yet, and tells what changed.
func (v *View) set(x row) (c Change, told bool) {
	switch x := x.(type) {
	case Cluster:
		v.Cluster = x
		return Change{}, false
	case *Group:
		v.groups.put(v.Version, x.ID, x)
	case *Node:
		v.nodes.put(v.Version, x.ID, x)
	case *Operation:
		v.operations.put(v.Version, x.ID, x)
	case *Queue:
		v.queues.put(v.Version, uint64(x.Number), x)
		v.queueNames.put(v.Version, x.Name, x)
	case *Session:
		v.sessions.put(v.Version, x.ID, x)
		others := without(v.Worker(x.Worker), x.ID)
		at, _ := slices.BinarySearchFunc(others, x.Incarnation, byIncarnation)
		v.workers.put(v.Version, x.Worker, slices.Insert(others, at, x))
	}
	return change(x), true
}

// unset takes x out of a View that nobody has seen yet.
func (v *View) unset(x row) Change {
	switch x := x.(type) {
	case *Group:
		v.groups.remove(v.Version, x.ID)
	case *Node:
		v.nodes.remove(v.Version, x.ID)
	case *Operation:
		v.operations.remove(v.Version, x.ID)
	case *Queue:
		v.queues.remove(v.Version, uint64(x.Number))
		v.queueNames.remove(v.Version, x.Name)
	case *Session:
		v.sessions.remove(v.Version, x.ID)
		if others := without(v.Worker(x.Worker), x.ID); len(others) > 0 {
			v.workers.put(v.Version, x.Worker, others)
		} else {
			v.workers.remove(v.Version, x.Worker)
		}
	}
	c := change(x)
	c.Deleted = true
	return c
}

func change(x row) (c Change) {
	switch x := x.(type) {
	case *Group:
		c.Group = x
	case *Node:
		c.Node = x
	case *Operation:
		c.Operation = x
	case *Queue:
		c.Queue = x
	case *Session:
		c.Session = x
	}
	return c
}

func byIncarnation(s *Session, incarnation uint64) int {
	switch {
	case s.Incarnation < incarnation:
		return -1
	case s.Incarnation > incarnation:
		return 1
	}
	return 0
}

// without copies sessions, except one.
func without(sessions []*Session, id uint64) []*Session {
	others := make([]*Session, 0, len(sessions)+1)
	for _, s := range sessions {
		if s.ID != id {
			others = append(others, s)
		}
	}
	return others
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own structs always encode
	}
	return b
}

// decode reads a row or command. What it does not know stops the process: to
// pass over it would make this copy differ from the others.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("catalog: a row or command is damaged or of a newer version: %w", err)
	}
	return nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func versionRow(version uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, version), commandVersion)
}
