package replica

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
	"github.com/comanda-mq/comanda/internal/state"
)

// Limits of a group's boxes. What does not fit is refused (commands, readers),
// lost (messages) or left with raft (committed entries).
const (
	maxPending       = 32 << 10 // commands that have no outcome yet
	maxPendingBytes  = 64 << 20
	maxCommandBytes  = 20 << 20 // above the largest message; must fit a log segment
	maxInbox         = 4 << 10  // messages that wait for the loop
	maxInboxBytes    = 64 << 20
	maxReaders       = 32 << 10
	maxQueued        = 4 << 10 // entries that wait for the worker
	maxQueuedBytes   = 16 << 20
	maxInFlightBytes = 16 << 20 // proposed and not committed
)

// Group is this node's replica of one Raft group.
type Group struct {
	id, replica uint64
	host        *Host
	machine     StateMachine
	rows        *state.Replica
	queue       queue  // to the apply worker
	startConf   []byte // the worker's first configuration, encoded

	marked  atomic.Bool  // the loop will look at it
	pending atomic.Int64 // commands without an outcome
	bytes   atomic.Int64 // theirs
	commit  atomic.Uint64
	applied atomic.Uint64
	role    atomic.Pointer[role]
	young   young
	// patience is for how many ticks nothing is received; see NewReplica.
	patience atomic.Int64
	// progress is of the last tick; nil where this replica does not lead.
	progress atomic.Pointer[[]Progress]
	proof    atomic.Pointer[time.Time] // see ReadWithin

	mu         sync.Mutex // the boxes; never held over a call
	closed     error      // why nothing is taken any more
	waiting    []proposal
	inbox      []*raftpb.Message
	inboxBytes int64
	gathering  *readers   // have not asked yet
	awaiting   []*readers // know their index, wait for the worker
	someAwait  atomic.Bool

	// The loop's own.
	raft     *raft.RawNode
	hard     *raftpb.HardState // as of the last Ready
	lead     uint64            // term in which this replica leads, or 0
	campaign bool              // campaign as soon as the worker has caught up
	eager    int               // ticks for which it campaigns again while there is no leader
	handed   raftlog.Position  // last entry that the worker was given
	ready    raft.Ready        // between Ready and Advance
	taken    []proposal        // out of waiting, not proposed
	held     bool              // raft took no proposal; until the next tick
	proposed []proposal        // in the entry that the next Ready will show
	// proposedAt is when that entry was.
	proposedAt time.Time
	inFlight   []flight
	flightSum  int64 // bytes of inFlight
	reads      reads
	durable    uint64 // index that the rows were seen to hold durably
	cut        uint64 // index up to which the log may forget; at most durable
	peers      []peer // as of the last tick, where this replica leads
	fed        fed
	paced      paced
	change     *change // under way here
	inRound    bool
	gone       bool            // destroyed, or begun anew from a snapshot
	after      <-chan struct{} // closed when the replica before the snapshot has ended
}

type role struct {
	leader, term               uint64
	leading                    bool
	voters, outgoing, learners []uint64
}

func (r *role) setConf(c *raftpb.ConfState) {
	r.voters, r.outgoing, r.learners = c.GetVoters(), c.GetVotersOutgoing(), c.GetLearners()
}

// Status is what a replica knows of its group.
type Status struct {
	Group, Replica   uint64
	Leader           uint64 // the leader's replica id; 0: none known
	Leading          bool   // this replica believes that it leads
	Term             uint64
	Commit           uint64 // index of the last entry known to be committed
	Applied          uint64 // index of the last entry applied here
	Voters, Learners []uint64
	// VotersOutgoing are the voters before a joint change that has not ended; nil
	// otherwise.
	VotersOutgoing []uint64
}

// ID is the group's number.
func (g *Group) ID() uint64 { return g.id }

// Replica is the id of this node's replica.
func (g *Group) Replica() uint64 { return g.replica }

// Leading says that this replica believes that it leads; any goroutine may ask.
func (g *Group) Leading() bool { return g.role.Load().leading }

// Status may be called by any goroutine.
func (g *Group) Status() Status {
	applied := g.applied.Load() // first: it may not be shown above commit
	r := g.role.Load()
	return Status{
		Group: g.id, Replica: g.replica,
		Leader: r.leader, Leading: r.leading, Term: r.term,
		Commit: g.commit.Load(), Applied: applied,
		Voters: slices.Clone(r.voters), Learners: slices.Clone(r.learners),
		VotersOutgoing: slices.Clone(r.outgoing),
	}
}

// View opens a view of the rows as of some applied entry, perhaps an old one:
// for a linearizable read call ReadIndex before. It must be closed before the
// host ends.
func (g *Group) View() *state.View { return g.rows.View() }

func (g *Group) receive(m *raftpb.Message) {
	var size int64
	for _, e := range m.GetEntries() {
		size += int64(len(e.GetData()))
	}
	g.mu.Lock()
	if g.closed != nil || len(g.inbox) >= maxInbox || g.inboxBytes+size > maxInboxBytes {
		g.mu.Unlock()
		g.host.stats.lost.Add(1)
		return
	}
	g.inbox = append(g.inbox, m)
	g.inboxBytes += size
	g.mu.Unlock()
	g.host.mark(g)
}

// takeIn gives raft what came in: messages, a tick, commands, reads. A group
// whose worker is full keeps it all in its boxes.
func (g *Group) takeIn(ticked bool) {
	if g.queue.full() {
		return // the worker marks the group when there is room again
	}
	g.mu.Lock()
	inbox := g.inbox
	g.inbox, g.inboxBytes = nil, 0
	if len(g.taken) == 0 && len(g.waiting) > 0 {
		g.taken, g.waiting = g.waiting, make([]proposal, 0, len(g.waiting))
	}
	g.mu.Unlock()
	if ticked {
		g.tick()
	}
	for _, m := range inbox {
		g.step(m)
	}
	if g.campaign && g.caughtUp() {
		g.campaign = false
		_ = g.raft.Campaign() // raft's own refusal shows in its log; ticks try again
	}
	g.propose()
	g.askReads()
}

func (g *Group) step(m *raftpb.Message) {
	switch m.GetType() {
	case raftpb.MsgTimeoutNow:
		if g.behind() {
			return // would campaign with changes that are not applied (trap 8)
		}
	case raftpb.MsgReadIndex:
		if g.lead == 0 || !g.ownTermCommitted() {
			return // who asks does so again; see askReads
		}
	default:
	}
	// Refused are messages of replicas that are not in the group: lost.
	_ = g.raft.Step(m)
}

func (g *Group) tick() {
	if g.patience.Load() > 0 {
		g.patience.Add(-1)
	}
	if g.lead == 0 && (g.behind() || g.raft.HasReady()) {
		return // committed entries are not applied yet: it may not campaign
	}
	g.raft.Tick()
	if g.eager > 0 {
		g.eager--
		g.campaign = g.role.Load().leader == 0
	}
	g.reads.tick()
	g.held = false
	if g.lead != 0 {
		g.notePeers()
	}
}

// behind says that committed entries are not applied yet.
func (g *Group) behind() bool { return g.applied.Load() < g.commit.Load() }

// caughtUp is the opposite, and if it is not so the worker marks the group when
// it has done what it has.
func (g *Group) caughtUp() bool {
	if g.behind() {
		g.queue.wanted.Store(true)
	}
	return !g.behind()
}

// ownTermCommitted says that an entry of the term in which this replica leads
// is committed, and so that its commit index holds all that was confirmed.
func (g *Group) ownTermCommitted() bool { return g.handed.Term == g.hard.GetTerm() }

// shut lets nothing more in.
func (g *Group) shut(why error) {
	g.mu.Lock()
	g.closed = why
	g.mu.Unlock()
}

// answerAll tells everybody who still waits, when loop and worker have ended.
func (g *Group) answerAll() {
	g.refuse(g.taken, g.closed)
	g.refuse(g.waiting, g.closed)
	unknown := message.Errorf(message.UnknownOutcome, "group %d ended here before there was an outcome (%v): look, or repeat with the same lane or dedup id", g.id, g.closed)
	g.endChange(unknown)
	g.refuse(g.proposed, unknown)
	for _, f := range g.inFlight {
		g.refuse(f.commands, unknown)
	}
	for _, t := range g.queue.rest() {
		g.refuse(t.ours, unknown)
	}
	for _, r := range append(g.awaiting, g.gathering, g.reads.asking) {
		r.release(g.closed)
	}
}

var errStopped = message.Errorf(message.Unavailable, "the server stops: try again when it is back")
