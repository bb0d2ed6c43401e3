package liveness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// heard is what is heard from session 1 at a time.
type heard struct {
	at         time.Duration
	event      Event
	attachment uint64
}

const (
	ms = time.Millisecond
	s  = time.Second
)

// beats of an attachment every 2 s.
func beats(from, to time.Duration, attachment uint64) (all []heard) {
	for at := from; at <= to; at += 2 * s {
		all = append(all, heard{at, Beat, attachment})
	}
	return all
}

// The monitor tells to whom a worker is connected and when it was heard: of a beat
// that comes again, of a connection that is lost, and nothing of who has ended.
func TestHeard(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(10*s, true), w.open(10*s, true)
	tell := func(node, attachment uint64, e Event) {
		w.monitor.Beat(Bundle{Node: node, Boot: 9, Reports: []Report{{Session: a.ID, Incarnation: a.Incarnation, Attachment: attachment, Event: e}}}, epoch(w.now))
	}
	want := func(what string, of Heard) {
		t.Helper()
		if got := w.monitor.Heard([]uint64{a.ID, 99}, epoch(w.now)); len(got) != 1 || got[a.ID] != of {
			t.Errorf("%s: %+v, want %+v", what, got, of)
		}
	}
	w.pass(3*s, 1, 2)
	want("before it was heard", Heard{Silent: 3 * s})
	tell(1, 1, Beat)
	w.pass(1*s, 1, 2)
	want("it has beaten", Heard{Node: 1, Silent: s})
	tell(1, 1, Lost)
	w.pass(1*s, 1, 2)
	want("its connection is lost", Heard{Node: 1, Silent: 2 * s, Lost: true})
	tell(2, 2, Beat)
	want("it is back, elsewhere", Heard{Node: 2})
	tell(1, 1, Beat)
	want("a beat of its older connection", Heard{Node: 2})
	w.pass(10*s, 1, 2)
	if got := w.monitor.Heard([]uint64{a.ID, b.ID}, epoch(w.now)); len(got) > 0 {
		t.Errorf("after their ends: %+v", got)
	}
}

// When a worker is dead: the table of the design, row by row. The watch began 10
// s before what is heard, except where a case says otherwise.
func TestWorkerIsDead(t *testing.T) {
	flapping := []heard{}
	for n := range uint64(60) {
		at := time.Duration(n) * 500 * ms
		flapping = append(flapping, heard{at, Beat, n + 1}, heard{at + 400*ms, Lost, n + 1})
	}
	for _, c := range []struct {
		name  string
		ttl   time.Duration
		wait  bool
		young bool // the watch began just now
		heard [][]heard
		want  string // "" : it lives for 30 s
	}{
		{name: "it beats", heard: [][]heard{beats(0, 30*s, 1)}},
		{name: "goodbye: at once", heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Goodbye, 1}}}, want: "5s session 1: goodbye"},
		{name: "connection lost: after 1 s", heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Lost, 1}}}, want: "6s session 1: connection lost"},
		{name: "unless it reconnects", heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Lost, 1}}, beats(5900*ms, 30*s, 2)}},
		{name: "too late", heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Lost, 1}}, beats(6100*ms, 30*s, 2)}, want: "6s session 1: connection lost"},
		{name: "on_disconnect: wait", wait: true, heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Lost, 1}}}, want: "14s session 1: silent for 10s"},
		{name: "silence: after the TTL", heard: [][]heard{beats(0, 4*s, 1)}, want: "14s session 1: silent for 10s"},
		{name: "silence: after a short TTL", ttl: 5 * s, heard: [][]heard{beats(0, 4*s, 1)}, want: "9s session 1: silent for 5s"},
		{name: "never connected", heard: [][]heard{{}}, want: "10s session 1: silent for 10s"},
		{name: "a report of an older connection", heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Beat, 2}, {5100 * ms, Lost, 1}}, beats(6*s, 30*s, 2)}},
		{name: "a goodbye of an older connection", heard: [][]heard{{{0, Beat, 2}, {1 * s, Goodbye, 1}}, beats(2*s, 30*s, 2)}},
		{name: "beats of a connection that is broken", heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Lost, 1}}, beats(5200*ms, 30*s, 1)}, want: "6s session 1: connection lost"},
		{name: "beats of an older connection", heard: [][]heard{{{0, Beat, 2}}, beats(1*s, 30*s, 1)}, want: "10s session 1: silent for 10s"},
		{name: "a connection that broke before it was heard", heard: [][]heard{beats(0, 4*s, 1), {{5 * s, Lost, 2}}}, want: "6s session 1: connection lost"},
		{name: "a stream that flaps every 500 ms", heard: [][]heard{flapping}},
		{name: "just after the watch began: a newer connection is heard first", young: true, heard: [][]heard{{{100 * ms, Lost, 1}}, beats(2*s, 30*s, 2)}},
		{name: "just after the watch began: there is none", young: true, heard: [][]heard{{{100 * ms, Lost, 1}}}, want: "5s session 1: connection lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.open(c.ttl, c.wait)
			if !c.young {
				w.now = -10 * s
				w.lead()
				for w.now < 0 {
					w.now += tick
					w.monitor.advance(epoch(w.now))
				}
				w.monitor.sessions[1].seen = w.monitor.now
			}
			all := slices.Concat(c.heard...)
			slices.SortStableFunc(all, func(a, b heard) int { return int(a.at - b.at) })
			session, _ := w.catalog.View().Session(1)
			for w.now < 30*s {
				for len(all) > 0 && all[0].at <= w.now {
					w.tell(Report{1, session.Incarnation, all[0].attachment, all[0].event})
					all = all[1:]
				}
				w.tick()
				w.now += tick
			}
			got := slices.DeleteFunc(w.take(), func(v string) bool { return strings.Contains(v, "node") })
			if strings.Join(got, "; ") != c.want {
				t.Errorf("verdicts %q, want %q", got, c.want)
			}
		})
	}
}

// Nodes: alive, suspect after 3 s, down after 10 s, removed after 10 min; a beat
// makes one alive again unless it was removed.
func TestNodeIsDead(t *testing.T) {
	w := newWorld(t)
	expect := func(what string, want ...string) {
		t.Helper()
		if got := w.take(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	w.pass(20*s, 1, 2)
	expect("both beat")
	w.pass(15*s, 1)
	expect("silence", "23s node 2: suspect", "30s node 2: down")
	w.pass(1*s, 1, 2)
	expect("a beat", "35.1s node 2: alive")
	w.pass(5*s, 1)
	w.monitor.Beat(Bundle{Node: 2, Boot: 3}, epoch(w.now))
	w.pass(100*ms, 1)
	expect("silence, and a beat of an earlier start", "39s node 2: suspect")
	w.monitor.Beat(Bundle{Node: 2, Boot: 4}, epoch(w.now))
	w.pass(10*time.Minute, 1)
	expect("a beat, then silence for 10 min", "41.2s node 2: alive", "44.1s node 2: suspect", "51.1s node 2: down", "10m41.1s node 2: removed")
	w.pass(1*s, 1, 2)
	expect("a removed node beats")
}

// A new leader takes nobody for alive whom it has not heard, and nobody for dead
// before its time.
func TestNewLeaderHasHeardNobody(t *testing.T) {
	w := newWorld(t)
	id := w.open(0, false)
	w.pass(9*s, 1, 2)
	w.pass(12*s, 1)
	if got := w.take(); len(got) != 3 {
		t.Fatalf("%q", got)
	}
	other := w.open(0, false)
	w.pass(9*s, 1)
	w.lead()
	w.pass(9900*ms, 1)
	if got := w.take(); len(got) != 0 {
		t.Errorf("a new leader knows at once: %q", got)
	}
	w.pass(100*ms, 1)
	if got := w.take(); len(got) != 1 || !strings.Contains(got[0], "silent") {
		t.Errorf("of session %d, not of %d: %q", other.ID, id.ID, got)
	}
}

// The monitor's own pause expires nobody, and nobody is taken for lost whose new
// connection was heard of late.
func TestPauseExpiresNobody(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(5*s, false), w.open(5*s, false)
	w.pass(4*s, 1, 2)
	w.tell(Report{a.ID, a.Incarnation, 1, Beat}, Report{b.ID, b.Incarnation, 1, Beat})
	w.pass(2*s, 1, 2)
	w.now += time.Hour
	w.tell(Report{b.ID, b.Incarnation, 1, Lost})
	w.pass(1500*ms, 1, 2)
	w.tell(Report{b.ID, b.Incarnation, 2, Beat})
	if got := w.take(); len(got) != 0 {
		t.Fatalf("after the pause: %q", got)
	}
	w.pass(2*s, 1, 2)
	if got := w.take(); len(got) != 1 || !strings.Contains(got[0], "session 1: silent") {
		t.Errorf("who stays silent dies all the same: %q", got)
	}
}

// Pauses again and again make the monitor slow, not blind.
func TestSlowTicksStillFindTheDead(t *testing.T) {
	w := newWorld(t)
	w.open(5*s, false)
	for range 10 {
		w.now += 700 * ms
		w.tick()
	}
	if got := w.take(); !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, "session 1: silent") }) {
		t.Errorf("%q", got)
	}
}

// From the moment a death is proposed nothing that the session says is answered,
// whether the catalog has heard of the death or not.
func TestDeadAreNotAnswered(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(5*s, false), w.open(5*s, false)
	beat := func(x *catalog.Session, attachment uint64) Report {
		return Report{x.ID, x.Incarnation, attachment, Beat}
	}
	if got := w.tell(beat(a, 1), beat(b, 1), Report{a.ID, a.Incarnation + 1, 1, Beat}, Report{99, 1, 1, Beat}); !slices.Equal(got, []Report{beat(a, 1), beat(b, 1)}) {
		t.Fatalf("answered: %v", got)
	}
	w.deaf = true
	w.pass(4900*ms, 1, 2)
	w.tell(beat(b, 1))
	waiting := w.monitor.Beat(Bundle{Node: 1, Boot: 1, Reports: []Report{beat(a, 1)}}, epoch(w.now)) // lives, and waits for the ReadIndex
	w.pass(5*s, 1, 2)
	if got := w.monitor.Answer(w.catalog.View(), waiting); len(got) != 0 {
		t.Errorf("answered after its death was proposed: %v", got)
	}
	if got := w.tell(beat(a, 2), beat(b, 2)); len(got) != 0 {
		t.Errorf("answered after its death was proposed: %v", got)
	}
	if got := w.take(); len(got) != 2 {
		t.Fatalf("%q", got)
	}
	w.pass(5*s, 1, 2)
	if got := w.take(); len(got) != 2 {
		t.Errorf("what the catalog did not take up is proposed again: %q", got)
	}
	w.deaf = false
	w.pass(10*s, 1, 2)
	w.take()
	w.pass(10*s, 1, 2)
	if got := w.take(); len(got) != 0 {
		t.Errorf("and what it took up is not: %q", got)
	}
	// The catalog ends a session that this monitor takes for alive.
	c := w.open(5*s, false)
	waiting = w.monitor.Beat(Bundle{Node: 1, Boot: 1, Reports: []Report{beat(c, 1)}}, epoch(w.now))
	watching := w.monitor
	w.monitor = nil // it has not learned it yet
	w.propose(catalog.Command{EndSession: &catalog.EndSession{ID: c.ID, Incarnation: c.Incarnation, Why: "replaced"}})
	w.monitor = watching
	if got := w.monitor.Answer(w.catalog.View(), waiting); len(got) != 0 {
		t.Errorf("answered after its end: %v", got)
	}
}

// A node that is not in the cluster, or an earlier start of one, carries nothing.
func TestStrangersCarryNothing(t *testing.T) {
	w := newWorld(t)
	a := w.open(0, false)
	for _, b := range []Bundle{{Node: 3, Boot: 1}, {Node: 2, Boot: 3}} {
		b.Reports = []Report{{a.ID, a.Incarnation, 1, Beat}}
		if got := w.monitor.Beat(b, epoch(w.now)); len(got) != 0 {
			t.Errorf("%+v counts", b)
		}
	}
}

// A thousand that die at once make entries of bounded size, and all are dead
// within a few ticks.
func TestThousandDieAtOnce(t *testing.T) {
	w := newWorld(t)
	for range 1_000 {
		w.open(5*s, false)
	}
	w.deaf = true
	w.pass(4900*ms, 1, 2)
	proposed := 0
	for range 3 {
		w.now += tick
		n := len(w.tick())
		if n > maxVerdicts {
			t.Errorf("%d verdicts in one tick", n)
		}
		proposed += n
	}
	if proposed != 1_000 {
		t.Errorf("%d of 1,000 are dead", proposed)
	}
}

// Ended sessions are remembered for 10 min, as long as they are not too many.
func TestEndedAreForgotten(t *testing.T) {
	w := newWorld(t)
	left := func() int { return len(w.catalog.View().Sessions()) }
	end := func() {
		x := w.open(0, false)
		w.propose(catalog.Command{EndSession: &catalog.EndSession{ID: x.ID, Incarnation: x.Incarnation, Why: "goodbye"}})
	}
	end()
	w.pass(5*time.Minute, 1, 2)
	end()
	w.pass(5*time.Minute-tick, 1, 2)
	if left() != 2 {
		t.Fatalf("%d of 2 are remembered for 10 min", left())
	}
	w.pass(tick, 1, 2)
	if left() != 1 {
		t.Fatalf("%d are remembered, 1 of them for 5 min", left())
	}
	w.lead()
	w.pass(10*time.Minute-tick, 1, 2)
	if left() != 1 {
		t.Fatal("a new leader forgets what it has not watched")
	}
	w.pass(tick, 1, 2)
	if left() != 0 {
		t.Fatal("a new leader forgets nothing")
	}
	for i := range maxEnded + 2 {
		end()
		if i%500 == 0 {
			w.pass(tick, 1, 2)
		}
	}
	if w.pass(tick, 1, 2); left() != maxEnded {
		t.Errorf("%d are remembered", left())
	}
}

func TestManyNodesAreSuspectAtOnce(t *testing.T) {
	w := newWorld(t)
	for i := range uint64(maxVerdicts) {
		w.propose(catalog.Command{AddNode: &catalog.AddNode{Node: catalog.Node{Name: fmt.Sprint(i), StoreID: i + 3}}})
	}
	w.pass(2900 * ms)
	w.now += tick
	if n := len(w.tick()); n != maxVerdicts {
		t.Errorf("%d verdicts in one tick", n)
	}
	w.now += tick
	if n := len(w.tick()); n != 2 {
		t.Errorf("%d verdicts in the next", n)
	}
}
