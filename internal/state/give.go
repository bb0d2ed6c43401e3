package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// A replica can give spaces away to a replica to be, the child: a root of its
// own, which gets their handles, so that none of their rows is touched. Until it is
// taken, a row of the giver leads to its root:
//
//	root | 0 | 'o' | child → root of the child (8) | note

// Given is a child that a replica has made, and that it still has a row of.
type Given struct {
	Child uint64
	Root  uint64
	Note  []byte
}

// Part is the child as its rows are written, in the batch that makes it.
type Part struct {
	b    *Batch
	root uint64
	own  []byte // what keys of its own space begin with
}

// Give makes a child of the batch's replica with those of the spaces that have
// rows; the replica has them no more. applied is the child's applied row, note
// what the host wants to find again with it.
func (b *Batch) Give(child uint64, spaces []uint64, applied, note []byte) *Part {
	root, err := b.replica.alloc()
	must("allocate a handle", err)
	p := &Part{b: b, root: root, own: append(binary.BigEndian.AppendUint64(nil, root), groupRows)}
	for _, space := range spaces {
		h, ok := b.spaces.handle(space)
		if !ok {
			continue
		}
		must("delete", b.b.Delete(spaceKey(b.root, space), nil))
		must("set", b.b.Set(spaceKey(root, space), binary.BigEndian.AppendUint64(nil, h), nil))
		b.setSpace(space, 0)
	}
	must("set", b.b.Set(appliedKey(root), applied, nil))
	must("set", b.b.Set(givenKey(b.root, child), append(binary.BigEndian.AppendUint64(nil, root), note...), nil))
	return p
}

// Set writes a row of the child's own space, GroupSpace, which is empty.
func (p *Part) Set(key, value []byte) {
	must("set", p.b.b.Set(append(p.own[:9:9], key...), value, nil))
}

// Root is the child's root handle.
func (p *Part) Root() uint64 { return p.root }

func givenKey(root, child uint64) []byte {
	k := append(binary.BigEndian.AppendUint64(nil, root), hostRows, 'o')
	return binary.BigEndian.AppendUint64(k, child)
}

// Given lists the children of the replica under a root that were not taken yet.
func (s *Store) Given(root uint64) (all []Given, err error) {
	prefix := append(binary.BigEndian.AppendUint64(nil, root), hostRows, 'o')
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: append(binary.BigEndian.AppendUint64(nil, root), hostRows, 'o'+1)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		k := it.Key()[len(prefix):]
		if len(k) != 8 || len(v) < 8 {
			return nil, fmt.Errorf("state: root %d: a row of a child has %d+%d bytes", root, len(k), len(v))
		}
		all = append(all, Given{Child: binary.BigEndian.Uint64(k), Root: binary.BigEndian.Uint64(v), Note: append([]byte(nil), v[8:]...)})
	}
	return all, it.Error()
}

// Taken deletes the row that leads to a child: nobody needs it any more, or it is
// not wanted. It is not synced; whoever finds the row again asks the log.
func (s *Store) Taken(root, child uint64) error {
	return s.db.Delete(givenKey(root, child), pebble.NoSync)
}

// Drop deletes a child that is not wanted, with the handles that it got. It is
// not synced: the next start sweeps what no root reaches.
func (s *Store) Drop(root uint64) error {
	r, err := s.OpenReplica(root, nil)
	if err != nil {
		return err
	}
	return r.Destroy()
}
