package replica

import (
	"context"
	"errors"
	"fmt"
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
	h.sending = &sending{group: g, index: at.Index, view: view}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: conf, Index: &at.Index, Term: &at.Term}}, nil
}

// sendSnapshot sends the rows of the view that snapshot has opened.
func (g *Group) sendSnapshot(m *raftpb.Message) {
	h, s := g.host, g.host.sending
	ctx, abort := context.WithCancelCause(context.Background())
	s.to, s.abort = m.GetTo(), abort
	body := &pacer{ctx: ctx, rows: s.view.Export(), rate: h.o.SnapshotRate, now: h.o.Now, began: h.o.Now()}
	h.spawn(func() {
		err := h.o.Transport.SendSnapshot(ctx, Outgoing{g.id, m}, body)
		err = errors.Join(err, body.rows.Close())
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

// pacer reads rows at a bounded rate, until it is aborted.
type pacer struct {
	ctx   context.Context
	rows  *state.Export
	rate  int64 // bytes a second
	now   func() time.Time
	began time.Time
	sent  int64
}

// pacedBytes is what goes between two looks at the clock.
const pacedBytes = 64 << 10

func (p *pacer) Read(b []byte) (int, error) {
	due := time.Duration(float64(p.sent) / float64(p.rate) * float64(time.Second))
	if wait := due - p.now().Sub(p.began); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ctx.Done():
		}
	}
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	n, err := p.rows.Read(b[:min(len(b), pacedBytes)])
	p.sent += int64(n)
	return n, err
}

func errLogFull(group uint64, budget int64) error {
	return message.Errorf(message.ResourceExhausted, "the snapshot of group %d was given up: the log that its receiver needs afterwards has grown over twice its budget of %d bytes; raise the budget or the snapshot rate", group, budget)
}
