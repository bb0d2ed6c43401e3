package queue

import (
	"encoding/binary"

	"github.com/comanda-mq/comanda/internal/message"
)

// Reader reads the rows of one replica as of one applied entry. Reads can't
// fail: a replica that can't read its rows can't go on, and its host ends it.
type Reader interface {
	// Get returns a copy of a row's value, and whether the row is there.
	Get(space uint64, key []byte) ([]byte, bool)
	// Has says whether a row is there.
	Has(space uint64, key []byte) bool
	// Scan visits rows from lo to before hi in order until visit says false.
	// The slices are only valid during the call; visit may not call Scan.
	Scan(space uint64, lo, hi []byte, visit func(key, value []byte) bool)
}

// Rows reads and writes the rows of one replica while one entry is applied.
type Rows interface {
	Reader
	Set(space uint64, key, value []byte)
	Delete(space uint64, key []byte)
	// SingleDelete deletes a row that was set exactly once since it was last
	// deleted. A kind of row is deleted either always by it or never.
	SingleDelete(space uint64, key []byte)
	// Clear drops a whole space.
	Clear(space uint64)
	// SpinOff gives spaces as they are to a group that is made of them; set writes
	// its first rows of groupSpace. replicas says which of its replicas comes to
	// be beside each of this group's. A refusal is the same on every replica, and
	// changes nothing.
	SpinOff(group uint64, replicas map[uint64]uint64, spaces []uint64) (set func(key, value []byte), refusal *message.Error)
}

// groupSpace holds the group's own rows.
const groupSpace = 0

// Kinds of rows in groupSpace.
const (
	rowGroup    = 'g' // group meta
	rowQueue    = 'q' // | queue number (4) → settings as configured
	rowShard    = 's' // | queue number (4) | first cell (1) → shard meta
	rowPace     = 'p' // | queue number (4) → by the queue's rate: when one more message is due to go out, group time (ns)
	rowSession  = 'w' // | session → attached, or ended
	rowLane     = 'l' // | sending node → boot number, floor
	rowExecuted = 'e' // | sending node | seq → what was answered; set once
)

// Kinds of rows in a cell's space. Sequence numbers and the like are 8 bytes,
// big-endian, so that rows of a kind lie in the order of arrival.
const (
	rowCell     = 'm' // cell meta
	rowData     = 'd' // | seq → head, small bodies inline; set once
	rowBody     = 'b' // | seq → a body that is not inline; set once
	rowState    = 's' // | seq → what decides once it is there
	rowLease    = 'l' // | seq | fence → who holds it; set once
	rowReady    = 'r' // | 9−priority (1) | seq | counter (4) → upper half of the key's hash (8), or nothing: may be handed out now
	rowTurn     = 'y' // | 9−priority (1) | tenant (8) | seq | counter (4) → as rowReady, for messages with a tenant
	rowTimer    = 't' // | due | seq | counter (4): ready at this group time
	rowDeliver  = 'w' // | due | seq | counter (4): ready at this wall time
	rowWindow   = 'v' // | due | seq | counter (4), which is 0 → point (8) | hash (16): the dedup row goes at this group time
	rowDedup    = 'p' // | point (8) | hash (16) → seq, due: the first message with a dedup id
	rowUnique   = 'u' // | point (8) | hash (16) → seq: the message that has a unique key
	rowPaceTime = 'c' // | due | seq | counter (4), which is 0 → key hash (16): its pace is looked at at this group time
	rowKeyPace  = 'a' // | key hash (16) → by rate_per_key: when one more message of the key is due, and whether it rests
	rowExpire   = 'e' // | due | seq | counter (4), which is 0: expires at this wall time
	rowLine     = 'k' // | key hash (16) → first and leased message of the key's line
	rowBehind   = 'n' // | key hash (16) | seq: in the line behind the first
	rowDead     = 'x' // | seq
	rowFinished = 'f' // | seq → header with outcome and history
	rowRing     = 'o' // | n → what finished in one entry, in that order
	rowOutbox   = 'O' // | queue (4) | cell (1) | seq → message, secret of that queue: it is to go there; set once
	rowForward  = 'W' // | seq → queue, cell, id: it went there
	rowForeign  = 'F' // | id (16) → seq: a message that was sent elsewhere
	rowInbox    = 'I' // | queue (4) | cell (1) → floor of what comes from there
	rowArrived  = 'J' // | queue (4) | cell (1) | seq → why it was refused, or nothing; set once
	rowRedrive  = 'z' // the last operation that redrives here, and how far it is
)

// spaceOf is the space of a cell. Queue numbers begin at 1 and are never used
// again, so a space is never another queue's, and never groupSpace.
func spaceOf(queue uint32, cell int) uint64 { return uint64(queue)<<8 | uint64(cell) }

func appendHash(b []byte, h message.KeyHash) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Hi)
	return binary.BigEndian.AppendUint64(b, h.Lo)
}

// Row keys are built in a scratch buffer that the next call overwrites: each is
// used at once.
type keys struct{ b []byte }

func (k *keys) one(kind byte) []byte {
	k.b = append(k.b[:0], kind)
	return k.b
}

func (k *keys) seq(kind byte, seq uint64) []byte {
	k.b = binary.BigEndian.AppendUint64(k.one(kind), seq)
	return k.b
}

func (k *keys) lease(seq, fence uint64) []byte {
	k.b = binary.BigEndian.AppendUint64(k.seq(rowLease, seq), fence)
	return k.b
}

func (k *keys) executed(node, seq uint64) []byte {
	k.b = binary.BigEndian.AppendUint64(k.seq(rowExecuted, node), seq)
	return k.b
}

// ready is where a message lies that may be handed out now; tenant 0: it has none.
func (k *keys) ready(t Turn, seq uint64, counter uint32) []byte {
	if t.Tenant == 0 {
		k.b = append(k.one(rowReady), message.MaxPriority-t.Priority)
	} else {
		k.turn(t)
	}
	k.b = binary.BigEndian.AppendUint64(k.b, seq)
	k.b = binary.BigEndian.AppendUint32(k.b, counter)
	return k.b
}

func (k *keys) turn(t Turn) []byte {
	k.b = binary.BigEndian.AppendUint64(append(k.one(rowTurn), message.MaxPriority-t.Priority), t.Tenant)
	return k.b
}

// timerRows are the kinds of rows of the kinds of timers.
var timerRows = [TimerKinds]byte{TimerDelay: rowTimer, TimerDeliver: rowDeliver, TimerExpire: rowExpire, TimerWindow: rowWindow, TimerPace: rowPaceTime}

func (k *keys) timer(kind TimerKind, due int64, seq uint64, counter uint32) []byte {
	k.b = binary.BigEndian.AppendUint64(k.seq(timerRows[kind], uint64(due)), seq)
	k.b = binary.BigEndian.AppendUint32(k.b, counter)
	return k.b
}

func (k *keys) line(h message.KeyHash) []byte {
	k.b = appendHash(k.one(rowLine), h)
	return k.b
}

func (k *keys) keyPace(h message.KeyHash) []byte {
	k.b = appendHash(k.one(rowKeyPace), h)
	return k.b
}

func (k *keys) behind(h message.KeyHash, seq uint64) []byte {
	k.b = binary.BigEndian.AppendUint64(appendHash(k.one(rowBehind), h), seq)
	return k.b
}

func (k *keys) mark(kind byte, p message.Point, h message.KeyHash) []byte {
	k.b = appendHash(k.seq(kind, uint64(p)), h)
	return k.b
}

func (k *keys) queue(number uint32) []byte {
	k.b = binary.BigEndian.AppendUint32(k.one(rowQueue), number)
	return k.b
}

func (k *keys) pace(number uint32) []byte {
	k.b = binary.BigEndian.AppendUint32(k.one(rowPace), number)
	return k.b
}

func (k *keys) shard(queue uint32, from int) []byte {
	k.b = append(binary.BigEndian.AppendUint32(k.one(rowShard), queue), byte(from))
	return k.b
}

func (k *keys) cell(kind byte, l Line) []byte {
	k.b = append(binary.BigEndian.AppendUint32(k.one(kind), l.Queue), byte(l.Cell))
	return k.b
}

func (k *keys) inbox(from Line) []byte { return k.cell(rowInbox, from) }

func (k *keys) outbox(to Line, seq uint64) []byte {
	k.b = binary.BigEndian.AppendUint64(k.cell(rowOutbox, to), seq)
	return k.b
}

func (k *keys) arrived(from Line, seq uint64) []byte {
	k.b = binary.BigEndian.AppendUint64(k.cell(rowArrived, from), seq)
	return k.b
}

func (k *keys) foreign(id message.ID) []byte {
	k.b = append(k.one(rowForeign), id[:]...)
	return k.b
}
