package queue

import (
	"bytes"
	"math"
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
)

// Cursor is a place in a list: everything up to this row was seen. Cells and
// their rows go from group to group as they are, so it outlives splits and moves.
type Cursor struct {
	Cell int
	Key  []byte // nil: before the first row of the cell
}

// ListQuery asks for up to Limit (at most message.MaxBatch) messages of a queue
// that its filter lets through, from where an answer before it stopped (the zero
// Cursor: from the first).
type ListQuery struct {
	Queue uint32        `json:"queue"`
	State message.State `json:"state"` // 0: any but those that have ended; only with a key
	From  Cursor        `json:"from"`
	Limit int           `json:"limit"`

	Key    string          `json:"key,omitempty"` // empty: any, and messages without one
	Hash   message.KeyHash `json:"hash"`          // of the key
	Type   string          `json:"type,omitempty"`
	Tenant string          `json:"tenant,omitempty"`
	Since  int64           `json:"since,omitempty"` // sent then or later, wall time, ms
	Until  int64           `json:"until,omitempty"` // sent before then; 0: no end
	Rows   int             `json:"rows,omitempty"`  // examine no more than so many; 0: message.MaxExamined
}

// maxListed bounds how many bytes one List answers with.
const maxListed = 4 << 20

// List reads messages from the queue's cells in this group that are asked for (a
// bit each; 0: all of them), cell by cell in the order of the index that it goes
// by. more says that next goes on where it stopped; that can be so although fewer
// than the limit were found. rows is how many of the index it has examined.
func List(rows Reader, q *Info, ask *ListQuery, cells uint32) (out []*Detail, next Cursor, more bool, examined int) {
	l := listing{rows: rows, queue: q, ask: ask, limit: min(ask.Limit, message.MaxBatch), most: message.MaxExamined}
	if ask.Rows > 0 {
		l.most = min(l.most, ask.Rows)
	}
	for n := ask.From.Cell; n < message.Cells; n++ {
		if _, ok := q.shardOf(n); !ok || cells != 0 && cells&(1<<n) == 0 {
			continue
		}
		kinds, lo := ask.indexes(q), []byte(nil)
		if from := ask.From; n == from.Cell && len(from.Key) > 0 && len(from.Key) == rowKeyLen[from.Key[0]] {
			if at := slices.Index(kinds, from.Key[0]); at >= 0 {
				kinds, lo = kinds[at:], append(slices.Clone(from.Key), 0)
			}
		}
		for _, kind := range kinds {
			if lo == nil {
				lo = []byte{kind}
			}
			if l.index(n, kind, lo) {
				return l.out, l.next, true, l.examined
			}
			lo = nil
		}
	}
	return l.out, Cursor{}, false, l.examined
}

// listing is a List under way.
type listing struct {
	rows     Reader
	queue    *Info
	ask      *ListQuery
	limit    int
	most     int // rows that it may examine
	examined int
	size     int64
	out      []*Detail
	next     Cursor
}

// index goes through one index of a cell; full: the list ends here.
func (l *listing) index(n int, kind byte, lo []byte) (full bool) {
	c := &cell{queue: &queue{number: l.queue.Number}, number: n, space: spaceOf(l.queue.Number, n)}
	for {
		found := l.scan(c, kind, lo, min(l.limit-len(l.out), l.most-l.examined))
		for _, f := range found {
			l.examined++
			if d, ok := detail(l.rows, l.queue, c, f.seq); ok && l.ask.lets(d, kind) {
				d.explain(l.rows, l.queue, c)
				l.out = append(l.out, d)
				l.size += d.size()
			}
			lo = append(slices.Clone(f.key), 0)
			l.next = Cursor{Cell: n, Key: f.key}
			if l.size >= maxListed {
				return true
			}
		}
		if len(l.out) >= l.limit || l.examined >= l.most {
			return true
		}
		if len(found) == 0 {
			return false
		}
	}
}

// lets says that the filter lets a message through that an index has shown.
func (a *ListQuery) lets(d *Detail, kind byte) bool {
	switch {
	case a.State != 0 && d.State != a.State,
		a.Key != "" && (d.Key != a.Key || kind == rowTimer && !d.aside),
		a.Type != "" && d.Type != a.Type,
		a.Tenant != "" && d.Tenant != a.Tenant,
		d.SentAt < a.Since,
		a.Until != 0 && d.SentAt >= a.Until:
		return false
	}
	return true
}

// Index names what the list goes by.
func (a *ListQuery) Index() string {
	switch {
	case a.byLine():
		return "key"
	case a.State == message.Scheduled:
		return "time"
	case a.State == message.Leased:
		return "lease"
	case a.State == message.Dead:
		return "dead"
	case a.State == message.Ready:
		return "arrival"
	}
	return "finished"
}

// byLine says that the line of a key has what is asked for. Messages that have
// ended are in no line.
func (a *ListQuery) byLine() bool {
	switch a.State {
	case 0, message.Ready, message.Scheduled, message.Leased:
		return a.Key != ""
	default:
		return false
	}
}

// indexes are the kinds of rows that the list goes by.
func (a *ListQuery) indexes(q *Info) []byte {
	switch {
	case !a.byLine():
		return indexes[a.State]
	case q.Settings.OnFailure == message.SkipKey && a.State != message.Ready && a.State != message.Leased:
		return []byte{rowBehind, rowTimer} // those that failed stand aside
	}
	return []byte{rowBehind}
}

// indexes are the kinds of rows that a list of a state goes by.
var indexes = map[message.State][]byte{
	message.Ready: {rowData}, message.Scheduled: {rowTimer, rowDeliver}, message.Leased: {rowLease}, message.Dead: {rowDead},
	message.Finished: {rowFinished}, message.Expired: {rowFinished}, message.Cancelled: {rowFinished},
}

// rowKeyLen is the length of the keys that a list goes by: a cursor that is not
// such a key is as good as none.
var rowKeyLen = map[byte]int{rowData: 9, rowTimer: 21, rowDeliver: 21, rowLease: 17, rowDead: 9, rowFinished: 9, rowBehind: 25}

type seqRow struct {
	key []byte
	seq uint64
}

// scan reads up to limit rows of an index of the list.
func (l *listing) scan(c *cell, kind byte, lo []byte, limit int) (out []seqRow) {
	hi := []byte{kind + 1}
	if kind == rowBehind {
		var k keys
		first := readLine(l.rows, &k, c, l.ask.Hash)
		if first.count == 0 {
			return nil
		}
		// The first of a line has no such row, but stands before those who have.
		hi = slices.Clone(k.behind(l.ask.Hash, math.MaxUint64))
		if head := slices.Clone(k.behind(l.ask.Hash, first.first)); bytes.Compare(lo, head) <= 0 && limit > 0 {
			out, lo = append(out, seqRow{head, first.first}), head
			limit--
		}
	}
	if limit < 1 || bytes.Compare(lo, hi) >= 0 { // a cursor of another key
		return out
	}
	return append(out, scanSeqs(l.rows, c.space, kind, lo, hi, limit)...)
}

// scanSeqs reads up to limit rows of one kind, each with the sequence number in
// its key.
func scanSeqs(rows Reader, space uint64, kind byte, lo, hi []byte, limit int) (out []seqRow) {
	at := 1
	switch kind {
	case rowTimer, rowDeliver:
		at = 9 // behind the due time
	case rowBehind:
		at = 17 // behind the key's hash
	}
	rows.Scan(space, lo, hi, func(key, _ []byte) bool {
		out = append(out, seqRow{key: slices.Clone(key), seq: beUint64(key[at:])})
		return len(out) < limit
	})
	return out
}
