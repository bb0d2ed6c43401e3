package leader

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Sender carries what leaves the group to the group of another cell.
type Sender interface {
	// Deliver has a command put into the log of the group that has the cell, wherever
	// that is led, and returns its result. QUEUE_NOT_FOUND says that the queue was
	// deleted; any other error may go away.
	Deliver(ctx context.Context, number uint32, cell int, c queue.Command) (any, error)
}

const (
	maxParcels    = 500 // in one call
	maxLines      = 256 // of a cell, that are looked at in a turn; the next one goes on behind them
	maxSending    = 256 // lines of the group that are sent at a time; others wait for them
	deliverWithin = 10 * time.Second
	// How long a line is left alone that can't be delivered.
	deliverAgain    = 100 * time.Millisecond
	maxDeliverAgain = 5 * time.Second
)

// outbox is what a leader knows of the cells that messages are to leave.
type outbox struct {
	cells   map[queue.Line]*leaving // that may have some
	lines   map[way]*sending        // that are being sent, or that can't be just now
	busy    int                     // lines that are being sent
	stopped queue.Line              // the cell for which the last turn had no room
}

// leaving is how far a cell's lines were looked at.
type leaving struct {
	// after is the line behind which the next turn looks; nil: it begins with the first.
	// So lines that can't be sent keep no other.
	after *queue.Line
	news  bool // since the last look
}

// way is a line of a cell's outbox.
type way struct{ from, to queue.Line }

type sending struct {
	busy  bool // one call at a time keeps the order
	at    time.Time
	pause time.Duration
}

func newOutbox() outbox {
	return outbox{cells: map[queue.Line]*leaving{}, lines: map[way]*sending{}}
}

// add notes that something is to leave a cell.
func (o *outbox) add(from queue.Line) {
	if o.cells[from] == nil {
		o.cells[from] = &leaving{}
	}
	o.cells[from].news = true
}

// overdue says that something could be on its way to another group, or is.
func (o *outbox) overdue(now time.Time) bool {
	waits := len(o.lines) > 0
	for _, l := range o.cells {
		waits = waits && !l.news
	}
	for _, s := range o.lines {
		waits = waits && !s.busy && now.Before(s.at)
	}
	return len(o.cells) > 0 && !waits
}

// turn puts cells into the order in which they have their turn: their own, so that a
// simulation can be repeated, from the one on at which the last turn had no room left.
func (o *outbox) turn(cells []queue.Line) []queue.Line {
	slices.SortFunc(cells, queue.Line.Compare)
	first, _ := slices.BinarySearchFunc(cells, o.stopped, queue.Line.Compare)
	return slices.Concat(cells[first:], cells[:first])
}

// forget forgets the lines whose turn has passed: they were purged, dropped or given
// away, or have so many others before them that no pause matters.
func (o *outbox) forget(now time.Time) {
	for w, s := range o.lines {
		if !s.busy && now.Sub(s.at) > maxDeliverAgain {
			delete(o.lines, w)
		}
	}
}

// sendOutbox sends on what is to leave and is not on its way. It is called without
// mu.
func (g *Group) sendOutbox() {
	if g.Sender == nil {
		return
	}
	g.mu.Lock()
	term := g.term
	g.outbox.forget(g.clock.Now())
	cells := map[queue.Line]*queue.Line{}
	for from, l := range g.outbox.cells {
		cells[from], l.news = l.after, false // what comes from here on is news
	}
	g.mu.Unlock()
	if len(cells) == 0 {
		return
	}
	view := g.raft.View()
	if view == nil {
		return // the host ends
	}
	found := map[queue.Line][]queue.Line{}
	for from, after := range cells {
		found[from] = queue.Lines(view, from.Queue, from.Cell, after, maxLines)
	}
	view.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.leading || g.term != term {
		return // what is begun now would still be on its way for the next leader here
	}
	for _, from := range g.outbox.turn(slices.Collect(maps.Keys(found))) {
		if g.outbox.busy >= maxSending {
			g.outbox.stopped = from
			return
		}
		l, lines := g.outbox.cells[from], found[from]
		if l.after == nil && len(lines) == 0 && !l.news {
			delete(g.outbox.cells, from)
		} else {
			l.after = g.beginAll(from, l.after, lines)
		}
	}
}

// beginAll sends on lines of a cell, those behind after, and returns behind which one the
// next turn looks. The lock is held.
func (g *Group) beginAll(from queue.Line, after *queue.Line, lines []queue.Line) *queue.Line {
	for i := range lines {
		if g.outbox.busy >= maxSending {
			return after
		}
		g.begin(way{from, lines[i]})
		after = &lines[i]
	}
	if len(lines) < maxLines {
		return nil
	}
	return after
}

// begin sends a line on, if it is not under way and may be tried. The lock is held.
func (g *Group) begin(w way) {
	s := g.outbox.lines[w]
	if s != nil && (s.busy || g.clock.Now().Before(s.at)) {
		return
	}
	if s == nil {
		s = &sending{}
		g.outbox.lines[w] = s
	}
	s.busy = true
	g.outbox.busy++
	go g.sendLine(w, s, g.term)
}

// sendLine sends a line until it is empty or does not go on.
func (g *Group) sendLine(w way, s *sending, term uint64) {
	more, err := true, error(nil)
	for more && err == nil {
		if more, err = g.sendNext(w); g.crowded() {
			break // others have their turn
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.leading || g.term != term {
		return // that outbox is forgotten
	}
	g.outbox.busy--
	if s.busy = false; err == nil {
		delete(g.outbox.lines, w)
		return
	}
	s.pause = min(max(2*s.pause, deliverAgain), maxDeliverAgain)
	s.at = g.clock.Now().Add(s.pause)
	g.log.Debug("messages wait to leave for another queue", "queue", w.from.Queue, "to", w.to.Queue, "error", err)
}

func (g *Group) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.outbox.busy >= maxSending
}

// sendNext sends the first messages of a line, and has its own group keep what came
// of them. more: there may be others.
func (g *Group) sendNext(w way) (more bool, err error) {
	view := g.raft.View()
	if view == nil {
		return false, nil // the host ends
	}
	now, _ := g.stamps.now()
	c := queue.NextDelivery(view, w.from, w.to, maxParcels, now)
	view.Close()
	if len(c.Parcels) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), deliverWithin)
	defer cancel()
	result, err := g.Sender.Deliver(ctx, w.to.Queue, w.to.Cell, c.Command())
	done := queue.Delivered{From: w.from, To: w.to, Results: make([]queue.DeliveredResult, len(c.Parcels))}
	results, _ := result.([]*message.Error)
	switch {
	case message.CodeOf(err) == message.QueueNotFound:
		results = make([]*message.Error, len(c.Parcels))
		for i := range results {
			results[i] = message.Errorf(message.QueueNotFound, "the queue that it was to go to was deleted")
		}
	case err != nil:
		return false, err
	case len(results) != len(c.Parcels):
		if refusal, ok := result.(*message.Error); ok && refusal != nil {
			return false, refusal
		}
		return false, errWire
	}
	for i := range c.Parcels {
		done.Results[i] = queue.DeliveredResult{Seq: c.Parcels[i].Seq, Err: results[i]}
	}
	_, err = g.Propose(ctx, done.Command())
	return true, err
}
