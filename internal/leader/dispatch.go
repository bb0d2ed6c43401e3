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
	if !slices.Contains(l.calls, c) {
		l.calls = append(l.calls, c)
	}
	g.mu.Unlock()
	c.waits(g)
	g.dispatch(l)
}

// crowded says that no further receiver may wait.
func (l *line) crowded() bool {
	if len(l.calls) >= maxCalls {
		l.calls = slices.DeleteFunc(l.calls, func(c *Call) bool {
			_, over := c.wants()
			return over
		})
	}
	return len(l.calls) >= maxCalls
}

// Leave takes a call out that waits no more.
func (g *Group) Leave(c *Call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.queues[c.Queue]; l != nil {
		l.asked = g.clock.Now()
		if i := slices.Index(l.calls, c); i >= 0 {
			l.calls = slices.Delete(l.calls, i, i+1)
		}
	}
}

// grant is a lease that is about to be proposed for a call.
type grant struct {
	call   *Call
	line   *line
	offers []queue.Offer
	floors []queue.Floor
}

type fillJob struct {
	cell  *cell
	after *queue.Ref
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
		fills := l.fills()
		var grants []grant
		if len(fills) == 0 && !l.granting {
			grants = g.grants(l)
			l.granting = len(grants) > 0
		}
		g.mu.Unlock()
		if len(fills)+len(grants) == 0 {
			return
		}
		for _, f := range fills {
			g.fill(l, f)
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

// fills are the cells whose windows want rows, while somebody waits.
func (l *line) fills() (fills []fillJob) {
	if !l.wanted() || l.paused {
		return nil
	}
	for _, c := range l.cells {
		if c.window.wantsFill() {
			c.window.filling = true
			fills = append(fills, fillJob{c, c.window.end})
		}
	}
	return fills
}

func (g *Group) fill(l *line, f fillJob) {
	index := g.raft.Status().Applied // before the view: what it shows is at least that
	view := g.raft.View()
	offers := queue.Offers(view, l.number, f.cell.number, f.after, windowFill)
	view.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.after == nil && len(offers) > 0 {
		// Nothing lies before the first row, so the next leader need not look
		// there: a lease takes it along.
		f.cell.window.floor = &queue.Floor{Cell: f.cell.number, Priority: offers[0].Priority, Seq: offers[0].Seq, Index: index}
	}
	f.cell.window.fill(f.after, offers)
}

// grants pairs those who wait with what there is. Whoever gets something waits
// no more.
func (g *Group) grants(l *line) (grants []grant) {
	if l.paused || l.postponed {
		return nil
	}
	var buf [pickAmong]int
	for available := l.available(); available > 0; available = l.available() {
		free := g.limit - len(g.leases.by) - g.leasing
		if free <= 0 {
			g.postpone(l)
			break
		}
		takers := l.takers(buf[:0])
		if len(takers) == 0 {
			l.beckon(available)
			break
		}
		i := takers[g.pick(l.calls, takers)]
		c := l.calls[i]
		n := c.reserve(min(free, share(available, len(l.calls), available)))
		if n == 0 {
			continue // it was given something elsewhere just now
		}
		l.calls = slices.Delete(l.calls, i, i+1)
		grants = append(grants, grant{call: c, line: l, offers: l.take(n), floors: l.floors()})
		g.loads[c.Worker] += n // until the lease is known
		g.leasing += n
	}
	return grants
}

// pickAmong bounds how many of those who wait are compared.
const pickAmong = 64

// takers are the first of those who wait that have room. Calls that are over
// are taken out on the way.
func (l *line) takers(places []int) []int {
	kept, i := 0, 0
	for ; i < len(l.calls) && len(places) < pickAmong; i++ {
		room, over := l.calls[i].wants()
		if over {
			continue
		}
		if room {
			places = append(places, kept)
		}
		l.calls[kept] = l.calls[i]
		kept++
	}
	if kept < i {
		l.calls = slices.Delete(l.calls, kept, i)
	}
	return places
}

func (g *Group) pick(calls []*Call, places []int) int {
	var loads [pickAmong]int
	for i, at := range places {
		loads[i] = g.loads[calls[at].Worker]
	}
	return leastLoaded(loads[:len(places)])
}

func (l *line) available() (n int) {
	for _, c := range l.cells {
		n += len(c.window.offers)
	}
	return n
}

// take takes the first n messages over all cells, by priority and arrival.
func (l *line) take(n int) []queue.Offer {
	offers := make([]queue.Offer, 0, n)
	for len(offers) < n {
		var first *cell
		for _, c := range l.cells {
			if len(c.window.offers) > 0 && (first == nil || order(c.window.offers[0].Ref, first.window.offers[0].Ref) < 0) {
				first = c
			}
		}
		if first == nil {
			break
		}
		offers = append(offers, first.window.pop())
	}
	return offers
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
	g.leasing -= len(gr.offers)
	g.loads[c.Worker] -= len(gr.offers) - 1
	g.unload(c.Worker)
	current := g.leading && g.queues[l.number] == l
	if current {
		for i := range r.Leased {
			x := &r.Leased[i]
			g.hold(leaseKey{l.number, x.Ref.Cell, x.Ref.Seq}, c.Worker)
		}
		rest := gr.offers
		if r.Err == nil {
			rest = rest[r.Looked:] // the others had changed, and were offered anew
		}
		for _, o := range rest {
			l.cell(o.Cell).window.offer(o)
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
	c.deliver(len(gr.offers), r.Leased, err)
	if room, _ := c.wants(); room && current {
		// Nothing came of it. Other groups may have had something meanwhile, and
		// saw no room.
		for _, at := range c.places() {
			at.Wait(c)
		}
	} else if current && len(gr.offers) > 0 && (r.Err != nil || r.Looked < len(gr.offers)) {
		g.dispatch(l)
	}
}
