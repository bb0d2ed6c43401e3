package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/raftlog"
)

// task is one step of an apply worker.
type task struct {
	entry     *raftpb.Entry // to apply; nil for the others
	ours      []proposal    // whose commands it holds, if it was proposed here
	proposed  time.Time     // when it was, if it was here
	committed time.Time     // likewise
	conf      []byte        // the configuration from this entry on, if it changes
	role      bool          // lead changes: a term in which this replica leads, or 0
	lead      uint64
	last      func() // the replica is destroyed: the worker's last step
}

// queue is the way from the loop to a worker. The loop looks whether it is full
// before it asks raft for more, and never waits.
type queue struct {
	mu     sync.Mutex
	tasks  []task
	closed bool
	wake   chan struct{} // one slot
	queued atomic.Int64  // entries that are not applied yet
	bytes  atomic.Int64  // theirs
	// wanted is set by the loop when it waits for the worker to catch up.
	wanted atomic.Bool
}

func (q *queue) push(t task) {
	if t.entry != nil {
		q.queued.Add(1)
		q.bytes.Add(int64(len(t.entry.GetData())))
	}
	q.mu.Lock()
	q.tasks = append(q.tasks, t)
	q.mu.Unlock()
	q.rouse()
}

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) applied(e *raftpb.Entry) {
	q.queued.Add(-1)
	q.bytes.Add(-int64(len(e.GetData())))
}

// full says that the worker has enough to do; it will mark the group when it
// has caught up.
func (q *queue) full() bool {
	if !q.over() {
		return false
	}
	q.wanted.Store(true)
	return q.over() // it may have caught up before it could see that it is wanted
}

func (q *queue) over() bool {
	return q.queued.Load() >= maxQueued || q.bytes.Load() >= maxQueuedBytes
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.rouse()
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// next waits for tasks; nil when the queue is closed. done is the slice that it
// returned last, to be used again.
func (q *queue) next(done []task) []task {
	clear(done)
	for {
		tasks, closed := q.take(done)
		if closed || len(tasks) > 0 {
			return tasks
		}
		<-q.wake
	}
}

// take takes what there is, without waiting.
func (q *queue) take(done []task) (tasks []task, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.tasks) == 0 {
		return nil, q.closed
	}
	tasks = q.tasks
	q.tasks = done[:0]
	return tasks, false
}

// putBack returns tasks that were not done, for rest.
func (q *queue) putBack(tasks []task) {
	q.mu.Lock()
	q.tasks = slices.Concat(tasks, q.tasks)
	q.mu.Unlock()
}

// rest is what was not done when the worker has ended.
func (q *queue) rest() []task { return q.tasks }

// worker applies the entries of one group, in order.
type worker struct {
	g    *Group
	conf []byte   // encoded configuration as of the last entry
	row  []byte   // scratch
	rows applying // of the entry
	// children are what the entry has spun off.
	children []child
	want     uint64 // term in which this replica leads, or 0
	leading  bool   // Lead was called, and Follow not yet
}

// startWorker starts the apply worker of a group.
func (h *Host) startWorker(g *Group) {
	w := &worker{g: g, conf: g.startConf}
	w.rows.worker = w
	if h.stepped {
		h.inline = append(h.inline, w)
		return
	}
	h.workers.Go(w.run)
}

// run does tasks until the queue is closed.
func (w *worker) run() {
	if w.g.after != nil {
		<-w.g.after
	}
	var tasks []task
	for {
		if tasks = w.g.queue.next(tasks); tasks == nil || !w.some(tasks) {
			break
		}
	}
	w.end()
}

// drain does the tasks that there are, and says whether more may come.
func (w *worker) drain() bool {
	for {
		tasks, closed := w.g.queue.take(nil)
		switch {
		case closed || len(tasks) > 0 && !w.some(tasks):
			w.end()
			return false
		case len(tasks) == 0:
			return true
		}
	}
}

// some does tasks, and says whether the worker goes on.
func (w *worker) some(tasks []task) bool {
	goesOn := w.runTasks(tasks)
	if goesOn && w.g.queue.wanted.Swap(false) {
		w.g.host.mark(w.g)
	}
	return goesOn
}

func (w *worker) end() {
	w.follow()
	for _, t := range w.g.queue.rest() {
		if t.last != nil { // it failed on the way there
			t.last()
		}
	}
}

// runTasks does tasks until the queue is closed, and says whether the worker
// goes on.
func (w *worker) runTasks(tasks []task) (goesOn bool) {
	defer func() {
		if err := recovered(recover()); err != nil {
			w.giveUp(err)
			w.g.queue.putBack(tasks)
		}
	}()
	for len(tasks) > 0 {
		if w.g.queue.isClosed() {
			w.g.queue.putBack(tasks)
			return false
		}
		t := tasks[0]
		switch {
		case t.last != nil:
			w.follow()
			t.last()
			return false
		case t.role:
			w.changeRole(t.lead)
		default:
			results := w.apply(t)
			tasks[0].ours = nil // answered below, whatever follows
			w.answer(t, results)
		}
		tasks = tasks[1:]
	}
	return true
}

// giveUp leaves an entry that can neither be applied nor skipped, because the
// rows can't be read or written. A host that stops while the entry waits for a
// handle is no failure: the next start applies it.
func (w *worker) giveUp(err error) {
	if errors.Is(err, errStopped) {
		err = nil
	}
	if err = errors.Join(err, w.g.rows.Abandon()); err != nil {
		w.g.host.fail(fmt.Errorf("replica: group %d: %w", w.g.id, err))
	}
}

// apply commits the rows of one entry together with the applied row (A3).
func (w *worker) apply(t task) []any {
	e := t.entry
	if t.conf != nil {
		w.conf = t.conf
	}
	w.rows.Batch, w.rows.at = w.g.rows.Begin(), raftlog.Position{Index: e.GetIndex(), Term: e.GetTerm()}
	var results []any
	command := e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0
	if command {
		results = w.g.machine.Apply(&w.rows, e.GetIndex(), e.GetData())
	}
	if t.ours != nil && len(results) != len(t.ours) {
		panic(fmt.Sprintf("replica: entry %d of group %d has %d results for %d commands", e.GetIndex(), w.g.id, len(results), len(t.ours)))
	}
	w.row = appendApplied(w.row[:0], e.GetIndex(), e.GetTerm(), w.conf)
	if len(w.children) > 0 { // before anything of it can be durable
		w.g.young.add(w.children...)
	}
	w.rows.Commit(w.row)
	if command {
		w.g.machine.Applied()
	}
	if children := w.children; len(children) > 0 {
		w.children = nil
		w.g.host.spawn(func() { w.g.host.bringUp(w.g, children) })
	}
	return results
}

// answer lets everybody know that the entry is applied.
func (w *worker) answer(t task, results []any) {
	g := w.g
	if w.want != 0 && t.entry.GetTerm() == w.want && !w.leading {
		w.leading = true
		g.machine.Lead(w.want)
	}
	g.applied.Store(t.entry.GetIndex()) // readers that it lets go find a machine that leads
	g.queue.applied(t.entry)
	var now time.Time
	if t.ours != nil {
		now = g.host.o.Now()
		g.host.stats.applies.add(now.Sub(t.committed))
	}
	for i, p := range t.ours {
		g.release(1, p.size)
		if s := p.stages; s != nil {
			s.Wait, s.Commit, s.Apply = t.proposed.Sub(s.began), t.committed.Sub(t.proposed), now.Sub(t.committed)
		}
		p.done(results[i], nil)
	}
	if g.someAwait.Load() {
		g.releaseReaders()
	}
}

func (w *worker) changeRole(lead uint64) {
	w.follow()
	w.want = lead
}

func (w *worker) follow() {
	if w.leading {
		w.leading = false
		w.g.machine.Follow()
	}
}
