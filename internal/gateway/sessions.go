package gateway

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
)

// Beats of workers are gathered and carried to the monitor in bundles, which are
// this node's own beats as well.
const (
	// bundleEvery is how long a worker's beat waits for others at the most: a
	// quarter of the shortest time between two of a worker's.
	bundleEvery = 250 * time.Millisecond
	// bundleWithin is how long the monitor may take to answer.
	bundleWithin = 3 * time.Second
	maxAttached  = 50_000 // streams of workers at one gateway
)

// sessions are the workers' streams at this gateway.
type sessions struct {
	kick chan struct{} // one slot: something that can't wait

	mu      sync.Mutex
	by      map[uint64]*attachment // by session, its newest stream here
	reports []liveness.Report      // of the next bundle: what is not a mere beat
}

// attachment is one stream's hold on a session.
type attachment struct {
	g         *Gateway
	ref       message.SessionRef
	number    uint64
	ttl       time.Duration
	answered  chan uint64
	cancelled chan []string
	draining  chan struct{}
	ended     chan struct{}
	claiming  atomic.Bool // the leaders are being told of a claim

	mu       sync.Mutex
	err      error  // set before ended is closed
	beat     uint64 // newest that came
	bundled  uint64 // newest that is in the bundle under way, or was in one
	missed   bool   // the monitor has not heard the beat of the last bundle
	reported bool   // Close was called
	pulse    pulse
	handed   handed
	groups   map[uint64]bool // at which it waits
}

// OpenSession opens a worker's session, or takes it up with a newer stream.
func (g *Gateway) OpenSession(ctx context.Context, o message.SessionOptions) (message.Attachment, error) {
	// It gives no right to any queue: each receive is authorised by itself.
	if err := g.authorize(ctx, auth.Receive, ""); err != nil {
		return nil, err
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	x, err := g.session(ctx, o)
	if err != nil {
		return nil, err
	}
	a := &attachment{
		g: g, ref: message.SessionRef{ID: x.ID, Incarnation: x.Incarnation}, number: o.Attachment, ttl: x.TTL,
		answered: make(chan uint64, 1), cancelled: make(chan []string, 1), draining: make(chan struct{}), ended: make(chan struct{}),
		handed: handed{}, groups: map[uint64]bool{},
	}
	a.pulse.hear(g.o.Clock.Now())
	if err := g.sessions.attach(a); err != nil {
		return nil, err
	}
	// It may drain already, or have ended since it was looked up, before anybody told a
	// of it.
	g.sessions.mu.Lock()
	defer g.sessions.mu.Unlock()
	g.sessions.compare(g.newest.Load(), a)
	return a, nil
}

// session finds the session in the catalog's copy here, so that a worker is taken
// back whoever leads the catalog just now, or has it opened. One that has ended
// meanwhile ends the stream as soon as the copy knows.
func (g *Gateway) session(ctx context.Context, o message.SessionOptions) (*catalog.Session, error) {
	for _, x := range g.newest.Load().Worker(o.Worker) {
		if x.Incarnation == o.Incarnation && x.Live() {
			return x, nil
		}
	}
	r, err := g.propagate(ctx, catalog.Command{OpenSession: &catalog.OpenSession{
		Worker: o.Worker, Incarnation: o.Incarnation, Node: g.o.NodeID(), TTL: o.TTL, Wait: o.Wait,
		Queues: o.Queues, Slots: o.Slots,
	}})
	if err != nil {
		return nil, err
	}
	// Leases name the version of the copy here as one in which the session lives.
	if _, ok := g.newest.Load().Session(r.Session.ID); !ok {
		err = g.o.Refresh(ctx)
	}
	return r.Session, err
}

// attach makes a the session's stream here; one that was here before ends.
func (s *sessions) attach(a *attachment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	older := s.by[a.ref.ID]
	switch {
	case older != nil && older.number >= a.number:
		return message.Errorf(message.Conflict, "attachment %d of the session is not newer than %d, which has taken it up", a.number, older.number)
	case older == nil && len(s.by) >= maxAttached:
		return message.Errorf(message.ResourceExhausted, "%d workers are connected to this server: connect to another one", len(s.by))
	case older != nil:
		older.end(message.Errorf(message.Conflict, "a newer stream of the same worker has taken the session up"))
	}
	s.by[a.ref.ID] = a
	s.report(a, liveness.Beat)
	return nil
}

// report adds to the next bundle what the monitor should hear at once. The lock
// is held.
func (s *sessions) report(a *attachment, e liveness.Event) {
	s.reports = append(s.reports, liveness.Report{Session: a.ref.ID, Incarnation: a.ref.Incarnation, Attachment: a.number, Event: e})
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Session is the session's name.
func (a *attachment) Session() message.SessionRef { return a.ref }

// Beat takes a heartbeat for the next bundle.
func (a *attachment) Beat(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.beat = max(a.beat, number)
	a.pulse.hear(a.g.o.Clock.Now())
}

// Answered has the newest beat that the monitor has answered.
func (a *attachment) Answered() <-chan uint64 { return a.answered }

// Draining is closed when the worker is to finish what it holds.
func (a *attachment) Draining() <-chan struct{} { return a.draining }

// Ended is closed when the session is over for this stream.
func (a *attachment) Ended() <-chan struct{} { return a.ended }

// Err says why.
func (a *attachment) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Close says that the stream has ended.
func (a *attachment) Close(goodbye bool) {
	s := &a.g.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	a.mu.Lock()
	done := a.reported
	a.reported = true
	a.mu.Unlock()
	if done {
		return
	}
	if s.by[a.ref.ID] == a {
		delete(s.by, a.ref.ID)
	}
	event := liveness.Lost
	if goodbye {
		event = liveness.Goodbye
	}
	s.report(a, event)
}

func (a *attachment) end(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
		close(a.ended)
	}
}

// takeBeat is the report of a beat that came since the last bundle, or that the
// monitor has not heard.
func (a *attachment) takeBeat() (r liveness.Report, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.beat == a.bundled && !a.missed {
		return r, false
	}
	a.bundled, a.missed = a.beat, false
	return liveness.Report{Session: a.ref.ID, Incarnation: a.ref.Incarnation, Attachment: a.number}, true
}

// answer tells the worker that the beats of the last bundle were answered.
func (a *attachment) answer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bundled == 0 {
		return
	}
	select { // a newer answer replaces one that nobody has taken yet
	case <-a.answered:
	default:
	}
	a.answered <- a.bundled
}

// learn tells streams what the catalog has decided of their sessions.
func (s *sessions) learn(v *catalog.View, changes []catalog.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if changes == nil {
		for _, a := range s.by {
			s.compare(v, a)
		}
		return
	}
	for _, c := range changes {
		if c.Session == nil {
			continue
		}
		if a := s.by[c.Session.ID]; a != nil {
			s.compare(v, a)
		}
	}
}

func (s *sessions) compare(v *catalog.View, a *attachment) {
	x, ok := v.Session(a.ref.ID)
	switch {
	case !ok || x.Incarnation > a.ref.Incarnation:
	case !x.Live():
		a.end(message.Errorf(message.SessionEnded, "the worker's session has ended (%s): what it held goes to others", x.Why))
	case x.Draining:
		a.drain()
	}
}

// Beats carries this node's beat and those of its workers to the monitor, until
// ctx ends. carry is called with one bundle at a time.
func (g *Gateway) Beats(ctx context.Context, carry func(context.Context, []liveness.Report) ([]liveness.Report, error)) {
	ticks, stop := g.o.Clock.Tick(bundleEvery)
	defer stop()
	var last time.Time
	for {
		urgent := false
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		case <-g.sessions.kick:
			urgent = true
		}
		now := g.o.Clock.Now()
		reports := g.sessions.bundle(now)
		if urgent || len(reports) > 0 || now.Sub(last) >= liveness.NodeBeat-bundleEvery {
			last = now
			g.carry(ctx, reports, carry)
		}
	}
}

func (s *sessions) bundle(now time.Time) []liveness.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	reports := s.reports
	s.reports = nil
	for _, a := range s.by {
		a.doubt(now)
		if r, ok := a.takeBeat(); ok {
			reports = append(reports, r)
		}
	}
	return reports
}

func (g *Gateway) carry(ctx context.Context, reports []liveness.Report, carry func(context.Context, []liveness.Report) ([]liveness.Report, error)) {
	ctx, cancel := context.WithTimeout(ctx, bundleWithin)
	defer cancel()
	r := g.retry(ctx)
	for {
		heard, err := carry(ctx, reports)
		if err == nil {
			g.sessions.answer(heard)
			return
		}
		if !movable(err) && message.CodeOf(err) != message.UnknownOutcome || !r.again() {
			g.sessions.keep(reports)
			return
		}
	}
}

func (s *sessions) answer(heard []liveness.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range heard {
		if a := s.by[r.Session]; a != nil && a.number == r.Attachment && r.Event == liveness.Beat {
			a.answer()
		}
	}
}

// keep has what did not reach the monitor carried with the next bundle: of each
// session the newest broken connection or goodbye, because that can go on for long.
// Beats as well: who has just been taken back would else be heard of after the end
// of its former stream, and be dead before its next beat.
func (s *sessions) keep(reports []liveness.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newer := map[uint64]bool{}
	for i := range s.reports {
		newer[s.reports[i].Session] = true
	}
	kept := s.reports
	for _, r := range slices.Backward(reports) {
		switch a := s.by[r.Session]; {
		case r.Event != liveness.Beat:
			if !newer[r.Session] {
				newer[r.Session] = true
				kept = append(kept, r)
			}
		case a != nil && a.number == r.Attachment:
			a.mu.Lock()
			a.missed = true
			a.mu.Unlock()
		}
	}
	s.reports = kept
}

// explain adds to refusals of what sessions held why these have ended.
func (g *Gateway) explain(ss []message.Settlement, results []message.SettleResult) {
	for i := range results {
		err := results[i].Err
		if err == nil || err.Code != message.Fenced || ss[i].Token.Session == 0 {
			continue
		}
		if x, ok := g.newest.Load().Session(ss[i].Token.Session); ok && !x.Live() {
			results[i].Err = message.Errorf(message.Fenced, "%s (session %d of worker %q: %s)", err.Text, x.ID, x.Worker, x.Why)
		}
	}
}
