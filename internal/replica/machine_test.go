package replica

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/state"
)

// counterMachine is a state machine of named counters: the command "name" adds one to
// a counter and its result is the counter's new value. It keeps, beside them, a
// row that moves with each entry (set once, SingleDelete) and a space that is
// cleared now and then, so that replays meet all kinds of writes.
type counterMachine struct {
	mu    sync.Mutex
	group *Group
	leads []uint64 // Lead's terms; 0 for Follow
	seen  []uint64 // indexes that Apply saw
	log   [][]byte // and their entries
	gate  chan struct{}
}

const (
	counterSpace = 7
	churnSpace   = 8
)

func (m *counterMachine) Join(buf []byte, cmds []Command) []byte {
	for _, c := range cmds {
		n := len(c.Head)
		for _, b := range c.Bodies {
			n += len(b)
		}
		buf = binary.AppendUvarint(buf, uint64(n))
		buf = append(buf, c.Head...)
		for _, b := range c.Bodies {
			buf = append(buf, b...)
		}
	}
	return buf
}

func splitEntry(entry []byte) (names []string) {
	for len(entry) > 0 {
		n, k := binary.Uvarint(entry)
		names = append(names, string(entry[k:k+int(n)]))
		entry = entry[k+int(n):]
	}
	return names
}

func (m *counterMachine) Applied() {}

func (m *counterMachine) Apply(rows Rows, index uint64, entry []byte) []any {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		<-gate
	}
	m.mu.Lock()
	m.seen = append(m.seen, index)
	m.log = append(m.log, entry)
	m.mu.Unlock()
	return applyCounters(rows, index, entry)
}

func applyCounters(rows Rows, index uint64, entry []byte) []any {
	var results []any
	for _, name := range splitEntry(entry) {
		if refusal, ok := spin(rows, name); ok {
			results = append(results, refusal)
			continue
		}
		key := []byte(name)
		var n uint64
		if v, ok := rows.Get(counterSpace, key); ok {
			n = binary.BigEndian.Uint64(v)
		}
		n++
		rows.Set(counterSpace, key, binary.BigEndian.AppendUint64(nil, n))
		results = append(results, n)
	}
	churn(rows, index)
	return results
}

// spin spins the counters off to another group, whose replicas have the ids of
// this one's: the command "spin GROUP REPLICAS".
func spin(rows Rows, name string) (refusal *message.Error, ok bool) {
	var group, n uint64
	if read, _ := fmt.Sscanf(name, "spin %d %d", &group, &n); read != 2 {
		return nil, false
	}
	replicas := map[uint64]uint64{}
	for id := uint64(1); id <= n; id++ {
		replicas[id] = id
	}
	set, refusal := rows.SpinOff(group, replicas, []uint64{counterSpace})
	if refusal == nil {
		set([]byte("spun"), []byte("off"))
	}
	return refusal, true
}

func churn(rows Rows, index uint64) {
	at := func(i uint64) []byte { return binary.BigEndian.AppendUint64([]byte("at"), i) }
	rows.Scan(state.GroupSpace, []byte("at"), []byte("au"), func(k, _ []byte) bool {
		rows.SingleDelete(state.GroupSpace, append([]byte(nil), k...))
		return true
	})
	rows.Set(state.GroupSpace, at(index), []byte("moves"))
	if index%7 == 0 {
		rows.Clear(churnSpace)
	}
	rows.Set(churnSpace, at(index), []byte("stays for a while"))
	rows.Delete(churnSpace, at(index-3))
}

func (m *counterMachine) Lead(term uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.leads); n > 0 && m.leads[n-1] != 0 {
		panic(fmt.Sprintf("Lead(%d) after Lead(%d)", term, m.leads[n-1]))
	}
	m.leads = append(m.leads, term)
}

func (m *counterMachine) Follow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.leads); n == 0 || m.leads[n-1] == 0 {
		panic("Follow without Lead")
	}
	m.leads = append(m.leads, 0)
}

// mapRows are rows in a map: what the rows of a replica must be like.
type mapRows map[uint64]map[string]string

func (r mapRows) Get(space uint64, key []byte) ([]byte, bool) {
	v, ok := r[space][string(key)]
	return []byte(v), ok
}

func (r mapRows) Has(space uint64, key []byte) bool {
	_, ok := r[space][string(key)]
	return ok
}

func (r mapRows) Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(r[space])) {
		if k >= string(lo) && k < string(hi) && !visit([]byte(k), []byte(r[space][k])) {
			return
		}
	}
}

func (r mapRows) Set(space uint64, key, value []byte) {
	if r[space] == nil {
		r[space] = map[string]string{}
	}
	r[space][string(key)] = string(value)
}

func (r mapRows) Delete(space uint64, key []byte)       { delete(r[space], string(key)) }
func (r mapRows) SingleDelete(space uint64, key []byte) { delete(r[space], string(key)) }
func (r mapRows) Clear(space uint64)                    { delete(r, space) }

// SpinOff leaves nothing behind: the child's rows are looked at where they are.
func (r mapRows) SpinOff(_ uint64, _ map[uint64]uint64, spaces []uint64) (func(key, value []byte), *message.Error) {
	for _, space := range spaces {
		r.Clear(space)
	}
	return func(_, _ []byte) {}, nil
}

// hashes are those of the rows after each of the machine's entries, in a map.
func (m *counterMachine) hashes() map[uint64]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := mapRows{}
	all := map[uint64]bool{hashRows(rows): true}
	for i, entry := range m.log {
		applyCounters(rows, m.seen[i], entry)
		all[hashRows(rows)] = true
	}
	return all
}

// scanner is what hash and count read.
type scanner interface {
	Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool)
	Get(space uint64, key []byte) ([]byte, bool)
}

func hashRows(v scanner) uint64 {
	h := fnv.New64a()
	for _, space := range []uint64{state.GroupSpace, counterSpace, churnSpace} {
		v.Scan(space, nil, []byte{0xff}, func(key, value []byte) bool {
			fmt.Fprintf(h, "%d %d %q=%q ", space, len(key), key, value)
			return true
		})
	}
	return h.Sum64()
}

func readCount(v scanner, name string) uint64 {
	if b, ok := v.Get(counterSpace, []byte(name)); ok {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
