package leader

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
	"github.com/comanda-mq/comanda/internal/slowlog"
)

// Caller asks another node. Its errors are about the way there: Unavailable
// says that the request was not sent, and so did not happen; UnknownOutcome
// that it was, and that there is no answer.
type Caller interface {
	// Call returns the answer. When hurry is closed the other node is told to
	// answer with what it has; when ctx ends nobody waits for it any more.
	Call(ctx context.Context, node uint64, request []byte, hurry <-chan struct{}) ([]byte, error)
}

// Elsewhere reaches the groups that other nodes lead. It remembers where a
// group was found.
type Elsewhere struct {
	Caller Caller
	// Self is this node, which is never asked.
	Self func() uint64
	// Nodes lists the other nodes that have a replica of a group, the one that is
	// thought to lead it first.
	Nodes func(group uint64) []uint64
	// Leads is the node that leads a group, as far as it is known here; 0: not known.
	Leads func(group uint64) uint64

	turn  atomic.Uint32
	mu    sync.Mutex
	found map[uint64]uint64 // group → node
}

// Group is a group that another node leads.
func (e *Elsewhere) Group(id uint64) *Remote { return &Remote{id: id, at: e} }

// ask carries a request for a group to the node that leads it, as far as is
// known. NotLeader says that it did not happen and that another attempt may find
// the leader.
func (e *Elsewhere) ask(ctx context.Context, group uint64, request []byte, hurry <-chan struct{}) ([]byte, error) {
	node := e.where(group)
	if node == 0 {
		return nil, message.Errorf(message.NotLeader, "no other node is known to have group %d", group)
	}
	ctx, stop := e.unlessFollowed(ctx, group, node)
	defer stop()
	b, err := e.Caller.Call(ctx, node, request, hurry)
	if err != nil {
		e.note(group, 0)
		if message.CodeOf(err) == message.Unavailable {
			return nil, message.Errorf(message.NotLeader, "node %d, which may lead group %d, can't be reached: %v", node, group, err)
		}
		return nil, err
	}
	fields, leads, err := readAnswer(b)
	if message.CodeOf(err) == message.NotLeader {
		e.note(group, leads)
	} else if err == nil {
		e.note(group, node)
	}
	return fields, err
}

// lookEvery is how often somebody who waits for an answer looks whether another node
// leads the group by now.
const lookEvery = 500 * time.Millisecond

// unlessFollowed lets nobody wait for a node that another one has followed as the
// leader: one whose disk stands still does not know it, and answers when that goes
// on.
func (e *Elsewhere) unlessFollowed(ctx context.Context, group, node uint64) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	was := e.Leads(group)
	var mu sync.Mutex // of look
	var look *time.Timer
	mu.Lock()
	defer mu.Unlock()
	look = time.AfterFunc(lookEvery, func() { //nolint:forbidigo // it bounds a wait, as deadlines of contexts do
		// What is known here may be older than what led to that node.
		if leads := e.Leads(group); leads != 0 && leads != node && leads != was {
			cancel(message.Errorf(message.UnknownOutcome, "node %d leads group %d by now", leads, group))
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil { // else it was stopped while it looked
			look.Reset(lookEvery)
		}
	})
	return ctx, func() {
		cancel(nil)
		mu.Lock()
		defer mu.Unlock()
		look.Stop()
	}
}

// where is the node to ask: the one that was found last, else each in turn.
func (e *Elsewhere) where(group uint64) uint64 {
	e.mu.Lock()
	node := e.found[group]
	e.mu.Unlock()
	if node != 0 {
		return node
	}
	nodes := e.Nodes(group)
	if len(nodes) == 0 {
		return 0
	}
	return nodes[int(e.turn.Add(1)-1)%len(nodes)]
}

// note remembers where a group is led; 0: not known any more.
func (e *Elsewhere) note(group, node uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.found == nil {
		e.found = map[uint64]uint64{}
	}
	if node == 0 || node == e.Self() {
		delete(e.found, group)
	} else {
		e.found[group] = node
	}
}

// Remote is a group whose leader is on another node: it does by requests what a
// Group does here.
type Remote struct {
	id uint64
	at *Elsewhere
}

// ID is the group's number.
func (r *Remote) ID() uint64 { return r.id }

// Propose has a command put into the log and returns its result.
func (r *Remote) Propose(ctx context.Context, c queue.Command) (any, error) {
	op := slowlog.Of(ctx)
	began := op.Now()
	b, err := r.at.ask(ctx, r.id, queue.AppendCommand(appendRequest(nil, askPropose, r.id), c), nil)
	op.Proposed(r.id, began, slowlog.Stages{})
	if err != nil {
		return nil, err
	}
	return queue.DecodeResult(b)
}

// Read has a query answered by the other node.
func (r *Remote) Read(ctx context.Context, q *queue.Query, within time.Duration) (queue.Answer, message.Freshness, error) {
	b := binary.AppendUvarint(appendRequest(nil, askRead, r.id), uint64(within.Milliseconds()))
	b, err := r.at.ask(ctx, r.id, append(b, q.Encode()...), nil)
	if err != nil {
		return queue.Answer{}, message.Freshness{}, err
	}
	return readFresh(b)
}

// Status is what the other node knows of the group.
func (r *Remote) Status(ctx context.Context) (s replica.Status, err error) {
	b, err := r.at.ask(ctx, r.id, appendRequest(nil, askStatus, r.id), nil)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// Catalog carries a change to the leader of the catalog.
func (r *Remote) Catalog(ctx context.Context, c catalog.Command) (result catalog.Result, err error) {
	b, err := r.at.ask(ctx, r.id, append(appendRequest(nil, askCatalog, r.id), c.Encode()...), nil)
	if err != nil {
		return result, err
	}
	return catalog.DecodeResult(b)
}

// Beat carries a bundle of beats to the leader of the catalog.
func (r *Remote) Beat(ctx context.Context, b liveness.Bundle) (heard []liveness.Report, err error) {
	fields, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	fields, err = r.at.ask(ctx, r.id, append(appendRequest(nil, askBeat, r.id), fields...), nil)
	if err == nil {
		err = json.Unmarshal(fields, &heard)
	}
	return heard, err
}

// takeFor is how long one question of a receiver that waits goes on. It is
// asked again until the receiver leaves.
const takeFor = time.Minute

// Wait lets a call wait for messages of its queue in this group. It answers
// through the call.
//
// The call's room is one, wherever it waits. A call that waits at this group
// alone lends all of it at once; one that waits at several asks each to say when
// it has something, and lends its room then.
func (r *Remote) Wait(c *Call) {
	if !c.waits(r) {
		return
	}
	n := 0
	if c.alone {
		n, _, _ = c.lend() // now: a call that does not wait is over before serve begins
	}
	go r.serve(c, n)
}

// Leave is there for calls that wait here and elsewhere: closing them ends it.
func (r *Remote) Leave(*Call) {}

// serve brings a call what the other node has for it, until the call is over. n is
// what it was lent.
func (r *Remote) serve(c *Call, n int) {
	for ; ; n = 0 {
		if !c.alone {
			if err := r.peek(c); err != nil {
				c.deliver(0, nil, err)
				return
			}
		}
		var over bool
		var moved <-chan struct{}
		if n == 0 {
			n, over, moved = c.lend()
		}
		switch {
		case over:
			return
		case n == 0: // all of the room is lent elsewhere
			select {
			case <-moved:
			case <-c.closing:
				return
			}
			continue
		}
		got, err := r.take(c, n)
		c.deliver(n, got, err)
		if err != nil {
			return
		}
		c.waitOn()
	}
}

// peek returns when the group has a message for the call's queue, or may have.
func (r *Remote) peek(c *Call) *message.Error {
	ctx, cancel := context.WithTimeout(context.Background(), takeFor+answerWithin)
	defer cancel()
	b := binary.AppendUvarint(appendRequest(nil, askPeek, r.id), uint64(c.Queue))
	_, err := r.at.ask(ctx, r.id, append(b, c.Worker...), c.closing)
	switch {
	case err == nil:
		return nil
	case message.CodeOf(err) == message.UnknownOutcome: // of a question, which does nothing
		return message.Errorf(message.NotLeader, "group %d was asked whether it has messages, and did not answer: %v", r.id, err)
	default:
		return asError(err)
	}
}

// answerWithin is how long an answer may take besides what it waits for.
const answerWithin = 5 * time.Second

// take asks for up to n messages.
func (r *Remote) take(c *Call, n int) ([]queue.Leased, *message.Error) {
	wait := takeFor
	if !c.alone {
		wait = 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait+answerWithin)
	defer cancel()
	fields, err := json.Marshal(taking{Room: n, Wait: wait, Lease: c.Lease})
	if err != nil {
		return nil, asError(err)
	}
	b, err := r.at.ask(ctx, r.id, append(appendRequest(nil, askTake, r.id), fields...), c.closing)
	if err != nil {
		return nil, asError(err)
	}
	result, err := queue.DecodeResult(b)
	if err != nil {
		return nil, asError(err)
	}
	got, ok := result.(queue.LeaseResult)
	if !ok {
		return nil, asError(errWire)
	}
	return got.Leased, got.Err
}

// readFresh reads an answer to a query and how fresh it is.
func readFresh(b []byte) (a queue.Answer, f message.Freshness, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return a, f, errWire
	}
	if err := json.Unmarshal(b[n:n+int(size)], &f); err != nil {
		return a, f, errWire
	}
	a, err = queue.DecodeAnswer(b[n+int(size):])
	return a, f, err
}
