package queue

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/comanda-mq/comanda/internal/message"
)

// Query is a read of a group's rows as a value, so that it can be asked on
// another node. One of its fields is set.
type Query struct {
	Show  *message.ID `json:"show,omitempty"`
	At    *Line       `json:"at,omitempty"` // with Show: the cell that the message went to; nil: that of its id
	List  *ListQuery  `json:"list,omitempty"`
	Dead  *DeadQuery  `json:"dead,omitempty"`
	Queue uint32      `json:"queue,omitempty"` // with counts
	// Cells are those of the queue that List and Queue look for in this group, a bit
	// each; Show looks for its message's.
	Cells uint32 `json:"cells,omitempty"`
}

// Answer is what a Query found.
type Answer struct {
	// Moved says that the group gave some of the cells away, so the question has to
	// go where the catalog has them by now. Nothing else is answered.
	Moved bool `json:"moved,omitempty"`

	Message *Detail `json:"message,omitempty"` // to Show; nil: not known here, or forgotten
	On      *Line   `json:"on,omitempty"`      // to Show: where the message went from here
	Queue   *Info   `json:"queue,omitempty"`   // to Queue; nil: not in this group
	Dead    *Dead   `json:"dead,omitempty"`    // to Dead
	// To List. More: the next page begins at Next; that can be so although fewer
	// were found than asked for. Rows: of the index, that were examined.
	Messages []*Detail `json:"messages,omitempty"`
	Next     Cursor    `json:"next"`
	More     bool      `json:"more,omitempty"`
	Rows     int       `json:"rows,omitempty"`
}

// Run answers the query from the rows of one replica.
func (q *Query) Run(rows Reader) (a Answer) {
	if q.moved(rows) {
		return Answer{Moved: true}
	}
	switch {
	case q.Show != nil:
		a.Message, a.On = Find(rows, *q.Show, q.line())
	case q.List != nil:
		info, _ := Queue(rows, q.List.Queue)
		a.Messages, a.Next, a.More, a.Rows = List(rows, &info, q.List, q.Cells)
	case q.Dead != nil:
		a.Dead = q.Dead.run(rows)
	default:
		if info, ok := Queue(rows, q.Queue); ok {
			info.ReadOldest(rows)
			a.Queue = &info
		}
	}
	return a
}

// line is the cell that Show looks in.
func (q *Query) line() Line {
	if q.At != nil {
		return *q.At
	}
	return Line{Queue: q.Show.Queue(), Cell: q.Show.Point().Cell()}
}

// moved says that cells which are asked for are not here. A queue that the group
// does not know was not configured yet: nothing is in it.
func (q *Query) moved(rows Reader) bool {
	number, cells := q.Queue, q.Cells
	switch {
	case q.Show != nil:
		at := q.line()
		number, cells = at.Queue, 1<<at.Cell
	case q.List != nil:
		number = q.List.Queue
	case q.Dead != nil:
		number, cells = q.Dead.Queue, 1<<q.Dead.Cell
	}
	var k keys
	if !rows.Has(groupSpace, k.queue(number)) {
		return false
	}
	info := Info{Number: number}
	info.readBounds(rows)
	for _, s := range info.Shards {
		for n := s.From; n <= s.To; n++ {
			cells &^= 1 << n
		}
	}
	return cells != 0
}

// Reads are rare beside writes, so queries and answers travel as JSON.

// Encode writes the query for another node.
func (q *Query) Encode() []byte { return encode(q) }

// DecodeQuery reads what Query.Encode wrote. A query with a field that this
// version does not know is refused: its answer would be one to another question.
func DecodeQuery(b []byte) (q Query, err error) {
	if err := decodeStrictly(b, &q, "query"); err != nil {
		return Query{}, err
	}
	if q.At != nil && (q.Show == nil || q.At.Cell < 0 || q.At.Cell >= message.Cells) {
		return Query{}, fmt.Errorf("queue: a query shows what is in cell %d, which does not exist", q.At.Cell)
	}
	if c := q.Dead; c != nil && (c.Cell < 0 || c.Cell >= message.Cells) {
		return Query{}, fmt.Errorf("queue: a query asks for the dead of cell %d, which does not exist", c.Cell)
	}
	if l := q.List; l != nil && (l.From.Cell < 0 || l.From.Cell >= message.Cells) {
		return Query{}, fmt.Errorf("queue: a query lists from cell %d, which does not exist", l.From.Cell)
	}
	return q, nil
}

// Encode writes the answer for another node.
func (a *Answer) Encode() []byte { return encode(a) }

// DecodeAnswer reads what Answer.Encode wrote.
func DecodeAnswer(b []byte) (a Answer, err error) {
	if err := decodeStrictly(b, &a, "answer"); err != nil {
		return Answer{}, err
	}
	return a, nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	must(err) // these types always encode
	return b
}

func decodeStrictly(b []byte, v any, what string) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("queue: a %s of another node does not read: %w", what, err)
	}
	return nil
}
