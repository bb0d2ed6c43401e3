package catalog

import (
	"cmp"
	"iter"
	"maps"
	"slices"
)

const buckets = 256

// table is a map in buckets, so that an entry copies the buckets that it
// changes and not all. Who changes it names the version that it makes: a bucket
// that this version has copied is changed in place, all others are shared with
// the versions before and stay as they are.
type table[K uint64 | string, V any] struct {
	buckets [buckets]bucket[K, V]
	len     int
}

type bucket[K uint64 | string, V any] struct {
	version uint64 // that made the map
	entries map[K]V
}

func bucketOf[K uint64 | string](k K) int {
	switch k := any(k).(type) {
	case uint64:
		return int(k % buckets)
	case string:
		h := uint32(2166136261) // FNV-1a
		for i := range len(k) {
			h = (h ^ uint32(k[i])) * 16777619
		}
		return int(h % buckets)
	}
	return 0
}

func (t *table[K, V]) get(k K) (V, bool) {
	v, ok := t.buckets[bucketOf(k)].entries[k]
	return v, ok
}

func (t *table[K, V]) put(version uint64, k K, v V) {
	b := t.own(version, k)
	t.len -= len(b.entries)
	b.entries[k] = v
	t.len += len(b.entries)
}

func (t *table[K, V]) remove(version uint64, k K) {
	b := t.own(version, k)
	t.len -= len(b.entries)
	delete(b.entries, k)
	t.len += len(b.entries)
}

func (t *table[K, V]) own(version uint64, k K) *bucket[K, V] {
	b := &t.buckets[bucketOf(k)]
	if b.entries == nil {
		*b = bucket[K, V]{version, map[K]V{}}
	} else if b.version != version {
		*b = bucket[K, V]{version, maps.Clone(b.entries)}
	}
	return b
}

// all visits everything, in no order.
func (t *table[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range t.buckets {
			for k, v := range t.buckets[i].entries {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// sorted returns everything by key.
func (t *table[K, V]) sorted() []V {
	keys := make([]K, 0, t.len)
	for k := range t.all() {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	out := make([]V, len(keys))
	for i, k := range keys {
		out[i], _ = t.get(k)
	}
	return out
}
