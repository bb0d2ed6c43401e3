package liveness

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// rows are the meta group's rows in a map.
type rows map[string]string

func (r rows) Get(_ uint64, key []byte) ([]byte, bool) {
	v, ok := r[string(key)]
	return []byte(v), ok
}

func (r rows) Scan(_ uint64, lo, hi []byte, visit func(key, value []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(r)) {
		if k >= string(lo) && k < string(hi) && !visit([]byte(k), []byte(r[k])) {
			return
		}
	}
}

func (r rows) Set(_ uint64, key, value []byte) { r[string(key)] = string(value) }
func (r rows) Delete(_ uint64, key []byte)     { delete(r, string(key)) }

const tick = 100 * time.Millisecond

// world is a catalog with a monitor that watches it, in fake time.
type world struct {
	t       testing.TB
	rows    rows
	catalog *catalog.Machine
	index   uint64
	monitor *Monitor
	now     time.Duration
	deaf    bool // the catalog takes nothing up
	verdict []string
}

func epoch(d time.Duration) time.Time { return time.Unix(1_000, 0).Add(d) }

// newWorld founds a cluster with two nodes, 1 and 2.
func newWorld(t testing.TB) *world {
	w := &world{t: t, rows: rows{}, catalog: catalog.New()}
	w.propose(catalog.Command{Found: &catalog.Found{ClusterID: "c", Node: catalog.Node{ID: 1, Name: "a", StoreID: 1, Boot: 1}}})
	w.propose(catalog.Command{AddNode: &catalog.AddNode{Node: catalog.Node{Name: "b", StoreID: 2, Boot: 4}}})
	w.lead()
	return w
}

func (w *world) lead() { w.monitor = Lead(w.catalog.View(), epoch(w.now)) }

func (w *world) propose(c catalog.Command) catalog.Result {
	type command struct {
		Head   []byte
		Bodies [][]byte
	}
	w.index++
	r := w.catalog.Apply(w.rows, w.index, catalog.AppendEntry(nil, []command{{Head: c.Encode()}}))
	if w.monitor != nil {
		w.monitor.Learn(w.catalog.Changes(), epoch(w.now))
	}
	return r[0].(catalog.Result)
}

// open opens session n: its id and incarnation are the next ones.
func (w *world) open(ttl time.Duration, wait bool) *catalog.Session {
	s := w.propose(catalog.Command{OpenSession: &catalog.OpenSession{Worker: fmt.Sprint("w", w.index%100), Incarnation: w.index + 1, Node: 1, TTL: ttl, Wait: wait}}).Session
	if s == nil {
		w.t.Fatal("no session")
	}
	return s
}

// tell carries reports in a bundle of node 1 and returns those that are
// answered.
func (w *world) tell(reports ...Report) []Report {
	return w.monitor.Answer(w.catalog.View(), w.monitor.Beat(Bundle{Node: 1, Boot: 1, Reports: reports}, epoch(w.now)))
}

// pass lets time pass tick by tick, with the nodes beating that are named.
func (w *world) pass(d time.Duration, beating ...uint64) {
	for end := w.now + d; w.now < end; {
		w.now += tick
		for _, n := range beating {
			w.monitor.Beat(Bundle{Node: n, Boot: 9}, epoch(w.now))
		}
		w.tick()
	}
}

// tick asks for verdicts, lets the catalog take them up and notes them.
func (w *world) tick() []catalog.Command {
	verdicts := w.monitor.Tick(epoch(w.now))
	for _, c := range verdicts {
		switch {
		case c.EndSession != nil:
			w.verdict = append(w.verdict, fmt.Sprintf("%s session %d: %s", w.now, c.EndSession.ID, c.EndSession.Why))
		case c.SetNodeState != nil:
			w.verdict = append(w.verdict, fmt.Sprintf("%s node %d: %s", w.now, c.SetNodeState.ID, c.SetNodeState.State))
		case c.SetNodeClock != nil:
			w.verdict = append(w.verdict, fmt.Sprintf("%s node %d: clock off %t", w.now, c.SetNodeClock.ID, c.SetNodeClock.Off))
		}
		if !w.deaf {
			w.propose(c)
		}
	}
	return verdicts
}

// take returns the verdicts since the last take.
func (w *world) take() []string {
	v := w.verdict
	w.verdict = nil
	return v
}
