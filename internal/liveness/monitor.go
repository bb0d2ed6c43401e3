package liveness

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
)

// When nodes change their state, counted from their last beat.
const (
	NodeBeat     = time.Second // a node sends at least this often
	suspectAfter = 3 * time.Second
	downAfter    = 10 * time.Second
	removedAfter = 10 * time.Minute
)

const (
	// Reconnect is how long a worker whose connection is lost may take to be back
	// at any gateway.
	Reconnect = time.Second
	// maxStep is how much time may pass between two calls and still count as
	// watched.
	maxStep = 500 * time.Millisecond
	// maxVerdicts bounds what one Tick proposes; the rest follows with the next.
	maxVerdicts = 500
	// proposeAgain is when a verdict that the catalog has not taken up is proposed
	// once more.
	proposeAgain = 5 * time.Second
	// The catalog may forget an ended session after forgetAfter, and before if more
	// than maxEnded are remembered. That is for people who ask what became of a
	// worker: what the catalog has not is not live either.
	forgetAfter = 10 * time.Minute
	maxEnded    = 10_000
)

// BeatEvery is how often a worker beats.
func BeatEvery(ttl time.Duration) time.Duration { return ttl / 5 }

// SuspectAfter is after how much silence a session is suspect and gets no new work:
// two beats are missing, also if a bundle kept them for a while.
func SuspectAfter(ttl time.Duration) time.Duration { return ttl / 2 }

// Bundle is what a node tells: that it is alive, and what its gateway heard from
// workers since the bundle before, in that order.
type Bundle struct {
	Node    uint64   `json:"node"`
	Boot    uint64   `json:"boot"`
	Wall    int64    `json:"wall,omitempty"` // its time of day, Unix ms; 0: not told
	Reports []Report `json:"reports,omitempty"`
}

// Report is what a gateway heard from a worker. It counts for the attachment
// that it is of: one of an older attachment than the newest known says nothing.
type Report struct {
	Session     uint64 `json:"session"`
	Incarnation uint64 `json:"incarnation"`
	Attachment  uint64 `json:"attachment"` // the worker's connections, numbered by itself from 1
	Event       Event  `json:"event,omitempty"`
}

// Event is what was heard.
type Event uint8

// The events.
const (
	Beat    Event = iota // it beats, or has just connected
	Lost                 // its connection was closed or reset
	Goodbye              // it ends
)

// Monitor watches nodes and sessions while its meta group's replica leads. It is
// made anew with each term (Lead). All methods take the time of one monotonic
// clock.
type Monitor struct {
	last     time.Time     // of the newest call
	now      time.Duration // watched so far
	resumed  time.Duration // when the watch began, or went on after a pause
	nodes    map[uint64]*node
	sessions map[uint64]*session
	ended    []ended // sessions that are not forgotten yet, by version
}

// ended is when the catalog heard of a session's end.
type ended struct {
	version uint64
	at      time.Duration
}

type node struct {
	state    catalog.NodeState
	boot     uint64
	seen     time.Duration // its last beat, or when the watch began
	heard    bool          // it has beaten since the watch began
	proposed verdict
	clock    wallClock
}

type session struct {
	incarnation uint64
	attachment  uint64 // newest known
	node        uint64 // whose gateway told of it last; 0: none has since the watch began
	ttl         time.Duration
	wait        bool
	seen        time.Duration // its last beat, or when the watch began
	lost        time.Duration // the connection of the newest attachment, if broken
	broken      bool
	dead        string // why; a death is proposed or due
	proposed    verdict
}

// verdict remembers that something was proposed.
type verdict struct {
	made bool
	at   time.Duration
}

func (v verdict) due(now time.Duration) bool { return !v.made || now-v.at >= proposeAgain }

// Lead begins to watch everybody whom the catalog has.
func Lead(view *catalog.View, now time.Time) *Monitor {
	m := &Monitor{last: now, nodes: map[uint64]*node{}, sessions: map[uint64]*session{}}
	for _, n := range view.Nodes() {
		m.learnNode(n)
	}
	for _, s := range view.Sessions() {
		m.learnSession(s)
	}
	slices.SortFunc(m.ended, func(a, b ended) int { return cmp.Compare(a.version, b.version) })
	return m
}

// Learn takes in what an entry of the catalog changed.
func (m *Monitor) Learn(changes []catalog.Change, now time.Time) {
	m.advance(now)
	for _, c := range changes {
		switch {
		case c.Node != nil && c.Deleted:
			delete(m.nodes, c.Node.ID)
		case c.Node != nil:
			m.learnNode(c.Node)
		case c.Session != nil && !c.Deleted:
			m.learnSession(c.Session)
		}
	}
}

func (m *Monitor) learnNode(n *catalog.Node) {
	if n.State == catalog.Removed {
		delete(m.nodes, n.ID)
		return
	}
	w, ok := m.nodes[n.ID]
	if !ok {
		w = &node{seen: m.now}
		m.nodes[n.ID] = w
	}
	if w.state != n.State {
		w.state, w.proposed = n.State, verdict{}
	}
	w.boot = n.Boot
	w.clock.learn(n.ClockOff)
}

func (m *Monitor) learnSession(s *catalog.Session) {
	if _, ok := m.sessions[s.ID]; !s.Live() {
		delete(m.sessions, s.ID)
		m.ended = append(m.ended, ended{s.Ended, m.now})
	} else if !ok {
		m.sessions[s.ID] = &session{incarnation: s.Incarnation, ttl: s.TTL, wait: s.Wait, seen: m.now}
	}
}

// advance lets time pass. After a pause of the monitor itself it goes on as if
// little had happened, and hears everybody before it believes that a connection
// was lost.
func (m *Monitor) advance(now time.Time) {
	d := max(now.Sub(m.last), 0)
	m.last = m.last.Add(d)
	m.now += min(d, maxStep)
	if d > maxStep {
		m.resumed = m.now
	}
}

// Beat takes a bundle in. heard are the beats that count; they may be answered
// if Answer says so after a ReadIndex. A bundle of a node that is not in the
// cluster, or of an earlier start of it, says nothing.
func (m *Monitor) Beat(b Bundle, now time.Time) (heard []Report) {
	m.advance(now)
	n, ok := m.nodes[b.Node]
	if !ok || b.Boot < n.boot {
		return nil
	}
	n.seen, n.heard = m.now, true
	for _, r := range b.Reports {
		if m.report(b.Node, r) {
			heard = append(heard, r)
		}
	}
	return heard
}

// report takes one report of a node in, and says whether it is a beat that counts.
func (m *Monitor) report(node uint64, r Report) bool {
	s, ok := m.sessions[r.Session]
	if !ok || s.incarnation != r.Incarnation || r.Attachment < s.attachment {
		return false
	}
	if r.Attachment > s.attachment {
		s.attachment, s.broken = r.Attachment, false
	}
	s.node = node
	switch r.Event {
	case Beat:
		s.seen = m.now
		return true
	case Lost:
		if !s.broken {
			s.broken, s.lost = true, m.now
		}
	case Goodbye:
		s.dead = cmp.Or(s.dead, "goodbye")
	}
	return false
}

// Heard is what the monitor knows of a session.
type Heard struct {
	Node   uint64        `json:"node,omitempty"` // to whose gateway it is connected; 0: not known yet
	Silent time.Duration `json:"silent"`         // since its last beat, or since the watch began
	Lost   bool          `json:"lost,omitempty"` // its connection is broken
}

// Heard tells of those of the sessions that are watched.
func (m *Monitor) Heard(sessions []uint64, now time.Time) map[uint64]Heard {
	m.advance(now)
	out := make(map[uint64]Heard, len(sessions))
	for _, id := range sessions {
		if s, ok := m.sessions[id]; ok {
			out[id] = Heard{Node: s.node, Silent: m.now - s.seen, Lost: s.broken}
		}
	}
	return out
}

// Answer says which of the beats that Beat returned may be answered now. view
// holds at least what a ReadIndex that began after Beat saw.
func (m *Monitor) Answer(view *catalog.View, heard []Report) []Report {
	var live []Report
	for _, r := range heard {
		s, ok := m.sessions[r.Session]
		if ok && s.dead == "" && view.Live(r.Session, r.Incarnation) {
			live = append(live, r)
		}
	}
	return live
}

// Tick returns what the catalog shall hear. It is called at least every 100 ms.
// Verdicts are proposed until the catalog has taken them up (Learn).
func (m *Monitor) Tick(now time.Time) []catalog.Command {
	m.advance(now)
	var verdicts []catalog.Command
	for _, id := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[id]
		if state := m.judge(n); state != n.state && n.proposed.due(m.now) && len(verdicts) < maxVerdicts {
			n.proposed = verdict{true, m.now}
			verdicts = append(verdicts, catalog.Command{SetNodeState: &catalog.SetNodeState{ID: id, State: state}})
		}
		if c := &n.clock; c.against >= clockBeats && c.proposed.due(m.now) && len(verdicts) < maxVerdicts {
			c.proposed = verdict{true, m.now}
			verdicts = append(verdicts, catalog.Command{SetNodeClock: &catalog.SetNodeClock{ID: id, Off: !c.off}})
		}
	}
	for _, id := range m.deaths(maxVerdicts - len(verdicts)) {
		s := m.sessions[id]
		s.proposed = verdict{true, m.now}
		verdicts = append(verdicts, catalog.Command{EndSession: &catalog.EndSession{ID: id, Incarnation: s.incarnation, Why: s.dead}})
	}
	if upTo := m.forget(); upTo > 0 {
		verdicts = append(verdicts, catalog.Command{ForgetSessions: &catalog.ForgetSessions{UpTo: upTo}})
	}
	return verdicts
}

// forget says up to which version sessions that ended may be forgotten; 0: none.
// One that gets lost is made good by the next.
func (m *Monitor) forget() (upTo uint64) {
	for len(m.ended) > 0 && (m.now-m.ended[0].at >= forgetAfter || len(m.ended) > maxEnded) {
		upTo, m.ended = m.ended[0].version, m.ended[1:]
	}
	return upTo
}

// judge says which state a node is in. Only a beat that was really heard makes
// one alive again.
func (m *Monitor) judge(n *node) catalog.NodeState {
	silent := m.now - n.seen
	switch {
	case silent >= removedAfter:
		return catalog.Removed
	case silent >= downAfter:
		return max(n.state, catalog.Down)
	case silent >= suspectAfter:
		return max(n.state, catalog.Suspect)
	case n.heard:
		return catalog.Alive
	}
	return n.state
}

// deaths are up to limit dead sessions, by id, whose end is to be proposed.
func (m *Monitor) deaths(limit int) (ids []uint64) {
	for id, s := range m.sessions {
		if s.dead == "" {
			s.dead = m.doom(s)
		}
		if s.dead != "" && s.proposed.due(m.now) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, cmp.Compare)
	return ids[:min(limit, len(ids))]
}

// doom says why a session is dead, if it is.
func (m *Monitor) doom(s *session) (why string) {
	switch {
	case m.now-s.seen >= s.ttl:
		return fmt.Sprintf("silent for %s", s.ttl)
	case s.broken && !s.wait && m.now >= max(s.lost+Reconnect, m.resumed+SuspectAfter(s.ttl)):
		// Just after the watch began a higher attachment may not have been heard yet.
		return "connection lost"
	}
	return ""
}
