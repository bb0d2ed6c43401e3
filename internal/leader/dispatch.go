package leader

import (
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

const (
	maxCalls  = 20_000  // receivers that wait for one queue in one group
	maxLeases = 250_000 // messages of one group that are leased at a time
)

// Wait lets a call wait for messages of its queue in this group. It answers
// through the call.
func (g *Group) Wait(c *Call) {
	g.mu.Lock()
	l := g.queues[c.Queue]
	switch {
	case !g.leading:
		g.mu.Unlock()
		c.deliver(0, nil, message.Errorf(message.NotLeader, "group %d is not led here", g.raft.ID()))
		return
	case l == nil:
		g.mu.Unlock()
		c.deliver(0, nil, message.Errorf(message.WrongShard, "queue number %d is not in group %d", c.Queue, g.raft.ID()))
		return
	case len(g.leases.by)+g.leasing >= g.limit:
		g.mu.Unlock()
		c.deliver(0, nil, message.Errorf(message.ResourceExhausted, "%d messages of group %d are leased, as many as may be: settle some first", g.limit, g.raft.ID()))
		return
	case l.crowded():
		g.mu.Unlock()
		c.deliver(0, nil, message.Errorf(message.ResourceExhausted, "%d receivers wait for this queue already", maxCalls))
		return
	}
	if _, over := c.wants(); over {
		g.mu.Unlock()
		return // nothing would take it out again
	}
	now := g.clock.Now()
	l.workers.get(c.Worker, now).wait(c, now)
	g.mu.Unlock()
	c.waits(g)
	g.dispatch(l)
}

// crowded says that no further receiver may wait.
func (l *line) crowded() bool {
	if l.workers.calls >= maxCalls {
		for _, c := range l.workers.all() {
			if _, over := c.wants(); over {
				l.workers.leave(c)
			}
		}
	}
	return l.workers.calls >= maxCalls
}

// Leave takes a call out that waits no more.
func (g *Group) Leave(c *Call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.queues[c.Queue]; l != nil {
		l.asked = g.clock.Now()
		l.workers.leave(c)
	}
}

// grant is a lease that is about to be proposed for a call.
type grant struct {
	call   *Call
	worker *worker
	line   *line
	offers []queue.Offer
	floors []queue.Floor
	// How many more than offers may go out, and how many of each key in all.
	extra, perKey int
}

// most is how many messages the grant may lease.
func (gr *grant) most() int { return len(gr.offers) + gr.extra }

// fillJob reads rows for a window.
type fillJob struct {
	cell   *cell
	window *window // a later purge gives the cell others
	after  *queue.Ref
}

// dispatch hands out what a line has to those who wait for it, and reads more
// when it runs low. Leases of a line are proposed by one goroutine at a time:
// who comes meanwhile leaves it to that one, which looks again. So a lease that is
// refused while it is proposed, and comes back here, begins nothing inside.
func (g *Group) dispatch(l *line) {
	for {
		g.mu.Lock()
		if !g.leading || g.queues[l.number] != l {
			g.mu.Unlock()
			return
		}
		fills, searches := l.fills(), l.searches()
		reads := len(fills) + len(searches)
		var grants []grant
		if reads == 0 && !l.granting {
			grants = g.grants(l)
			g.follow(l, grants)
			l.granting = len(grants) > 0
		}
		g.mu.Unlock()
		if reads+len(grants) == 0 {
			return
		}
		if reads > 0 && !g.read(l, fills, searches) {
			return // the host ends
		}
		if len(grants) > 0 {
			g.proposeGrants(l, grants)
		}
	}
}

func (g *Group) proposeGrants(l *line, grants []grant) {
	for i := range grants {
		g.propose(&grants[i])
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l.granting = false
}

// postpone lets a line wait for the next Tick, with those who wait for it: the group
// has no room for its leases now. The lock is held.
func (g *Group) postpone(l *line) {
	if !l.postponed {
		l.postponed = true
		g.postponed = append(g.postponed, l)
	}
}

// fills are the windows that want rows, while somebody waits.
func (l *line) fills() (fills []fillJob) {
	if !l.wanted() || l.paused {
		return nil
	}
	fill := func(c *cell, w *window) {
		w.filling = true
		fills = append(fills, fillJob{c, w, w.end})
	}
	for _, c := range l.cells {
		if c.window.wantsFill() {
			fill(c, c.window)
		}
	}
	for _, w := range l.hungry {
		w.hungry = false
		if w.cell.turns.by[w.turn] == w && w.wantsFill() {
			fill(w.cell, w)
		}
	}
	l.hungry = l.hungry[:0]
	return fills
}

// searches look for more turns, while somebody waits.
func (l *line) searches() (searches []searchJob) {
	if !l.wanted() || l.paused {
		return nil
	}
	for _, c := range l.cells {
		if t := c.turns; t.wantsSearch() {
			t.searching, t.missed = true, t.missed && t.end != nil
			searches = append(searches, searchJob{c, t, t.end, maxTurns - len(t.by)})
		}
	}
	return searches
}

// read does what is to be read for a line; false: there is nothing to read from.
func (g *Group) read(l *line, fills []fillJob, searches []searchJob) bool {
	index := g.raft.Status().Applied // before the view: what it shows is at least that
	view := g.raft.View()
	if view == nil {
		return false
	}
	defer view.Close()
	for _, f := range fills {
		g.fill(l, f, view, index)
	}
	for _, s := range searches {
		read := queue.Turns(view, l.number, s.cell.number, s.after, s.limit)
		g.mu.Lock()
		l.found(s, read)
		g.mu.Unlock()
	}
	return true
}

func (g *Group) fill(l *line, f fillJob, view queue.Reader, index uint64) {
	w := f.window
	_, size, _ := w.sizes()
	var offers []queue.Offer
	if w.cell == nil {
		offers = queue.Offers(view, l.number, f.cell.number, f.after, size)
	} else {
		offers = queue.OffersOf(view, l.number, f.cell.number, w.turn, f.after, size)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.cell == nil && f.after == nil && len(offers) > 0 {
		// Nothing lies before the first row, so the next leader need not look
		// there: a lease takes it along.
		w.floor = &queue.Floor{Cell: f.cell.number, Priority: offers[0].Priority, Seq: offers[0].Seq, Index: index}
	}
	l.filled(f, offers)
}

// filled takes in what was read for a window.
func (l *line) filled(f fillJob, offers []queue.Offer) {
	w := f.window
	w.fill(f.after, offers)
	if len(l.pauses.list) > 0 {
		w.offers = slices.DeleteFunc(w.offers, l.pauses.holds)
	}
	if w.cell != nil && w.cell.turns.by[w.turn] == w {
		l.settleTurn(w)
	}
}

func (l *line) floors() (fs []queue.Floor) {
	for _, c := range l.cells {
		if c.window.floor != nil {
			fs = append(fs, *c.window.floor)
			c.window.floor = nil
		}
	}
	return fs
}

func (g *Group) propose(gr *grant) {
	c := gr.call.Lease
	c.Items, c.Floors = queue.Refs(gr.offers), gr.floors
	c.PerKey, c.Extra = gr.perKey, gr.extra
	g.raft.Propose(replica.Command(c.Command()), func(result any, err error) {
		r, _ := result.(queue.LeaseResult)
		if err != nil {
			r.Err = message.Errorf(message.CodeOf(err), "%v", err)
		}
		g.granted(gr, &r, message.CodeOf(err) == message.ResourceExhausted)
	})
}

// granted takes in what became of a grant. full: the group had no room to
// propose it.
func (g *Group) granted(gr *grant, r *queue.LeaseResult, full bool) {
	l, c := gr.line, gr.call
	g.mu.Lock()
	g.leasing -= gr.most()
	l.leasing -= gr.most()
	gr.worker.take(-gr.most())
	current := g.leading && g.queues[l.number] == l
	if current {
		for i := range r.Leased {
			x := &r.Leased[i]
			g.hold(leaseKey{l.number, x.Ref.Cell, x.Ref.Seq}, gr.worker)
		}
		rest := gr.offers
		if r.Err == nil {
			rest = rest[r.Looked:] // the others had changed, and were offered anew
		}
		for _, o := range rest {
			if at := l.cell(o.Cell); at != nil { // else it was spun off meanwhile
				l.offer(at, o)
			}
		}
	}
	err := r.Err
	switch {
	case !current && err == nil && len(r.Leased) == 0:
		err = message.Errorf(message.NotLeader, "group %d is no longer led here, or has the queue no more", g.raft.ID())
	case current && full:
		g.postpone(l)
		err = nil // it waits on
	case current && l.paused:
		err = nil // paused meanwhile: it waits on
	}
	g.mu.Unlock()
	if !c.deliver(gr.most(), r.Leased, err) {
		g.giveBack(c.Lease.Session.ID, r.Leased)
	}
	if room, _ := c.wants(); room && current {
		c.waitOn() // nothing came of it
	} else if current && len(r.Leased) < len(gr.offers) {
		g.dispatch(l)
	}
}
