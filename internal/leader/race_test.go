package leader

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// catalogRows are a catalog's rows in a map.
type catalogRows map[string]string

func (r catalogRows) Get(_ uint64, key []byte) ([]byte, bool) {
	v, ok := r[string(key)]
	return []byte(v), ok
}

func (r catalogRows) Scan(_ uint64, lo, hi []byte, visit func(k, v []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(r)) {
		if k >= string(lo) && k < string(hi) && !visit([]byte(k), []byte(r[k])) {
			return
		}
	}
}

func (r catalogRows) Set(_ uint64, key, value []byte) { r[string(key)] = string(value) }
func (r catalogRows) Delete(_ uint64, key []byte)     { delete(r, string(key)) }

// race is a worker's session, a message that it may get, and all who have a say in
// how that ends: the monitor, the catalog, and the group's leader, which hears of the
// catalog late.
type race struct {
	*rig
	rows    catalogRows
	catalog *catalog.Machine
	index   uint64
	monitor *liveness.Monitor
	lag     int // steps
	news    []news
	seen    *catalog.View // by the group's leaders
	steps   int

	session    *catalog.Session
	looked     uint64 // version of the catalog in which the session's gateways saw it
	attachment uint64 // that the worker beats at; 0: none
	dead       bool
	beats      int
	holds      []queue.LeaseRef // what the worker knows that it holds
}

// news is a version of the catalog on its way to the group's leader.
type news struct {
	at      int // step
	view    *catalog.View
	changes []catalog.Change
}

// raceStep is between an event and the next: some sessions die of what happens
// before the reconnect, and some do not.
const raceStep = 500 * time.Millisecond

func newRace(r *rig) *race {
	x := &race{rig: r, rows: catalogRows{}, catalog: catalog.New()}
	x.change(catalog.Command{Found: &catalog.Found{ClusterID: "c", Node: catalog.Node{ID: 1, Name: "a", StoreID: 1, Boot: 1}}})
	x.monitor = liveness.Lead(x.catalog.View(), r.clock.Now())
	for range 10 { // it has watched for some time
		x.next()
	}
	return x
}

// begin has a worker open a session, of which the group's leader has heard.
func (x *race) begin(lag int) {
	x.lag, x.attachment, x.dead, x.beats, x.holds = 0, 1, false, 0, nil
	x.session = x.change(catalog.Command{OpenSession: &catalog.OpenSession{Worker: "w", Incarnation: x.index, Node: 1, TTL: message.MinTTL}}).Session
	x.looked = x.catalog.View().Version
	x.next()
	x.lag = lag
}

func (x *race) change(c catalog.Command) catalog.Result {
	x.index++
	r := x.catalog.Apply(x.rows, x.index, catalog.AppendEntry(nil, []replica.Command{{Head: c.Encode()}}))[0].(catalog.Result)
	if x.monitor != nil {
		x.monitor.Learn(x.catalog.Changes(), x.clock.Now())
	}
	x.news = append(x.news, news{x.steps + x.lag, x.catalog.View(), slices.Clone(x.catalog.Changes())})
	return r
}

func (x *race) hear(v *catalog.View, changes []catalog.Change) {
	x.seen = v
	x.Learn(v, changes)
}

// report has a gateway report something of the session to the monitor.
func (x *race) report(attachment uint64, e liveness.Event) {
	x.monitor.Beat(liveness.Bundle{Node: 1, Boot: 1, Reports: []liveness.Report{{Session: x.session.ID, Incarnation: x.session.Incarnation, Attachment: attachment, Event: e}}}, x.clock.Now())
}

// lives says that the catalog has the session as live.
func (x *race) lives() bool { return x.catalog.View().Live(x.session.ID, x.session.Incarnation) }

// next lets a step of time pass.
func (x *race) next() {
	x.t.Helper()
	x.steps++
	if x.steps%2 == 0 && x.attachment > 0 && !x.dead && x.lives() { // it beats each second, and claims with every second beat
		x.report(x.attachment, liveness.Beat)
		if x.beats++; x.beats%2 == 0 {
			if _, err := x.Claim(x.t.Context(), Claim{Session: x.session.ID, Incarnation: x.session.Incarnation, Attachment: x.attachment, Holds: map[uint32][]queue.LeaseRef{1: x.holds}}); err != nil {
				x.t.Fatal(err)
			}
		}
	}
	for _, c := range x.monitor.Tick(x.clock.Now()) {
		if c.EndSession != nil {
			x.change(c)
		}
	}
	for len(x.news) > 0 && x.news[0].at <= x.steps {
		x.hear(x.news[0].view, x.news[0].changes)
		x.news = x.news[1:]
	}
	x.step(raceStep)
}

// The events of the race.
func (x *race) happen(event byte) {
	x.t.Helper()
	switch event {
	case 'L': // a lease comes that was on its way: its gateway asked before all else
		ctx, cancel := context.WithTimeout(x.t.Context(), 10*time.Second)
		defer cancel()
		c := NewCall(1, message.ReceiveOptions{Max: 1, Worker: "w"}, 1)
		c.Lease.Session = queue.Session{ID: x.session.ID, Incarnation: x.session.Incarnation, CatalogVersion: x.looked}
		x.Wait(c)
		got, err := c.Collect(ctx)
		if ctx.Err() != nil {
			x.t.Fatal("the lease was not answered")
		}
		if err == nil && x.attachment == 1 && !x.dead { // its connection still stands
			for i := range got {
				x.holds = append(x.holds, queue.LeaseRef{Cell: got[i].Ref.Cell, Seq: got[i].Ref.Seq, Fence: got[i].Fence})
			}
		}
	case 'C': // the old gateway's connection is closed, and it says so
		x.report(1, liveness.Lost)
		if x.attachment == 1 {
			x.attachment = 0
		}
	case 'R': // the worker is at a second gateway, which says so
		x.report(2, liveness.Beat)
		x.attachment = 2
	case 'D': // the worker dies
		x.dead = true
	case 'F': // another leads the group
		x.restart()
		x.Learn(x.seen, nil)
	}
}

// orders are all orders of some events.
func orders(events string) (all []string) {
	if len(events) <= 1 {
		return []string{events}
	}
	for i := range events {
		for _, rest := range orders(events[:i] + events[i+1:]) {
			all = append(all, events[i:i+1]+rest)
		}
	}
	return all
}

// A worker's death, a delayed lease, its reconnect at a second gateway, the old
// gateway's close and a change of the group's leader, in every order, and without the
// death: 2 × TTL later a message is leased only to a session that lives and whose
// worker knows of it, and what such a one holds it still holds.
func TestFenceRace(t *testing.T) {
	var held, killed, ended atomic.Int64
	t.Run("orders", func(t *testing.T) { // each first event has a group of its own
		for _, events := range []string{"LCRDF", "LCRF"} {
			for first, all := range slices.Collect(slices.Chunk(orders(events), len(orders(events[1:])))) {
				t.Run(fmt.Sprintf("%s, %c first", events, events[first]), func(t *testing.T) {
					t.Parallel()
					x := newRace(newRig(t))
					for i, order := range all {
						aware := x.run(order, i%2*3)
						if aware {
							held.Add(1)
						}
						if x.dead {
							killed.Add(1)
						}
						if !x.lives() {
							ended.Add(1)
						}
						x.end()
					}
				})
			}
		}
	})
	t.Logf("%d times it held its message, %d times it was dead, %d sessions ended", held.Load(), killed.Load(), ended.Load())
	if held.Load() == 0 || killed.Load() != 120 || ended.Load() <= killed.Load() {
		t.Error("not all that may happen has happened")
	}
}

// run has a session meet its events in an order, and says whether its worker holds the
// message in the end.
func (x *race) run(order string, lag int) (aware bool) {
	x.t.Helper()
	name := fmt.Sprintf("%s, the catalog %d steps late", order, lag)
	x.propose((&queue.Purge{Queue: 1}).Command())
	x.send(1, 0)
	x.begin(lag)
	for _, e := range []byte(order) {
		x.happen(e)
		x.next()
	}
	for range 2 * message.MinTTL / raceStep {
		x.next()
	}
	if x.dead && x.lives() {
		x.t.Fatalf("%s: the worker is dead, and its session lives", name)
	}
	if x.lives() && len(x.holds) > 0 {
		x.want(name+": it holds its message", 0, 0, 1)
		return true
	}
	x.want(name+": nobody holds the message", 1, 0, 0)
	return false
}

// end ends the session, so that the next has a group without it.
func (x *race) end() {
	x.change(catalog.Command{EndSession: &catalog.EndSession{ID: x.session.ID, Incarnation: x.session.Incarnation, Why: "goodbye"}})
	x.lag = 0
	for range 4 { // what was late comes, too
		x.next()
	}
}
