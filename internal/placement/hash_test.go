package placement

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// spread gives keys 0 to n−1 to the members, one after the other, as leaders
// give messages' keys to workers.
func spread(members []Member, n int) (owners []uint64, load map[uint64]int) {
	members = slices.Clone(members)
	load = map[uint64]int{}
	for key := range n {
		id, _ := Owner(mix(uint64(key)), members)
		owners = append(owners, id)
		load[id]++
		i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id })
		members[i].Load++
	}
	return owners, load
}

func members(n int) (all []Member) {
	for i := range n {
		all = append(all, Member{ID: uint64(i + 1), Weight: 1})
	}
	return all
}

// moved is the share of keys whose owner is another one.
func moved(a, b []uint64) float64 {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return float64(n) / float64(len(a))
}

// Nobody has more than 1.25 of its share, whatever the weights, and the order in
// which members are listed does not matter.
func TestLoadIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []Member
		total := 0.0
		for i := range rapid.IntRange(1, 20).Draw(t, "members") {
			w := float64(rapid.IntRange(1, 4).Draw(t, "weight"))
			all = append(all, Member{ID: uint64(i) * 7919, Weight: w})
			total += w
		}
		n := rapid.IntRange(1, 500).Draw(t, "keys")
		owners, load := spread(all, n)
		for _, m := range all {
			if most := bound(n, m.Weight/total); load[m.ID] > most {
				t.Fatalf("member %d of weight %g has %d of %d keys, at most %d", m.ID, m.Weight, load[m.ID], n, most)
			}
		}
		rand.New(rand.NewPCG(1, uint64(n))).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if again, _ := spread(all, n); !slices.Equal(owners, again) {
			t.Fatal("another order of members gives other owners")
		}
	})
}

// By score alone, whoever joins takes keys from the others and nothing else
// moves; so whoever leaves gives its own away and nothing else moves.
func TestOnlyTheNewcomersKeysMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "members")
		for range 200 {
			key := rapid.Uint64().Draw(t, "key")
			before, after := Rank(key, members(n)), Rank(key, members(n+1))
			without := slices.DeleteFunc(after, func(id uint64) bool { return id == uint64(n+1) })
			if !slices.Equal(before, without) {
				t.Fatalf("with one more the rank of the others is %v, was %v", without, before)
			}
		}
	})
}

// What moves with bounded load when one joins or leaves: about its share. The
// log has the table.
func TestAboutOneNthMoves(t *testing.T) {
	const keys = 20_000
	t.Logf("%8s %10s %12s %12s %8s", "members", "max/mean", "moves: join", "leave", "1/n")
	for _, n := range []int{2, 3, 4, 5, 10, 20, 50} {
		before, load := spread(members(n), keys)
		joined, _ := spread(members(n+1), keys)
		left, _ := spread(members(n)[1:], keys)
		most := float64(slices.Max(slices.Collect(maps.Values(load)))) / (float64(keys) / float64(n))
		join, leave := moved(before, joined), moved(before, left)
		t.Logf("%8d %10.3f %11.1f%% %11.1f%% %7.1f%%", n, most, 100*join, 100*leave, 100/float64(n))
		if most > loadBound+0.001 {
			t.Errorf("%d members: max/mean is %.3f", n, most)
		}
		if share := 1 / float64(n+1); join > share+0.05 {
			t.Errorf("%d members: %.1f %% move when one joins, its share is %.1f %%", n, 100*join, 100*share)
		}
		if share := 1 / float64(n); leave > share+0.05 {
			t.Errorf("%d members: %.1f %% move when one leaves, its share is %.1f %%", n, 100*leave, 100*share)
		}
	}
}

// By score alone everybody has keys in proportion to its weight.
func TestWeights(t *testing.T) {
	all := []Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 2}, {ID: 3, Weight: 5}}
	first := map[uint64]int{}
	for key := range uint64(80_000) {
		first[Rank(key, all)[0]]++
	}
	for _, m := range all {
		if want := 10_000 * m.Weight; math.Abs(float64(first[m.ID])-want) > want/20 {
			t.Errorf("member %d of weight %g has %d of 80,000 keys", m.ID, m.Weight, first[m.ID])
		}
	}
}

func TestOwnerOfNobody(t *testing.T) {
	if id, ok := Owner(1, nil); ok {
		t.Error("owner ", id)
	}
	if got := Rank(1, nil); len(got) != 0 {
		t.Error(got)
	}
}

func BenchmarkOwner(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		all := members(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for key := uint64(0); b.Loop(); key++ {
				Owner(key, all)
			}
		})
	}
}
