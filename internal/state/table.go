package state

import (
	"maps"
	"slices"
)

// tableBuckets is so high that a bucket of a node with 200,000 cells holds some
// two hundred, and so low that the table itself is cheap to copy.
const tableBuckets = 1024

// table maps the spaces of a replica, its own apart, to their handles. Views
// keep it, so what a pointer that is shared leads to never changes: a batch
// that makes a space copies the table once, and a bucket for each space.
type table struct {
	buckets [tableBuckets]map[uint64]uint64
}

func (t *table) bucket(space uint64) *map[uint64]uint64 {
	// Queue and cell both stand in a space's number; the multiplication lets all
	// its bits count.
	return &t.buckets[space*0x9e3779b97f4a7c15>>54]
}

func (t *table) handle(space uint64) (uint64, bool) {
	h, ok := (*t.bucket(space))[space]
	return h, ok
}

// with returns the table with space → handle; handle 0 takes it out. own says
// that nobody else has seen t, so that only the bucket need be copied.
func (t *table) with(space, handle uint64, own bool) *table {
	if !own {
		c := *t
		t = &c
	}
	b := t.bucket(space)
	if *b = maps.Clone(*b); *b == nil {
		*b = map[uint64]uint64{}
	}
	if handle == 0 {
		delete(*b, space)
	} else {
		(*b)[space] = handle
	}
	return t
}

// spaces lists the spaces in order.
func (t *table) spaces() []uint64 {
	var all []uint64
	for _, b := range t.buckets {
		for space := range b {
			all = append(all, space)
		}
	}
	slices.Sort(all)
	return all
}

// handles lists the handles, in no order.
func (t *table) handles() []uint64 {
	var all []uint64
	for _, b := range t.buckets {
		for _, h := range b {
			all = append(all, h)
		}
	}
	return all
}
