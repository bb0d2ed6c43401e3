package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/state"
)

// ReceiveSnapshot takes in a snapshot that another replica's Transport sends:
// its MsgSnap and its rows. When it returns nil the rows are durable here and
// the replica stands at them. An error means that nothing has changed, and goes
// back to the sender: the message is for another replica than the one that is
// here (trap 6), the group has got as far by itself, another snapshot comes in
// just now, body failed or is damaged, or the host stops. ctx and the end of
// body bound it.
//
// The steps are those of trap 5: the rows go into fresh handles by one ingest,
// which is durable; a log record names their root, and from there on they are
// the replica's; raft hears of it, and answers. A crash before the record
// leaves orphans, which the next start deletes. The old rows are deleted last.
//
// The replica begins anew, as after a restart: there is a new Group with a new
// StateMachine, and the commands and readers of the old one get an error.
func (h *Host) ReceiveSnapshot(ctx context.Context, group uint64, m *raftpb.Message, body io.Reader) error {
	if !h.receiving.CompareAndSwap(false, true) {
		return message.Errorf(message.Unavailable, "this node takes in another snapshot just now: try again")
	}
	defer h.receiving.Store(false)
	i := install{host: h, group: group, message: m}
	if err := i.check(); err != nil {
		return err
	}
	in, err := h.store.Import(wantedReader{ctx, &i, body}, h.handles.takeRun)
	if err != nil {
		return err
	}
	i.rows = in
	if err := errors.Join(i.checkRows(), context.Cause(ctx)); err != nil {
		return errors.Join(err, in.Discard())
	}
	if err := in.Install(); err != nil {
		return errors.Join(err, in.Discard())
	}
	if err := h.ask(request{record: i.record, durable: i.durable}); err != nil {
		return errors.Join(err, in.Drop())
	}
	h.stats.installed.Add(1)
	return nil
}

// wantedReader reads until ctx ends, or the snapshot is of no use any more.
type wantedReader struct {
	ctx context.Context
	i   *install
	r   io.Reader
}

func (w wantedReader) Read(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	if _, err := w.i.replica(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

// install is a snapshot on its way to become a replica's rows.
type install struct {
	host    *Host
	group   uint64
	message *raftpb.Message
	rows    *state.Import
	hard    *raftpb.HardState
}

func (i *install) at() raftlog.Position {
	meta := i.message.GetSnapshot().GetMetadata()
	return raftlog.Position{Index: meta.GetIndex(), Term: meta.GetTerm()}
}

func (i *install) conf() *raftpb.ConfState {
	return i.message.GetSnapshot().GetMetadata().GetConfState()
}

// replica finds whom the snapshot is for.
func (i *install) replica() (*Group, error) {
	g, ok := i.host.Group(i.group)
	if !ok || g.replica != i.message.GetTo() {
		return nil, message.Errorf(message.NotFound, "a snapshot for replica %d of group %d, which is not on this node", i.message.GetTo(), i.group)
	}
	if g.patience.Load() > 0 {
		return nil, message.Errorf(message.Unavailable, "replica %d of group %d gets its rows from the replica here that it is spun off: try again later", g.replica, i.group)
	}
	if i.at().Index <= g.commit.Load() {
		return nil, message.Errorf(message.Conflict, "a snapshot of group %d at index %d, and replica %d is at %d by now", i.group, i.at().Index, g.replica, g.commit.Load())
	}
	return g, nil
}

// check refuses, before a row is read, what can't be installed.
func (i *install) check() error {
	if i.message.GetType() != raftpb.MsgSnap || i.at().Index == 0 {
		return message.Errorf(message.InvalidArgument, "a snapshot of group %d comes with a %v", i.group, i.message.GetType())
	}
	conf := i.conf()
	if !slices.Contains(slices.Concat(conf.GetVoters(), conf.GetLearners(), conf.GetVotersOutgoing()), i.message.GetTo()) {
		return message.Errorf(message.Unavailable, "a snapshot of group %d at index %d, in which there is no replica %d yet", i.group, i.at().Index, i.message.GetTo())
	}
	_, err := i.replica()
	return err
}

// checkRows makes sure that the rows are those that the message is about.
func (i *install) checkRows() error {
	at, _, err := decodeApplied(i.rows.Applied)
	if err == nil && at != i.at() {
		err = fmt.Errorf("rows as of index %d in term %d came for a snapshot at %d in %d: %w", at.Index, at.Term, i.at().Index, i.at().Term, state.ErrDamaged)
	}
	return err
}

// record makes the snapshot the replica's rows. The group may have gone on
// while they came in. An entry that is in the log must stay there, and so must
// what follows it, for this replica may have said that it has it: the snapshot
// then only tells raft what is committed.
func (i *install) record(b *raftlog.Batch) error {
	g, err := i.replica()
	if err != nil {
		return err
	}
	at := i.at()
	if term, err := i.host.log.Term(i.group, at.Index); err == nil && term == at.Term {
		g.receive(i.message)
		return message.Errorf(message.Conflict, "a snapshot of group %d at index %d, and replica %d has the entries up to there by now", i.group, at.Index, g.replica)
	}
	i.hard = &raftpb.HardState{Term: new(g.hard.GetTerm()), Vote: new(g.hard.GetVote()), Commit: &at.Index}
	if term := max(at.Term, i.message.GetTerm()); term > g.hard.GetTerm() {
		i.hard.Term, i.hard.Vote = &term, new(uint64(0))
	}
	b.Reset(i.group, at, i.conf(), i.rows.Root, i.hard)
	return nil
}

// durable lets the replica begin anew. Its message makes raft answer.
func (i *install) durable() error {
	h := i.host
	old, _ := h.Group(i.group)
	g, err := h.beginAnew(old, raftlog.Replica{
		Group: i.group, ID: old.replica, Root: i.rows.Root,
		Base: i.at(), Truncated: i.at(), Conf: i.conf(), HardState: i.hard,
	}, message.Errorf(message.Unavailable, "the replica of group %d on this node began anew from a snapshot: try again", i.group))
	if err != nil {
		return fmt.Errorf("replica: group %d after its snapshot: %w", i.group, err)
	}
	g.receive(i.message)
	return nil
}

// beginAnew puts a replica in the place of the one that was reset in the log.
func (h *Host) beginAnew(old *Group, r raftlog.Replica, why error) (*Group, error) {
	ended := make(chan struct{})
	h.leave(old, why, func(err error) {
		if err != nil {
			h.fail(fmt.Errorf("replica: group %d: delete the rows before it was reset: %w", r.Group, err))
		}
		close(ended)
	})
	g, err := h.open(r)
	if err != nil {
		return nil, err
	}
	g.after = ended
	h.enter(g)
	return g, nil
}
