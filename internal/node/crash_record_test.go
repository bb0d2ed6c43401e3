package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/state"
)

// modelRows are rows in memory, with a sum over all of them that changes with
// each.
type modelRows struct {
	spaces map[uint64]*modelSpace
	sum    uint64
}

type modelSpace struct {
	keys []string // sorted
	rows map[string][]byte
}

func newModelRows() *modelRows { return &modelRows{spaces: map[uint64]*modelSpace{}} }

func (m *modelRows) space(n uint64) *modelSpace {
	s := m.spaces[n]
	if s == nil {
		s = &modelSpace{rows: map[string][]byte{}}
		m.spaces[n] = s
	}
	return s
}

func (m *modelRows) Get(space uint64, key []byte) ([]byte, bool) {
	v, ok := m.space(space).rows[string(key)]
	return slices.Clone(v), ok
}

func (m *modelRows) Has(space uint64, key []byte) bool {
	_, ok := m.space(space).rows[string(key)]
	return ok
}

func (m *modelRows) Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool) {
	s := m.space(space)
	from, _ := slices.BinarySearch(s.keys, string(lo))
	for _, k := range s.keys[from:] {
		if k >= string(hi) || !visit([]byte(k), s.rows[k]) {
			return
		}
	}
}

func (m *modelRows) Set(space uint64, key, value []byte) {
	s := m.space(space)
	if old, ok := s.rows[string(key)]; ok {
		m.sum -= rowSum(space, key, old)
	} else {
		at, _ := slices.BinarySearch(s.keys, string(key))
		s.keys = slices.Insert(s.keys, at, string(key))
	}
	s.rows[string(key)] = slices.Clone(value)
	m.sum += rowSum(space, key, value)
}

func (m *modelRows) Delete(space uint64, key []byte) {
	s := m.space(space)
	if old, ok := s.rows[string(key)]; ok {
		m.sum -= rowSum(space, key, old)
		at, _ := slices.BinarySearch(s.keys, string(key))
		s.keys = slices.Delete(s.keys, at, at+1)
		delete(s.rows, string(key))
	}
}

func (m *modelRows) SingleDelete(space uint64, key []byte) { m.Delete(space, key) }

func (m *modelRows) Clear(space uint64) {
	for _, k := range slices.Clone(m.space(space).keys) {
		m.Delete(space, []byte(k))
	}
}

// SpinOff is not part of this workload.
func (m *modelRows) SpinOff(uint64, map[uint64]uint64, []uint64) (func(key, value []byte), *message.Error) {
	panic("the recorded groups spin nothing off")
}

func rowSum(space uint64, key, value []byte) uint64 {
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64(nil, space))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(key))))
	h.Write(key)
	h.Write(value)
	return h.Sum64()
}

// firstDifference names a row that is not the same in both.
func (m *modelRows) firstDifference(o *modelRows) string {
	for _, space := range slices.Sorted(maps.Keys(m.spaces)) {
		for _, k := range m.space(space).keys {
			if v, ok := o.Get(space, []byte(k)); !ok || string(v) != string(m.space(space).rows[k]) {
				return fmt.Sprintf("space %d key %q: %q, want %q (there: %v)", space, k, v, m.space(space).rows[k], ok)
			}
		}
	}
	for _, space := range slices.Sorted(maps.Keys(o.spaces)) {
		for _, k := range o.space(space).keys {
			if !m.Has(space, []byte(k)) {
				return fmt.Sprintf("space %d key %q is one too many", space, k)
			}
		}
	}
	return "none"
}

// applier is what a machine of a group and its model have in common.
type applier func(rows replica.Rows, index uint64, entry []byte) []any

func newApplier(group uint64) applier {
	if group == catalog.MetaGroup {
		m := catalog.New()
		return func(rows replica.Rows, index uint64, entry []byte) []any { return m.Apply(rows, index, entry) }
	}
	m := queue.New()
	return func(rows replica.Rows, index uint64, entry []byte) []any { return m.Apply(rows, index, entry) }
}

// recorder has all entries that a node applied, and what its rows must be after
// each of them.
type recorder struct {
	mu     sync.Mutex
	groups map[uint64]*record
	news   chan struct{} // closed and replaced with each entry
}

// record is one group's.
type record struct {
	entries []recorded
	rows    *modelRows
	apply   applier
}

type recorded struct {
	index  uint64
	entry  []byte
	sum    uint64         // of the rows
	counts message.Counts // of all its queues
}

func newRecorder() *recorder {
	return &recorder{groups: map[uint64]*record{}, news: make(chan struct{})}
}

// watch is Config.watch.
func (r *recorder) watch(g *replica.Group, m replica.StateMachine) replica.StateMachine {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups[g.ID()] = &record{rows: newModelRows(), apply: newApplier(g.ID())}
	return &recordedMachine{StateMachine: m, group: g.ID(), recorder: r}
}

// recordedMachine passes each entry on to the recorder.
type recordedMachine struct {
	replica.StateMachine
	group    uint64
	recorder *recorder
}

func (m *recordedMachine) Apply(rows replica.Rows, index uint64, entry []byte) []any {
	m.recorder.add(m.group, index, entry)
	return m.StateMachine.Apply(rows, index, entry)
}

func (r *recorder) add(group, index uint64, entry []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[group]
	g.apply(g.rows, index, entry)
	now := recorded{index: index, entry: entry, sum: g.rows.sum}
	if group != catalog.MetaGroup {
		for _, q := range queue.Queues(g.rows) {
			now.counts.Add(q.Counts())
		}
	}
	g.entries = append(g.entries, now)
	close(r.news)
	r.news = make(chan struct{})
}

// after waits until an entry is recorded and returns what holds after it.
func (r *recorder) after(ctx context.Context, group, index uint64) (recorded, error) {
	for {
		r.mu.Lock()
		g, news := r.groups[group], r.news
		at, found := slices.BinarySearchFunc(g.entries, index, func(e recorded, index uint64) int { return int(e.index) - int(index) })
		if found || at < len(g.entries) { // an index between is an entry without a command
			defer r.mu.Unlock()
			if !found {
				at--
			}
			return g.entries[at], nil
		}
		r.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return recorded{}, fmt.Errorf("group %d has an entry %d that the node never applied", group, index)
		}
	}
}

// changes has a sum over each group's rows, without its time: what a tick leaves
// as it is.
func (r *recorder) changes() map[uint64]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	sums := map[uint64]uint64{}
	for group, g := range r.groups {
		sums[group] = g.rows.sum
		if row, ok := g.rows.Get(state.GroupSpace, []byte{'g'}); ok && group != catalog.MetaGroup { // has the time
			sums[group] -= rowSum(state.GroupSpace, []byte{'g'}, row)
		}
	}
	return sums
}

// replay makes the rows as they must be after an entry, from nothing.
func (r *recorder) replay(group, index uint64) *modelRows {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows, apply := newModelRows(), newApplier(group)
	for _, e := range r.groups[group].entries {
		if e.index <= index {
			apply(rows, e.index, e.entry)
		}
	}
	return rows
}
