package placement

import (
	"cmp"
	"math"
	"slices"
)

// loadBound is how much of its share a member may have.
const loadBound = 1.25

// Member is somebody who can get keys: a node, or a worker's session.
type Member struct {
	ID     uint64
	Weight float64 // its share relative to the others', above 0
	Load   int     // what it has already
}

// Owner is the member that a key belongs to: of those who would not have more
// than 1.25 of their share with one more, the one with the highest score. ok is
// false without members. The order of members does not matter.
func Owner(key uint64, members []Member) (id uint64, ok bool) {
	load, weight := 1, 0.0
	for i := range members {
		load += members[i].Load
		weight += members[i].Weight
	}
	best := math.Inf(-1)
	for i := range members {
		m := &members[i]
		if m.Load >= bound(load, m.Weight/weight) {
			continue
		}
		if s := score(key, m); s > best {
			id, best, ok = m.ID, s, true
		}
	}
	return id, ok
}

// Rank orders the members' ids by their score for a key, the owner by score
// alone first.
func Rank(key uint64, members []Member) []uint64 {
	type ranked struct {
		id    uint64
		score float64
	}
	all := make([]ranked, len(members))
	for i := range members {
		all[i] = ranked{members[i].ID, score(key, &members[i])}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
	})
	ids := make([]uint64, len(all))
	for i := range all {
		ids[i] = all[i].id
	}
	return ids
}

// bound is how much of a load a member with that share of the weights may have.
// The bounds of all members are more than the load, so there is always room.
func bound(load int, share float64) int {
	return int(math.Ceil(loadBound * float64(load) * share))
}

// score is −w/ln(h) for a hash h of key and member, even in (0, 1): the chance
// to have the highest is proportional to the weight.
func score(key uint64, m *Member) float64 {
	h := (float64(mix(key^mix(m.ID))>>11) + 0.5) / (1 << 53)
	return -m.Weight / math.Log(h)
}

// mix is the finalizer of SplitMix64: each bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
