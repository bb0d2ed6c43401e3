package leader

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Service answers what other nodes ask of the groups that are here. It is the
// other side of Remote.
type Service struct {
	Node  string // this node's name
	Group func(id uint64) (*Group, bool)
	Meta  func() *Meta
	// Leads is the node that leads a group, as far as it is known here; 0: not
	// known.
	Leads func(group uint64) uint64
}

// gone says that nobody waits for the answer any more. A context that was
// cancelled only means that it is wanted soon.
func gone(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.Canceled)
}

// Answer answers one request.
func (s *Service) Answer(ctx context.Context, request []byte) []byte {
	kind, id, fields, ok := readRequest(request)
	if !ok {
		return appendRefusal(nil, errWire)
	}
	b, err := s.answer(ctx, kind, id, fields)
	switch {
	case err == nil:
		return b
	case message.CodeOf(err) == message.NotLeader:
		return binary.AppendUvarint([]byte{elsewhere}, s.Leads(id))
	default:
		return appendRefusal(nil, err)
	}
}

func (s *Service) answer(ctx context.Context, kind byte, id uint64, fields []byte) ([]byte, error) {
	if id == catalog.MetaGroup {
		return s.answerMeta(ctx, kind, fields)
	}
	g, ok := s.Group(id)
	if !ok {
		return nil, message.Errorf(message.NotLeader, "group %d has no replica here", id)
	}
	switch kind {
	case askPropose:
		return s.propose(ctx, g, fields)
	case askRead:
		return s.read(ctx, g, fields)
	case askTake:
		return s.take(ctx, g, fields)
	case askPeek:
		number, n := binary.Uvarint(fields)
		if n <= 0 || len(fields)-n > message.MaxWorker {
			return nil, errWire
		}
		return []byte{answered}, g.peek(ctx, uint32(number), string(fields[n:]))
	case askStatus:
		return appendJSON([]byte{answered}, g.raft.Status())
	case askClaim:
		return s.claim(ctx, g, fields)
	case askReceivers:
		return s.receivers(ctx, g, fields)
	case askAwait:
		return s.await(ctx, g, fields)
	case askOwners:
		return s.owners(ctx, g, fields)
	case askHolds:
		return aboutSessions(ctx, fields, g.Holds)
	}
	return nil, errWire
}

// answerMeta answers what is asked of the meta group.
func (s *Service) answerMeta(ctx context.Context, kind byte, fields []byte) ([]byte, error) {
	m := s.Meta()
	if m == nil {
		return nil, message.Errorf(message.NotLeader, "the catalog has no replica here")
	}
	switch kind {
	case askBeat:
		return s.beat(ctx, m, fields)
	case askCatalog:
		return s.change(ctx, m, fields)
	case askHeard:
		return aboutSessions(ctx, fields, m.Heard)
	case askStatus:
		return appendJSON([]byte{answered}, m.raft.Status())
	}
	return nil, errWire
}

func (s *Service) beat(ctx context.Context, m *Meta, fields []byte) ([]byte, error) {
	var b liveness.Bundle
	if err := json.Unmarshal(fields, &b); err != nil {
		return nil, errWire
	}
	heard, err := m.Beat(ctx, b)
	if err != nil {
		return nil, err
	}
	return appendJSON([]byte{answered}, heard)
}

func (s *Service) change(ctx context.Context, m *Meta, fields []byte) ([]byte, error) {
	c, err := catalog.DecodeCommand(fields)
	if err != nil {
		return nil, err
	}
	result, err := m.Propose(ctx, c)
	if err != nil {
		return nil, err
	}
	return append([]byte{answered}, result.Encode()...), nil
}

func (s *Service) propose(ctx context.Context, g *Group, fields []byte) ([]byte, error) {
	c, err := queue.DecodeCommand(fields)
	if err != nil {
		return nil, err
	}
	result, err := g.Propose(ctx, c)
	if err != nil {
		return nil, err
	}
	return queue.AppendResult([]byte{answered}, result), nil
}

func (s *Service) read(ctx context.Context, g *Group, fields []byte) ([]byte, error) {
	within, n := binary.Uvarint(fields)
	if n <= 0 {
		return nil, errWire
	}
	q, err := queue.DecodeQuery(fields[n:])
	if err != nil {
		return nil, err
	}
	a, fresh, err := g.Read(ctx, &q, time.Duration(within)*time.Millisecond)
	if err != nil {
		return nil, err
	}
	fresh.ServedBy = s.Node
	f, err := json.Marshal(fresh)
	if err != nil {
		return nil, err
	}
	b := binary.AppendUvarint([]byte{answered}, uint64(len(f)))
	return append(append(b, f...), a.Encode()...), nil
}

// take lets a receiver of another node wait here.
func (s *Service) take(ctx context.Context, g *Group, fields []byte) ([]byte, error) {
	var t taking
	if err := json.Unmarshal(fields, &t); err != nil || t.Room < 1 || t.Room > message.MaxBatch {
		return nil, errWire
	}
	c := NewCall(t.Lease.Queue, message.ReceiveOptions{Max: t.Room, Worker: t.Lease.Worker}, 1)
	c.Lease = t.Lease
	wait, cancel := context.WithTimeout(ctx, t.Wait)
	defer cancel()
	g.Wait(c)
	got, err := c.Collect(wait)
	if gone(ctx) {
		g.giveBack(t.Lease.Session.ID, got)
		return nil, errGone
	}
	if err != nil && err.Code == message.NotLeader && len(got) == 0 {
		return nil, err // so that they learn where it is led
	}
	return queue.AppendResult([]byte{answered}, queue.LeaseResult{Leased: got, Looked: len(got), Err: err}), nil
}

var errGone = message.Errorf(message.Unavailable, "nobody waits for the answer any more")

// giveBack releases what nobody is there to take any more. What is not given
// back waits for the end of its lease.
func (g *Group) giveBack(session uint64, got []queue.Leased) {
	if len(got) == 0 {
		return
	}
	c := queue.Settle{Settlements: Releases(session, got)}
	g.raft.Propose(replica.Command(c.Command()), func(any, error) {})
}

// Releases are the settlements that give back, without counting, what a session
// (0: none) was handed.
func Releases(session uint64, got []queue.Leased) []message.Settlement {
	ss := make([]message.Settlement, len(got))
	for i := range got {
		ss[i] = message.Settlement{Token: message.Token{ID: got[i].ID, Place: got[i].Place, Fence: got[i].Fence, Session: session}, Action: message.Release}
	}
	slices.Reverse(ss) // later ones of a key first: an earlier one would take them with it
	return ss
}

func appendJSON(b []byte, v any) ([]byte, error) {
	j, err := json.Marshal(v)
	return append(b, j...), err
}
