package queue_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// mapRows are rows in a map: the second implementation of queue.Rows, and so
// simple that it is the model of the first. It checks what Pebble leaves
// undefined: a SingleDelete of a row that is not there or was set twice.
type mapRows struct {
	rows   map[string][]byte // by place
	places []string          // of all rows, sorted: scans are what the tests do most
	set    map[string]int    // times set since the last delete
}

func newMapRows() *mapRows { return &mapRows{rows: map[string][]byte{}, set: map[string]int{}} }

const spaceBytes = 8

// full is the place of a row: its space, and its key.
func full(space uint64, key []byte) string {
	return string(append(binary.BigEndian.AppendUint64(make([]byte, 0, spaceBytes+len(key)), space), key...))
}

func (m *mapRows) Get(space uint64, key []byte) ([]byte, bool) {
	v, ok := m.rows[full(space, key)]
	return slices.Clone(v), ok
}

func (m *mapRows) Has(space uint64, key []byte) bool {
	_, ok := m.rows[full(space, key)]
	return ok
}

func (m *mapRows) Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool) {
	for _, p := range m.between(full(space, lo), full(space, hi)) {
		if !visit([]byte(p)[spaceBytes:], m.rows[p]) {
			return
		}
	}
}

// between are the places from one up to another.
func (m *mapRows) between(from, to string) []string {
	i, _ := slices.BinarySearch(m.places, from)
	j, _ := slices.BinarySearch(m.places, to)
	return m.places[i:max(i, j)]
}

func (m *mapRows) Set(space uint64, key, value []byte) {
	p := full(space, key)
	m.put(p, append([]byte{}, value...))
	m.set[p]++
}

func (m *mapRows) put(place string, value []byte) {
	if i, there := slices.BinarySearch(m.places, place); !there {
		m.places = slices.Insert(m.places, i, place)
	}
	m.rows[place] = value
}

func (m *mapRows) Delete(space uint64, key []byte) { m.remove(full(space, key)) }

func (m *mapRows) remove(place string) {
	if i, there := slices.BinarySearch(m.places, place); there {
		m.places = slices.Delete(m.places, i, i+1)
	}
	delete(m.rows, place)
	delete(m.set, place)
}

func (m *mapRows) SingleDelete(space uint64, key []byte) {
	if n := m.set[full(space, key)]; n != 1 {
		panic(fmt.Sprintf("SingleDelete of %q in space %d, which was set %d times", key, space, n))
	}
	m.Delete(space, key)
}

func (m *mapRows) Clear(space uint64) { m.give(space, newMapRows()) }

// give moves the rows of a space to others.
func (m *mapRows) give(space uint64, to *mapRows) {
	for _, p := range slices.Clone(m.between(full(space, nil), full(space+1, nil))) {
		to.put(p, m.rows[p])
		to.set[p] = m.set[p]
		m.remove(p)
	}
}

func (m *mapRows) equal(o *mapRows) bool { return maps.EqualFunc(m.rows, o.rows, bytes.Equal) }
