package leader

import (
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/placement"
)

// worker is one that receives from a line.
type worker struct {
	name  string
	id    uint64 // the same at every leader
	of    *workers
	calls []*Call   // of it that wait here, in the order of waiting
	peeks int       // of it at other nodes that wait to be beckoned
	load  int       // messages of the line that it holds, or that are on their way to it
	seen  time.Time // when it last waited
	// While grants are made: it takes from calls[at] on, for which the grant of
	// this number was begun; 0: none.
	at, grant int
}

// workers are those of a line: who waits, holds something, or waited lately.
// Whoever does none of that is forgotten when the next one comes.
type workers struct {
	by      map[uint64]*worker // by id
	waiting []*worker          // those with calls, in the order of waiting
	calls   int                // of all
	load    int                // of all
	looked  time.Time          // for those to forget

	// Who there is, for placement, and for each class of keys the one that is
	// preferred. Both are made when they are needed, and anew when a worker comes
	// or is forgotten.
	members   []placement.Member
	preferred []*worker
}

const (
	// lately is how long a worker that neither waits nor holds anything has keys
	// all the same: between two receives it does neither.
	lately = 10 * time.Second
	// classes are parts of the keys: the keys of one prefer the same worker.
	classes = 1 << 10
)

// classOf is the class of a key, from its hash. The upper bits would not do: a
// group may have only keys with the same ones.
func classOf(key uint64) uint64 { return key % classes }

// workerID is a worker's id among the workers of any line.
func workerID(name string) uint64 { return message.HashKey(&message.Secret{}, name).Hi }

func newWorkers() workers { return workers{by: map[uint64]*worker{}} }

// get returns the worker of a name, which is new perhaps.
func (ws *workers) get(name string, now time.Time) *worker {
	id := workerID(name)
	w := ws.by[id]
	if w == nil {
		ws.forget(now)
		w = &worker{name: name, id: id, of: ws, seen: now}
		ws.by[id] = w
		ws.changed()
	}
	return w
}

func (ws *workers) changed() {
	ws.members = ws.members[:0]
	clear(ws.preferred)
}

// forget forgets who was not seen lately.
func (ws *workers) forget(now time.Time) {
	if now.Sub(ws.looked) < lately/10 {
		return
	}
	ws.looked = now
	for id, w := range ws.by {
		if len(w.calls)+w.peeks+w.load == 0 && now.Sub(w.seen) >= lately {
			delete(ws.by, id)
			ws.changed()
		}
	}
}

// wait adds a call to those that wait, unless it does already.
func (w *worker) wait(c *Call, now time.Time) {
	w.seen = now
	if slices.Contains(w.calls, c) {
		return
	}
	if len(w.calls) == 0 {
		w.of.waiting = append(w.of.waiting, w)
	}
	w.calls = append(w.calls, c)
	w.of.calls++
}

// leave takes a call out that waits no more.
func (ws *workers) leave(c *Call) {
	if w := ws.by[workerID(c.Worker)]; w != nil {
		w.leave(c)
	}
}

func (w *worker) leave(c *Call) {
	i := slices.Index(w.calls, c)
	if i < 0 {
		return
	}
	w.calls = slices.Delete(w.calls, i, i+1)
	w.of.calls--
	if len(w.calls) == 0 {
		i := slices.Index(w.of.waiting, w)
		w.of.waiting = slices.Delete(w.of.waiting, i, i+1)
	}
}

// take counts messages that the worker holds now, or with n < 0 no more.
func (w *worker) take(n int) {
	w.load += n
	w.of.load += n
}

// all are the calls that wait.
func (ws *workers) all() []*Call {
	calls := make([]*Call, 0, ws.calls)
	for _, w := range ws.waiting {
		calls = append(calls, w.calls...)
	}
	return calls
}

// prefers is the worker that a class of keys prefers, whether it waits or not.
func (ws *workers) prefers(class uint64) *worker {
	if ws.preferred == nil {
		ws.preferred = make([]*worker, classes)
	}
	w := ws.preferred[class]
	if w == nil {
		id, _ := placement.Owner(class, ws.who())
		w = ws.by[id]
		ws.preferred[class] = w
	}
	return w
}

// who are all workers as members of equal weight, without their loads.
func (ws *workers) who() []placement.Member {
	if len(ws.members) == 0 {
		for id := range ws.by {
			ws.members = append(ws.members, placement.Member{ID: id, Weight: 1})
		}
	}
	return ws.members
}
