package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/state"
)

// Raft's settings; times are in ticks.
const (
	electionTicks   = 10
	heartbeatTicks  = 1
	maxMessageBytes = message.MaxEntryBytes // of entries in one message, or one entry
	maxHandOver     = 4 << 20               // committed entries in one Ready
	maxMessages     = 256                   // to one follower that are not answered
	maxUncommitted  = 4 * maxInFlightBytes  // the host itself stops before that
)

// start puts together the replicas that the log names. What raft and the rows
// hold was synced: the log syncs its tail before Open returns (trap 2), and tells
// a torn tail from damage (trap 4).
func (h *Host) start() error {
	h.boot = h.log.Boot()
	h.handles.start(h.log.Handles())
	if err := h.adoptChildren(); err != nil {
		return err
	}
	replicas := h.log.Replicas()
	roots := make([]uint64, len(replicas))
	for i, r := range replicas {
		roots[i] = r.Root
	}
	if _, err := h.store.Sweep(roots); err != nil {
		return fmt.Errorf("replica: delete rows that no replica reaches: %w", err)
	}
	for _, r := range replicas {
		g, err := h.open(r)
		if err != nil {
			return fmt.Errorf("replica: group %d: %w", r.Group, err)
		}
		h.setGroup(r.Group, g)
	}
	return nil
}

// open puts one replica together.
func (h *Host) open(r raftlog.Replica) (*Group, error) {
	rows, err := h.store.OpenReplica(r.Root, h.handles.take)
	if err != nil {
		return nil, err
	}
	at, conf, err := h.applied(r, rows)
	if err != nil {
		return nil, err
	}
	hard := &raftpb.HardState{
		Term:   new(max(r.HardState.GetTerm(), at.Term)),
		Vote:   new(r.HardState.GetVote()),
		Commit: new(max(r.HardState.GetCommit(), at.Index)), // commit-only changes are not synced (trap 1)
	}
	if at.Term > r.HardState.GetTerm() {
		hard.Vote = new(uint64(0))
	}
	if err := h.fitLog(r, at, conf, hard); err != nil {
		return nil, err
	}
	g, err := h.newGroup(r, rows, at, conf, hard)
	if err != nil {
		return nil, err
	}
	g.young.all, err = h.youngOf(r)
	return g, err
}

// applied says up to where the rows are, and with which configuration.
func (h *Host) applied(r raftlog.Replica, rows *state.Replica) (raftlog.Position, *raftpb.ConfState, error) {
	row, err := rows.Applied()
	if err != nil {
		return raftlog.Position{}, nil, err
	}
	if row == nil {
		return r.Base, r.Conf, nil
	}
	return decodeApplied(row)
}

// fitLog makes sure that the log continues where the rows end. Rows ahead of
// the log are right, for they are only made of what a majority has: the log is
// then empty after them (trap 1). Rows that are behind its first entry, or of
// another history, can't be of the same directory.
func (h *Host) fitLog(r raftlog.Replica, at raftlog.Position, conf *raftpb.ConfState, hard *raftpb.HardState) error {
	last, err := h.log.LastIndex(r.Group)
	if err != nil {
		return err
	}
	if at.Index > last {
		h.batch.Reset(r.Group, at, conf, r.Root, hard)
		return h.log.Write(&h.batch)
	}
	if at.Index < r.Truncated.Index {
		return fmt.Errorf("its rows end at index %d but its log begins after %d: rows or log are from another time; restore or replace the data directory", at.Index, r.Truncated.Index)
	}
	if hard.GetCommit() > last {
		return fmt.Errorf("its log ends at index %d but %d was committed: entries are missing; restore or replace the data directory", last, hard.GetCommit())
	}
	term, err := h.log.Term(r.Group, at.Index)
	if err != nil {
		return err
	}
	if term != at.Term {
		return fmt.Errorf("index %d has term %d in its rows and %d in its log: rows and log do not belong together; restore or replace the data directory", at.Index, at.Term, term)
	}
	return nil
}

func (h *Host) newGroup(r raftlog.Replica, rows *state.Replica, at raftlog.Position, conf *raftpb.ConfState, hard *raftpb.HardState) (*Group, error) {
	g := &Group{
		id: r.Group, replica: r.ID, host: h, rows: rows, hard: hard,
		handed: at, durable: r.Base.Index, startConf: appendConf(nil, conf),
		campaign: slices.Equal(conf.GetVoters(), []uint64{r.ID}) && len(conf.GetVotersOutgoing()) == 0,
	}
	g.queue.wake = make(chan struct{}, 1)
	g.commit.Store(hard.GetCommit())
	g.applied.Store(at.Index)
	first := role{term: hard.GetTerm()}
	first.setConf(conf)
	g.role.Store(&first)
	var err error
	g.raft, err = raft.NewRawNode(&raft.Config{
		ID:                        r.ID,
		ElectionTick:              electionTicks,
		HeartbeatTick:             heartbeatTicks,
		Storage:                   &storage{log: h.log, group: r.Group, hard: hard, conf: conf, snapshot: g.snapshot},
		Applied:                   at.Index,
		MaxSizePerMsg:             uint64(min(maxMessageBytes, h.o.Log.SegmentBytes/4)),
		MaxCommittedSizePerReady:  maxHandOver,
		MaxUncommittedEntriesSize: maxUncommitted,
		MaxInflightMsgs:           maxMessages,
		MaxInflightBytes:          maxInFlightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true, // the leader stamps what it proposes (trap 10)
		StepDownOnRemoval:         true,
		Logger:                    raftLogger{h.o.Logger.With("group", r.Group)},
	})
	if err != nil {
		return nil, err
	}
	g.machine = h.o.Machine(g)
	return g, nil
}
