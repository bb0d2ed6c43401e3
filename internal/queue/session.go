package queue

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// maxSessions is how many sessions a group knows at the most. Ended ones make
// room for others.
const maxSessions = 1 << 16

// Session names a worker's session as somebody saw it in the catalog. Leases
// that are bound to it end with it, not at a deadline.
type Session struct {
	ID          uint64
	Incarnation uint64 // of the process that has it; never repeats
	// CatalogVersion is that of the copy in which the session was live, or ended.
	CatalogVersion uint64
}

// append writes a session; none is the ID 0 alone.
func (s *Session) append(b []byte) []byte {
	b = binary.AppendUvarint(b, s.ID)
	if s.ID != 0 {
		b = binary.AppendUvarint(binary.AppendUvarint(b, s.Incarnation), s.CatalogVersion)
	}
	return b
}

func decodeSession(d *decoder) (s Session) {
	if s.ID = d.uint(); s.ID != 0 {
		s.Incarnation, s.CatalogVersion = d.uint(), d.uint()
	}
	return s
}

// ExpireSession ends a session in this group, as the catalog has ended it: from
// this entry on what it holds settles nothing, and it gets nothing more. Its
// leases still stand, so their keys are still locked, until Expire ends them,
// some at a time.
type ExpireSession struct{ Session Session }

// Command encodes c.
func (c *ExpireSession) Command() Command {
	return Command{Head: c.Session.append([]byte{cmdExpireSession, laneNone})}
}

func (c *ExpireSession) decode(d *decoder) { c.Session = decodeSession(d) }

// Forget drops what the catalog has forgotten.
type Forget struct {
	Sessions uint64   // ended ones, up to this version of the catalog
	Nodes    []uint64 // lanes of nodes that were removed
}

// Command encodes c.
func (c *Forget) Command() Command {
	b := binary.AppendUvarint([]byte{cmdForget, laneNone}, c.Sessions)
	b = binary.AppendUvarint(b, uint64(len(c.Nodes)))
	for _, n := range c.Nodes {
		b = binary.AppendUvarint(b, n)
	}
	return Command{Head: b}
}

func (c *Forget) decode(d *decoder) {
	c.Sessions = d.uint()
	c.Nodes = make([]uint64, d.count(1))
	for i := range c.Nodes {
		c.Nodes[i] = d.uint()
	}
}

// session is a session's row: that it is attached to this group, or a
// tombstone, which keeps late requests of it out.
type session struct {
	Session
	ended bool
}

func (s *session) append(b []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, s.Incarnation), s.CatalogVersion)
	if s.ended {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeSessionRow(key, row []byte) *session {
	d := decoder{b: row}
	s := &session{Session: Session{ID: beUint64(key[1:]), Incarnation: d.uint(), CatalogVersion: d.uint()}, ended: d.byte() != 0}
	must(d.end("a session row"))
	return s
}

func (m *Machine) saveSession(s *session) {
	m.sessions[s.ID] = s
	m.buf = s.append(m.buf[:0])
	m.rows.Set(groupSpace, m.keys.seq(rowSession, s.ID), m.buf)
}

// attach lets a session hold leases in this group. A copy of the catalog that
// is older than what the group has heard of may show a session that has ended.
func (m *Machine) attach(s Session) *message.Error {
	known := m.sessions[s.ID]
	switch {
	case known != nil && known.Incarnation == s.Incarnation && !known.ended:
		return nil
	case known != nil && known.Incarnation >= s.Incarnation:
		return message.Errorf(message.SessionEnded, "session %d, incarnation %d, has ended: stop its work and open a new one", s.ID, s.Incarnation)
	case s.CatalogVersion < m.meta.catalog:
		return message.Errorf(message.Unavailable, "session %d was looked up in version %d of the catalog and this group knows of version %d: look again", s.ID, s.CatalogVersion, m.meta.catalog)
	case known == nil && !m.roomForSession():
		return message.Errorf(message.ResourceExhausted, "%d sessions are attached to this group already", maxSessions)
	}
	if known != nil && !known.ended {
		m.effect(Effect{Kind: SessionEnded, Session: s.ID, Incarnation: known.Incarnation})
	}
	m.meta.catalog = max(m.meta.catalog, s.CatalogVersion)
	m.saveSession(&session{Session: s})
	m.effect(Effect{Kind: SessionAttached, Session: s.ID, Incarnation: s.Incarnation, Catalog: s.CatalogVersion})
	return nil
}

// expireSession leaves a tombstone. A session that is not attached needs none:
// the catalog version keeps its late requests out.
func (m *Machine) expireSession(d *decoder) {
	var c ExpireSession
	c.decode(d)
	s := c.Session
	if d.bad {
		return
	}
	m.meta.catalog = max(m.meta.catalog, s.CatalogVersion)
	known := m.sessions[s.ID]
	if known == nil || known.Incarnation > s.Incarnation || (known.Incarnation == s.Incarnation && known.ended) {
		return
	}
	m.saveSession(&session{Session: s, ended: true})
	m.effect(Effect{Kind: SessionEnded, Session: s.ID, Incarnation: s.Incarnation})
}

// roomForSession drops all tombstones if it must. Without one a late request is
// still refused, by the catalog version that came with the session's end, and
// what the session held is still not its own.
func (m *Machine) roomForSession() bool {
	if len(m.sessions) >= maxSessions {
		m.forgetSessions(m.meta.catalog)
	}
	return len(m.sessions) < maxSessions
}

// forgetSessions drops the tombstones up to a version of the catalog.
func (m *Machine) forgetSessions(upTo uint64) {
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		if s := m.sessions[id]; s.ended && s.CatalogVersion <= upTo {
			delete(m.sessions, id)
			m.rows.Delete(groupSpace, m.keys.seq(rowSession, id))
		}
	}
}

// live says that a lease's session has not ended.
func (m *Machine) live(l *lease) bool {
	s := m.sessions[l.session]
	return s != nil && s.Incarnation == l.incarnation && !s.ended
}

func liveSession(rows Reader, k *keys, id, incarnation uint64) bool {
	key := k.seq(rowSession, id)
	row, ok := rows.Get(groupSpace, key)
	if !ok {
		return false
	}
	s := decodeSessionRow(key, row)
	return s.Incarnation == incarnation && !s.ended
}

func (m *Machine) forgetAll(d *decoder) {
	var c Forget
	c.decode(d)
	if d.bad {
		return
	}
	m.forgetSessions(c.Sessions)
	for _, node := range c.Nodes {
		m.dropLane(node)
	}
}

// lose gives back what a worker held that is gone. Others may have it at once:
// it was not the message that failed, unless it takes every worker with it.
func (m *Machine) lose(h *held) {
	m.giveBackLater(h)
	if h.cancelling() {
		m.cancelHeld(h, WorkerLost, "")
		return
	}
	st := h.stand()
	st.remember(m.attempt(h, WorkerLost, ""))
	st.deaths++
	h.cell.totals.Failed++
	m.endLease(h, WorkerLost)
	if st.deaths >= h.cell.queue.settings.MaxWorkerDeaths {
		m.die(h.stored)
		return
	}
	m.retry(h.stored, 0)
}

// SessionInfo is a session that is attached to a group, or has ended there.
type SessionInfo struct {
	Session
	Ended bool // a tombstone
}

// Sessions reads the sessions that a group knows, by id.
func Sessions(rows Reader) (out []SessionInfo) {
	rows.Scan(groupSpace, []byte{rowSession}, []byte{rowSession + 1}, func(k, v []byte) bool {
		s := decodeSessionRow(k, v)
		out = append(out, SessionInfo{Session: s.Session, Ended: s.ended})
		return true
	})
	return out
}
