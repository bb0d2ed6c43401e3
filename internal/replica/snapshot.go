package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/state"
)

// sending is the one snapshot that the node sends at a time.
type sending struct {
	group *Group
	index uint64 // of the last entry in it; the log from there on is kept
	to    uint64
	view  *state.View
	ticks chan struct{} // one slot
	// abort ends it with a reason; nil until the message has left raft.
	abort context.CancelCauseFunc
}

// snapshot gives raft the metadata of a snapshot that a follower needs. The
// rows are those of a view that stays as it is; they are read while they are
// sent, beside the loop. While another one is sent raft has to wait.
func (g *Group) snapshot() (*raftpb.Snapshot, error) {
	h := g.host
	if h.sending != nil || h.o.Transport == nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	view := g.rows.View()
	if view == nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	row := view.Applied()
	if row == nil {
		view.Close()
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	at, conf, err := decodeApplied(row)
	if err != nil {
		view.Close()
		panic(&logFailure{fmt.Errorf("replica: group %d: %w", g.id, err)})
	}
	h.sending = &sending{group: g, index: at.Index, view: view, ticks: make(chan struct{}, 1)}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: conf, Index: &at.Index, Term: &at.Term}}, nil
}

// sendSnapshot sends the rows of the view that snapshot has opened.
func (g *Group) sendSnapshot(m *raftpb.Message) {
	h, s := g.host, g.host.sending
	ctx, abort := context.WithCancelCause(context.Background())
	s.to, s.abort = m.GetTo(), abort
	rows, perTick := s.view.Export(), max(h.o.SnapshotRate/int64(time.Second/TickEvery), 1)
	body := &pacer{ctx: ctx, rows: rows, ticks: s.ticks, perTick: perTick, left: perTick}
	h.spawn(func() {
		err := h.o.Transport.SendSnapshot(ctx, Outgoing{g.id, m}, body)
		err = errors.Join(context.Cause(ctx), err, rows.Close())
		s.view.Close()
		abort(nil)
		h.call(g, func(stopped error) {
			if stopped == nil {
				h.snapshotSent(s, err)
			}
		})
	})
}

// snapshotSent tells raft, which waits for it, how it went (etcd#8553).
func (h *Host) snapshotSent(s *sending, err error) {
	h.sending = nil
	g := s.group
	if g.gone {
		return
	}
	if err != nil {
		h.o.Logger.Warn("a snapshot was not taken", "group", g.id, "to", s.to, "index", s.index, "error", err)
		g.raft.ReportSnapshot(s.to, raft.SnapshotFailure)
		return
	}
	h.stats.snapshots.Add(1)
	h.o.Logger.Info("a snapshot was taken", "group", g.id, "to", s.to, "index", s.index)
	g.fed = fed{s.to, s.index}
	g.raft.ReportSnapshot(s.to, raft.SnapshotFinish)
}

// abortSnapshot ends the sending, if there is one of this group; of any group
// if g is nil.
func (h *Host) abortSnapshot(g *Group, why error) {
	s := h.sending
	if s == nil || g != nil && s.group != g {
		return
	}
	if s.abort == nil { // raft's message was lost with its group
		s.view.Close()
		h.sending = nil
		return
	}
	s.abort(why)
}

// spawn runs f beside the loop; on a host that is stepped, at the end of the
// step.
func (h *Host) spawn(f func()) {
	if h.stepped {
		h.later = append(h.later, f)
		return
	}
	h.workers.Go(f)
}

// pacer reads rows, so many bytes between two ticks, until it is aborted.
type pacer struct {
	ctx     context.Context
	rows    io.Reader
	ticks   <-chan struct{}
	perTick int64
	left    int64 // until the next tick
}

func (p *pacer) Read(b []byte) (int, error) {
	if p.left <= 0 {
		select {
		case <-p.ticks:
			p.left = p.perTick
		case <-p.ctx.Done():
		}
	}
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	n, err := p.rows.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	return n, err
}

// tick lets a snapshot that is being sent go on.
func (s *sending) tick() {
	select {
	case s.ticks <- struct{}{}:
	default:
	}
}

func errLogFull(group uint64, budget int64) error {
	return message.Errorf(message.ResourceExhausted, "the snapshot of group %d was given up: the log that its receiver needs afterwards has grown over twice its budget of %d bytes; raise the budget or the snapshot rate", group, budget)
}
