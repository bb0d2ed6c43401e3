package operation

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// RedriveKind is the kind of the operations that revive dead messages.
const RedriveKind = "redrive"

// revive is the one step of a redrive: it is done again and again.
const revive = ""

// Redrive revives the dead messages of a queue that a filter chose, a limited number
// a step. How far it is lies in each cell, so what is kept here is only told.
type Redrive struct {
	Queue uint32 `json:"queue"`
	Name  string `json:"name"` // of the queue, for people
	message.Redrive
	// Through is the last message of each cell that was dead when it was counted; 0:
	// none was. What dies later behind it is left alone, so it ends.
	Through [message.Cells]uint64 `json:"through"`
	Count   int                   `json:"count"` // of messages that were chosen then
	// Target is the number of the queue that they are to live in; 0: where they are.
	Target uint32 `json:"target,omitempty"`
}

// RedriveSome is a step of a redrive in one cell.
type RedriveSome struct {
	Operation uint64
	Queue     *catalog.Queue
	Cell      int
	Through   uint64
	Limit     int            // of messages
	Target    *catalog.Queue // that they are to live in; nil: where they are
	message.Redrive
}

// RedriveProgress is how far a redrive is in one cell.
type RedriveProgress struct {
	Redriven, Skipped uint64 // so far
	Done              bool   // there is nothing more in the cell
}

// redriving is what a redrive keeps for its later steps.
type redriving struct {
	Cell     int                   `json:"cell"`
	Redriven [message.Cells]uint64 `json:"redriven"`
	Skipped  [message.Cells]uint64 `json:"skipped"`
	// Paid is the time up to which its rate is used up.
	Paid time.Time `json:"paid,omitzero"`
}

const (
	maxRedrive = 1_000 // messages a step
	// redriveAhead is how much of its rate a redrive may catch up with at once.
	redriveAhead = time.Second
)

// Begin is the operation, to be proposed to the catalog. The same key begins it
// once.
func (r *Redrive) Begin(key string) *catalog.BeginOperation {
	args, err := json.Marshal(r)
	if err != nil {
		panic(err) // our own structs always encode
	}
	title := fmt.Sprintf("redrive %d dead messages of queue %s", r.Count, r.Name)
	if r.To != "" {
		title += " to queue " + r.To
	}
	if words := r.Filter.String(); words != "" {
		title += " with " + words
	}
	return &catalog.BeginOperation{
		Key: key, Kind: RedriveKind, Title: message.ClipError(title),
		Subject: "the dead messages of queue " + r.Name, Args: args,
	}
}

// tell says what was asked for and how far it is: how many messages it chose before it
// began, has revived and has passed over.
func (r *Redrive) tell(o *catalog.Operation, info *message.OperationInfo) {
	var at redriving
	if len(o.Data) > 0 && json.Unmarshal(o.Data, &at) != nil {
		return
	}
	info.Chosen, info.Rate, info.To = int64(r.Count), r.Rate, r.To
	for n := range message.Cells {
		info.Redriven, info.Skipped = info.Redriven+int64(at.Redriven[n]), info.Skipped+int64(at.Skipped[n])
	}
}

func (r *Redrive) step(ctx context.Context, c Cluster, v *catalog.View, o *catalog.Operation, now time.Time) outcome {
	q, exists := v.QueueNumber(r.Queue)
	if !exists {
		return failed(message.Errorf(message.QueueNotFound, "queue %s was deleted meanwhile", r.Name))
	}
	if o.Step != revive {
		return waits("for a node whose program knows the step %q", o.Step)
	}
	var at redriving
	if len(o.Data) > 0 {
		if err := json.Unmarshal(o.Data, &at); err != nil {
			return failed(message.Errorf(message.Internal, "operation %d can't be read: %v", o.ID, err))
		}
	}
	for at.Cell < message.Cells && r.Through[at.Cell] == 0 {
		at.Cell++
	}
	if at.Cell >= message.Cells {
		return outcome{state: catalog.Done}
	}
	limit := r.room(&at, o.CreatedAt, now)
	if limit == 0 {
		return outcome{waits: o.Waits}
	}
	var target *catalog.Queue
	if r.Target != 0 {
		if target, exists = v.QueueNumber(r.Target); !exists {
			return failed(message.Errorf(message.QueueNotFound, "queue %s, which the messages were to live in, was deleted meanwhile", r.To))
		}
	}
	before := at.Redriven[at.Cell]
	p, err := c.RedriveSome(ctx, RedriveSome{Operation: o.ID, Queue: q, Target: target, Cell: at.Cell, Through: r.Through[at.Cell], Limit: limit, Redrive: r.Redrive})
	switch code := message.CodeOf(err); {
	case code == message.Conflict || code == message.NotFound:
		return failed(message.Errorf(code, "%v", err))
	case err != nil:
		return waits("for the group of cell %d of queue %s (%s)", at.Cell, r.Name, code)
	}
	at.Redriven[at.Cell], at.Skipped[at.Cell] = p.Redriven, p.Skipped
	r.pay(&at, p.Redriven-min(before, p.Redriven))
	if p.Done {
		at.Cell++
	}
	data, err := json.Marshal(&at)
	if err != nil {
		panic(err) // our own structs always encode
	}
	return outcome{data: data, again: true}
}

// room is how many messages may be revived now. Time that passed before the last
// redriveAhead is lost: nobody wants a second's worth of an hour's pause.
func (r *Redrive) room(at *redriving, begun, now time.Time) int {
	if r.Rate == 0 {
		return maxRedrive
	}
	if at.Paid.IsZero() {
		at.Paid = begun
	}
	if earliest := now.Add(-redriveAhead); at.Paid.Before(earliest) || at.Paid.After(now.Add(redriveAhead)) {
		at.Paid = earliest // also where another clock ran ahead
	}
	room := int(now.Sub(at.Paid) * time.Duration(r.Rate) / time.Second)
	return min(max(room, 0), maxRedrive)
}

// pay uses up the rate for messages that were revived.
func (r *Redrive) pay(at *redriving, n uint64) {
	if r.Rate > 0 {
		at.Paid = at.Paid.Add(time.Duration(n) * time.Second / time.Duration(r.Rate))
	}
}

// undo has nothing to do: what was revived lives.
func (r *Redrive) undo(context.Context, Cluster, *catalog.View, *catalog.Operation) error { return nil }
