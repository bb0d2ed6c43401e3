package queue_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// mapRows are rows in a map: the second implementation of queue.Rows, and so
// simple that it is the model of the first. It checks what Pebble leaves
// undefined: a SingleDelete of a row that is not there or was set twice.
type mapRows struct {
	rows map[string][]byte // space (as 20 digits) and key
	set  map[string]int    // times set since the last delete
}

func newMapRows() *mapRows { return &mapRows{map[string][]byte{}, map[string]int{}} }

func full(space uint64, key []byte) string { return fmt.Sprintf("%020d", space) + string(key) }

func (m *mapRows) Get(space uint64, key []byte) ([]byte, bool) {
	v, ok := m.rows[full(space, key)]
	return slices.Clone(v), ok
}

func (m *mapRows) Has(space uint64, key []byte) bool {
	_, ok := m.rows[full(space, key)]
	return ok
}

func (m *mapRows) Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool) {
	l, h := full(space, lo), full(space, hi)
	for _, k := range slices.Sorted(maps.Keys(m.rows)) {
		if k >= l && k < h && !visit([]byte(k)[20:], m.rows[k]) {
			return
		}
	}
}

func (m *mapRows) Set(space uint64, key, value []byte) {
	m.rows[full(space, key)] = append([]byte{}, value...)
	m.set[full(space, key)]++
}

func (m *mapRows) Delete(space uint64, key []byte) {
	delete(m.rows, full(space, key))
	delete(m.set, full(space, key))
}

func (m *mapRows) SingleDelete(space uint64, key []byte) {
	if n := m.set[full(space, key)]; n != 1 {
		panic(fmt.Sprintf("SingleDelete of %q in space %d, which was set %d times", key, space, n))
	}
	m.Delete(space, key)
}

func (m *mapRows) Clear(space uint64) {
	for k := range m.rows {
		if strings.HasPrefix(k, full(space, nil)) {
			delete(m.rows, k)
			delete(m.set, k)
		}
	}
}

func (m *mapRows) equal(o *mapRows) bool { return maps.EqualFunc(m.rows, o.rows, bytes.Equal) }
