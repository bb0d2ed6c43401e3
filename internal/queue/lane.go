package queue

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// A sender that does not get an answer can't tell a lost command from a lost
// answer. So it numbers its commands, and the group keeps what it answered
// until the sender has heard it: a command that comes again, also to the next
// leader, is answered again and does nothing.

// Lane is how a sender numbers one command. Seq is one counter of the sender
// over all groups; no command of a lower number than Floor will come again.
type Lane struct {
	Node  uint64 // the sender
	Boot  uint64 // a higher one replaces a lower one with all that was kept for it
	Seq   uint64
	Floor uint64
}

// What is kept for one sender: above it, commands are refused with
// RESOURCE_EXHAUSTED until the floor rises.
const (
	maxExecuted      = 64 << 10
	maxExecutedBytes = 64 << 20
	maxLanes         = 1 << 10 // senders
)

// WithLane numbers a command, which has no number yet.
func (c Command) WithLane(l Lane) Command {
	head := append(make([]byte, 0, len(c.Head)+4*binary.MaxVarintLen64), c.Head[0], laneNumbered)
	for _, v := range []uint64{l.Node, l.Boot, l.Seq, l.Floor} {
		head = binary.AppendUvarint(head, v)
	}
	return Command{Head: append(head, c.Head[2:]...), Bodies: c.Bodies}
}

func decodeLane(d *decoder) Lane {
	return Lane{Node: d.uint(), Boot: d.uint(), Seq: d.uint(), Floor: d.uint()}
}

// lane is what the group knows of one sender: its row and, in memory only, the
// numbers of its result rows.
type lane struct {
	node, boot, floor uint64
	executed          []executed // by seq, none below floor
	bytes             int        // of their results
	dirty             bool
}

type executed struct {
	seq  uint64
	size int
}

func (l *lane) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, l.boot), l.floor)
}

func decodeLaneRow(key, row []byte) *lane {
	d := decoder{b: row}
	l := &lane{node: beUint64(key[1:]), boot: d.uint(), floor: d.uint()}
	must(d.end("a lane row"))
	return l
}

// find returns the place of a number among the executed ones, and whether it is
// there.
func (l *lane) find(seq uint64) (int, bool) {
	if n := len(l.executed); n == 0 || l.executed[n-1].seq < seq {
		return n, false // most come in order
	}
	return slices.BinarySearchFunc(l.executed, seq, func(e executed, seq uint64) int { return cmp.Compare(e.seq, seq) })
}

func (l *lane) insert(at int, e executed) {
	l.executed = slices.Insert(l.executed, at, e)
	l.bytes += e.size
}

// loadLanes reads what was kept for all senders.
func (m *Machine) loadLanes(rows Reader) {
	rows.Scan(groupSpace, []byte{rowLane}, []byte{rowLane + 1}, func(k, v []byte) bool {
		l := decodeLaneRow(k, v)
		m.lanes[l.node] = l
		return true
	})
	rows.Scan(groupSpace, []byte{rowExecuted}, []byte{rowExecuted + 1}, func(k, v []byte) bool {
		l := m.lanes[beUint64(k[1:])]
		l.insert(len(l.executed), executed{seq: beUint64(k[9:]), size: len(v)})
		return true
	})
}

// Senders lists those for whom the group keeps answers.
func Senders(rows Reader) (nodes []uint64) {
	rows.Scan(groupSpace, []byte{rowLane}, []byte{rowLane + 1}, func(k, _ []byte) bool {
		nodes = append(nodes, beUint64(k[1:]))
		return true
	})
	return nodes
}

// applyOnce applies a numbered command, unless that was done before. Leases are
// not numbered: they are the leader's own, and of those whose answer is lost claims
// tell.
func (m *Machine) applyOnce(kind byte, d *decoder, e *entry) any {
	number := decodeLane(d)
	l, err := m.enter(number)
	if err != nil {
		skip(kind, d, e)
		return err
	}
	at, done := l.find(number.Seq)
	switch {
	case done:
		skip(kind, d, e)
		row, _ := m.rows.Get(groupSpace, m.keys.executed(l.node, number.Seq))
		kept := decoder{b: row}
		result := decodeResult(&kept)
		must(kept.end("a kept result"))
		return result
	case len(l.executed) >= maxExecuted || l.bytes >= maxExecutedBytes:
		skip(kind, d, e)
		return message.Errorf(message.ResourceExhausted, "%d answers to node %d, with %d bytes, are kept until it has heard them", len(l.executed), l.node, l.bytes)
	}
	result := m.apply(kind, d, e)
	if m.lanes[l.node] != l {
		return result // the command was to forget its sender
	}
	m.buf = AppendResult(m.buf[:0], result)
	m.rows.Set(groupSpace, m.keys.executed(l.node, number.Seq), m.buf)
	l.insert(at, executed{seq: number.Seq, size: len(m.buf)})
	return result
}

// enter finds the lane of a command and drops what its sender has heard.
func (m *Machine) enter(number Lane) (*lane, *message.Error) {
	l := m.lanes[number.Node]
	switch {
	case l == nil && len(m.lanes) >= maxLanes:
		return nil, message.Errorf(message.ResourceExhausted, "answers are kept for %d senders already", maxLanes)
	case l == nil:
		l = &lane{node: number.Node, boot: number.Boot}
		m.lanes[number.Node] = l
		m.touchLane(l)
	case number.Boot < l.boot:
		return nil, message.Errorf(message.Conflict, "node %d has started again (boot %d) since it sent this (boot %d)", number.Node, l.boot, number.Boot)
	case number.Boot > l.boot:
		m.trimLane(l, len(l.executed))
		l.boot, l.floor = number.Boot, 0
		m.touchLane(l)
	}
	if number.Floor > l.floor {
		l.floor = number.Floor
		heard, _ := l.find(l.floor)
		m.trimLane(l, heard)
		m.touchLane(l)
	}
	if number.Seq < l.floor {
		return nil, message.Errorf(message.Conflict, "node %d has done with its command %d: this is a late copy", number.Node, number.Seq)
	}
	return l, nil
}

func (m *Machine) touchLane(l *lane) {
	if !l.dirty {
		l.dirty = true
		m.entered = append(m.entered, l)
	}
}

// trimLane drops the first n results.
func (m *Machine) trimLane(l *lane, n int) {
	for _, e := range l.executed[:n] {
		m.rows.SingleDelete(groupSpace, m.keys.executed(l.node, e.seq))
		l.bytes -= e.size
	}
	l.executed = slices.Delete(l.executed, 0, n)
}

// dropLane forgets a sender.
func (m *Machine) dropLane(node uint64) {
	l := m.lanes[node]
	if l == nil {
		return
	}
	m.trimLane(l, len(l.executed))
	m.rows.Delete(groupSpace, m.keys.seq(rowLane, node))
	m.entered = slices.DeleteFunc(m.entered, func(o *lane) bool { return o == l })
	delete(m.lanes, node)
}

// flushLanes writes back the lanes that the entry changed.
func (m *Machine) flushLanes() {
	for _, l := range m.entered {
		m.buf = l.append(m.buf[:0])
		m.rows.Set(groupSpace, m.keys.seq(rowLane, l.node), m.buf)
		l.dirty = false
	}
	m.entered = m.entered[:0]
}

// skip passes over a command that is not applied, and over its bodies.
func skip(kind byte, d *decoder, e *entry) {
	bodies := 0
	switch kind {
	case cmdSend, cmdSendAtomic:
		bodies = skipSend(d)
	case cmdSettleSend:
		bodies = skipSettle(d, kind)
	}
	if bodies > len(e.bodies) {
		d.fail()
		return
	}
	e.bodies = e.bodies[bodies:]
	d.b = nil
}
