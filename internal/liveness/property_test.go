package liveness

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// worker is a worker as it knows itself: what it did, and when.
type worker struct {
	session    *catalog.Session
	attachment uint64
	known      uint64 // newest attachment that this leader's monitor has heard of
	connected  bool
	beat       time.Duration // its newest beat that arrived
	broke      time.Duration // its connection, if it is not connected
	toldLost   bool          // and a gateway told so
	answered   time.Duration // newest beat that was answered
	dead       time.Duration // when its death was proposed; 0: it was not
}

// Workers beat, fall silent, lose their connections and come back, while the
// monitor pauses, its leader changes and the catalog takes verdicts up late. The
// checks need only what the workers themselves know:
// nobody dies whose beats were answered within the TTL and who is connected or
// came back within a second; everybody who is silent is dead within TTL and two
// ticks of watched time; nobody who is dead is answered; a worker that counts
// 0.8 × TTL from the newest answered beat stops before its death is proposed.
func TestWorkersLiveAndDie(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(nil)
		var workers []*worker
		watched, since := time.Duration(0), time.Duration(0) // the monitor's own count, and when it last resumed
		for range rapid.IntRange(1, 4).Draw(t, "workers") {
			ttl := time.Duration(rapid.IntRange(5, 12).Draw(t, "ttl")) * time.Second
			workers = append(workers, &worker{session: w.open(ttl, rapid.Bool().Draw(t, "wait"))})
		}
		for range rapid.IntRange(1, 400).Draw(t, "ticks") {
			step := tick
			switch rapid.IntRange(0, 99).Draw(t, "world") {
			case 0:
				step = time.Duration(rapid.IntRange(1, 40_000).Draw(t, "pause")) * time.Millisecond
			case 1:
				w.lead()
				since = watched
				for _, x := range workers {
					x.beat, x.known = watched, 0 // everybody has a fresh TTL
					if s, _ := w.catalog.View().Session(x.session.ID); s.Live() {
						x.dead = 0 // what was proposed is lost with its leader
					}
				}
			case 2:
				w.deaf = !w.deaf
			}
			w.now += step
			watched += min(step, maxStep)
			if step > maxStep {
				since = watched
			}
			for i, x := range workers {
				x.act(t, w, watched, fmt.Sprint("worker ", i))
			}
			for _, c := range w.tick() {
				if c.EndSession != nil {
					i := slices.IndexFunc(workers, func(x *worker) bool { return x.session.ID == c.EndSession.ID })
					workers[i].died(t, c.EndSession.Why, watched, since)
				}
			}
			for _, x := range workers {
				if x.dead == 0 && watched-x.beat > x.session.TTL+2*tick {
					t.Fatalf("session %d is silent for %s and lives", x.session.ID, watched-x.beat)
				}
			}
		}
	})
}

func (x *worker) act(t *rapid.T, w *world, now time.Duration, name string) {
	report := Report{x.session.ID, x.session.Incarnation, x.attachment, Beat}
	switch rapid.IntRange(0, 30).Draw(t, name) {
	case 0:
		if x.connected {
			x.connected, x.broke, x.toldLost = false, now, rapid.Bool().Draw(t, "told")
			if x.toldLost {
				report.Event, x.known = Lost, x.attachment
				w.tell(report)
			}
		}
	case 1, 2, 3:
		if !x.connected {
			x.attachment, x.connected = x.attachment+1, true
			report.Attachment = x.attachment
			x.tell(t, w, report, now)
		}
	case 4, 5, 6:
		if x.connected {
			x.tell(t, w, report, now)
		}
	case 7:
		if x.attachment > 1 { // an old gateway tells what it knows
			report.Attachment, report.Event = x.attachment-1, Event(rapid.IntRange(0, 2).Draw(t, "old"))
			if x.known == x.attachment && len(w.tell(report)) > 0 {
				t.Fatal("a beat of an old connection was answered")
			}
		}
	}
}

// tell sends a beat.
func (x *worker) tell(t *rapid.T, w *world, r Report, now time.Duration) {
	answered := len(w.tell(r)) > 0
	x.known = x.attachment
	switch {
	case answered && x.dead > 0:
		t.Fatalf("session %d was answered after its death was proposed", x.session.ID)
	case answered:
		x.beat, x.answered = now, now
	case x.dead == 0:
		t.Fatalf("session %d lives and was not answered", x.session.ID)
	}
}

// died checks that a death was due.
func (x *worker) died(t *rapid.T, why string, now, since time.Duration) {
	if x.dead > 0 {
		return // proposed again
	}
	x.dead = now
	silent := now-x.beat >= x.session.TTL
	lost := !x.connected && x.toldLost && !x.session.Wait && now-x.broke >= Reconnect && now >= since
	// A new leader that hears only of an older connection waits for two beats of a
	// newer one.
	unheard := x.known < x.attachment && now-x.beat >= SuspectAfter(x.session.TTL)
	if !silent && !lost && !unheard {
		t.Fatalf("session %d is dead (%s) at %s; its last beat came at %s, connected: %t", x.session.ID, why, now, x.beat, x.connected)
	}
	if silent && now-x.answered < x.session.TTL*8/10 {
		t.Fatalf("session %d is dead %s after a beat that was answered", x.session.ID, now-x.answered)
	}
}
