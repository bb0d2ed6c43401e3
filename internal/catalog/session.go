package catalog

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Limits of workers' sessions.
const (
	MaxSessions       = 100_000 // live and ended ones together
	MaxWorkerSessions = 1_000   // of one worker's name
	MinTTL            = 5 * time.Second
	DefaultTTL        = 10 * time.Second
	MaxTTL            = 5 * time.Minute
)

// Session is one incarnation of a worker. Leases name it. It ends once; then it
// stays as a tombstone until it is forgotten, and whatever is not here is not
// live either: ids and incarnations are never used again.
type Session struct {
	ID          uint64        `json:"id"`
	Worker      string        `json:"worker"`
	Incarnation uint64        `json:"incarnation"` // the worker's own; grows with each of its starts
	Node        uint64        `json:"node"`        // whose gateway opened it
	TTL         time.Duration `json:"ttl"`
	// Wait is on_disconnect: a broken connection alone does not end the session
	// before its TTL.
	Wait bool `json:"wait,omitempty"`
	// What it told of itself, for people.
	Queues []string `json:"queues,omitempty"`
	Slots  int      `json:"slots,omitempty"`
	// Draining: it is to finish what it holds, and gets nothing more.
	Draining bool   `json:"draining,omitempty"`
	Ended    uint64 `json:"ended,omitempty"` // version at which it ended; 0: it is live
	Why      string `json:"why,omitempty"`   // it ended
}

// Live says whether the session may hold leases.
func (s *Session) Live() bool { return s.Ended == 0 }

// OpenSession opens a session. A repeat with the same worker and incarnation
// finds it; once it has ended the answer is SESSION_ENDED, and the worker starts
// anew with a higher incarnation.
type OpenSession struct {
	Worker      string        `json:"worker"`
	Incarnation uint64        `json:"incarnation"`
	Node        uint64        `json:"node"`
	TTL         time.Duration `json:"ttl"` // 0: DefaultTTL
	Wait        bool          `json:"wait,omitempty"`
	// Replace ends the worker's lower incarnations: it knows that they are dead.
	Replace bool     `json:"replace,omitempty"`
	Queues  []string `json:"queues,omitempty"`
	Slots   int      `json:"slots,omitempty"`
}

// EndSession ends a session. One that has ended or is forgotten stays as it is.
type EndSession struct {
	ID          uint64 `json:"id"`
	Incarnation uint64 `json:"incarnation"`
	Why         string `json:"why"` // for people: goodbye, connection lost, silent for 10 s
}

// DrainWorker has all live sessions of a worker drain. Those that it opens later do
// not: a worker that starts anew works.
type DrainWorker struct {
	Worker string `json:"worker"`
}

// ForgetSessions forgets the sessions that ended at or below a version. The
// monitor asks for it.
type ForgetSessions struct {
	UpTo uint64 `json:"up_to"`
}

func (s *Session) key() []byte { return binary.BigEndian.AppendUint64([]byte{rowSession}, s.ID) }

func sessionEnded(s *Session) *message.Error {
	return message.Errorf(message.SessionEnded, "the session of worker %q with incarnation %d has ended (%s): open one with a higher incarnation", s.Worker, s.Incarnation, s.Why)
}

func (m *Machine) openSession(c *OpenSession) Result {
	ttl := cmp.Or(c.TTL, DefaultTTL)
	if c.Worker == "" || len(c.Worker) > message.MaxWorker || c.Incarnation == 0 || ttl < MinTTL || ttl > MaxTTL {
		return Result{Err: message.Errorf(message.InvalidArgument, "a session wants a worker's name of 1 to %d bytes, an incarnation above 0 and a TTL of %s to %s, not %q, %d and %s", message.MaxWorker, MinTTL, MaxTTL, c.Worker, c.Incarnation, ttl)}
	}
	others := m.view.Worker(c.Worker)
	if i, ok := slices.BinarySearchFunc(others, c.Incarnation, byIncarnation); ok {
		r := Result{Session: others[i]}
		if !r.Session.Live() {
			r.Err = sessionEnded(r.Session)
		}
		return r
	}
	if len(others) >= MaxWorkerSessions || m.view.sessions.len >= MaxSessions {
		return Result{Err: message.Errorf(message.ResourceExhausted, "worker %q has %d sessions of %d, all workers %d of %d: give each process a name of its own, and try again when the ended ones are forgotten", c.Worker, len(others), MaxWorkerSessions, m.view.sessions.len, MaxSessions)}
	}
	if c.Replace {
		for _, s := range others {
			if s.Live() && s.Incarnation < c.Incarnation {
				m.end(s, "replaced by a higher incarnation")
			}
		}
	}
	cluster := m.view.Cluster
	s := &Session{
		ID: max(cluster.NextSession, 1), Worker: c.Worker, Incarnation: c.Incarnation, Node: c.Node, TTL: ttl, Wait: c.Wait,
		Queues: c.Queues, Slots: c.Slots,
	}
	cluster.NextSession = s.ID + 1
	m.set(cluster)
	m.set(s)
	return Result{Session: s, Created: true}
}

func (m *Machine) endSession(c *EndSession) Result {
	s, ok := m.view.Session(c.ID)
	switch {
	case !ok:
		return Result{}
	case s.Incarnation != c.Incarnation:
		return Result{Session: s, Err: message.Errorf(message.InvalidArgument, "session %d has the incarnation %d, not %d", s.ID, s.Incarnation, c.Incarnation)}
	case s.Live():
		s = m.end(s, c.Why)
	}
	return Result{Session: s}
}

func (m *Machine) end(s *Session, why string) *Session {
	n := *s
	n.Ended, n.Why = m.index, why
	m.set(&n)
	return &n
}

func (m *Machine) drainWorker(c *DrainWorker) Result {
	sessions := m.view.Worker(c.Worker)
	if len(sessions) == 0 {
		return Result{Err: message.Errorf(message.NotFound, "there is no worker %.100q in this cluster: see 'comanda worker list'", c.Worker)}
	}
	for _, s := range sessions {
		if s.Live() && !s.Draining {
			n := *s
			n.Draining = true
			m.set(&n)
		}
	}
	return Result{}
}

func (m *Machine) forgetSessions(c *ForgetSessions) Result {
	for _, s := range m.view.Sessions() {
		if !s.Live() && s.Ended <= c.UpTo {
			m.remove(s)
		}
	}
	return Result{}
}
