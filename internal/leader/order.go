package leader

import (
	"cmp"
	"iter"
	"maps"
	"slices"
)

// inOrder visits a map by its keys: what comes of it is proposed in the same order
// each time, so that a simulation can repeat what it has seen.
func inOrder[K cmp.Ordered, V any](m map[K]V) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
