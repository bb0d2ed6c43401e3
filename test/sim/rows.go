package main

import (
	"bytes"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// rows are a group's rows in memory, as its entries make them from nothing.
type rows map[uint64]*sheet

// sheet is one space, sorted by key.
type sheet struct{ keys, values [][]byte }

func (s *sheet) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(s.keys, key, bytes.Compare)
}

func (r rows) sheet(space uint64) *sheet {
	s := r[space]
	if s == nil {
		s = &sheet{}
		r[space] = s
	}
	return s
}

func (r rows) Get(space uint64, key []byte) ([]byte, bool) {
	s := r.sheet(space)
	if i, ok := s.find(key); ok {
		return bytes.Clone(s.values[i]), true
	}
	return nil, false
}

func (r rows) Has(space uint64, key []byte) bool {
	_, ok := r.sheet(space).find(key)
	return ok
}

func (r rows) Scan(space uint64, lo, hi []byte, visit func(key, value []byte) bool) {
	s := r.sheet(space)
	i, _ := s.find(lo)
	for ; i < len(s.keys) && (hi == nil || bytes.Compare(s.keys[i], hi) < 0); i++ {
		if !visit(s.keys[i], s.values[i]) {
			return
		}
	}
}

func (r rows) Set(space uint64, key, value []byte) {
	s := r.sheet(space)
	i, ok := s.find(key)
	if ok {
		s.values[i] = bytes.Clone(value)
		return
	}
	s.keys = slices.Insert(s.keys, i, bytes.Clone(key))
	s.values = slices.Insert(s.values, i, bytes.Clone(value))
}

func (r rows) Delete(space uint64, key []byte) {
	s := r.sheet(space)
	if i, ok := s.find(key); ok {
		s.keys, s.values = slices.Delete(s.keys, i, i+1), slices.Delete(s.values, i, i+1)
	}
}

func (r rows) SingleDelete(space uint64, key []byte) { r.Delete(space, key) }

func (r rows) Clear(space uint64) { delete(r, space) }

// ownRows are the rows of a group that can give some to another.
type ownRows struct {
	rows
	g    *groupLog
	told []any // results of the entry on its first replica
}

// Clear empties a space, which only a purge does.
func (o ownRows) Clear(space uint64) {
	o.g.w.logs.clearing(o.g, space)
	o.rows.Clear(space)
}

// SpinOff gives spaces, with the messages in them, to another group.
func (o ownRows) SpinOff(group uint64, _ map[uint64]uint64, spaces []uint64) (func(key, value []byte), *message.Error) {
	for _, r := range o.told {
		// Whether the replicas are still those of the group is not in its rows.
		if err, ok := r.(*message.Error); ok && err != nil && err.Code == message.Conflict {
			return nil, err
		}
	}
	child := o.g.w.logs.group(group)
	for _, space := range spaces {
		child.rows[space] = o.sheet(space)
		delete(o.rows, space)
		o.g.w.logs.homes[space] = child
	}
	return func(key, value []byte) { child.rows.Set(0, key, value) }, nil
}
