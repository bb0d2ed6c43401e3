package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// round takes one Ready of each group that has one, makes them all durable by
// one write, and hands on what may be handed on before and after it.
func (h *Host) round() error {
	ready := h.work[:0]
	for _, g := range h.work {
		if g.gone || g.queue.full() || !g.raft.HasReady() {
			continue
		}
		g.takeReady()
		ready = append(ready, g)
	}
	for _, g := range ready {
		g.beforeSync()
	}
	h.send()
	if err := h.write(); err != nil {
		return err
	}
	// What was destroyed in this round is its worker's now.
	ready = slices.DeleteFunc(ready, func(g *Group) bool { return g.gone })
	for _, g := range ready {
		g.afterSync()
	}
	h.send()
	for _, g := range ready {
		g.raft.Advance(g.ready)
		g.ready = raft.Ready{}
		if g.unfinished() {
			h.again = append(h.again, g)
		}
	}
	clear(h.work[len(ready):])
	return nil
}

// unfinished says that the group has something to do that nobody will mark it
// for.
func (g *Group) unfinished() bool {
	if g.queue.full() {
		return false
	}
	mayRefuse := len(g.taken) > 0 && g.lead == 0 && !g.campaign
	return mayRefuse || g.mayPropose() || g.shouldAsk() || g.raft.HasReady()
}

// send gives the transport what has gathered.
func (h *Host) send() {
	if len(h.outgoing) > 0 && h.o.Transport != nil {
		h.stats.messages.Add(uint64(len(h.outgoing)))
		h.o.Transport.Send(h.outgoing)
	}
	clear(h.outgoing)
	h.outgoing = h.outgoing[:0]
}

// takeReady takes the Ready and notes what it tells about the group.
func (g *Group) takeReady() {
	rd := g.raft.Ready()
	g.ready = rd
	if !raft.IsEmptySnap(rd.Snapshot) { // a replica begins anew instead; see install
		panic(fmt.Sprintf("replica: raft itself took a snapshot of group %d at index %d", g.id, rd.Snapshot.GetMetadata().GetIndex()))
	}
	if rd.HardState != nil {
		g.hard = rd.HardState
		g.commit.Store(g.hard.GetCommit())
	}
	if g.proposed != nil {
		g.launched(rd.Entries[len(rd.Entries)-1])
	}
	if rd.SoftState != nil || rd.HardState != nil {
		g.noteRole(rd.SoftState)
	}
}

// noteRole tells everybody who leads in which term, if that has changed.
func (g *Group) noteRole(s *raft.SoftState) {
	was := g.role.Load()
	if s == nil && was.term == g.hard.GetTerm() {
		return
	}
	now := *was
	now.term = g.hard.GetTerm()
	if s != nil {
		now.leader, now.leading = s.Lead, s.RaftState == raft.StateLeader
	}
	g.role.Store(&now)
	lead := uint64(0)
	if now.leading {
		lead = now.term
	}
	if lead != g.lead {
		g.forgetPeers()
		if g.lead = lead; lead != 0 {
			g.notePeers()
		}
		g.queue.push(task{role: true, lead: lead})
	}
	g.reads.again() // who was asked may not be leader any more
}

// beforeSync gives the round's batch what must be durable, and hands on what
// need not wait: committed entries that the disk has already, and a leader's
// entries, which its followers may write at the same time as it does itself.
// Nothing else leaves before the sync (trap 3).
func (g *Group) beforeSync() {
	h, rd := g.host, g.ready
	g.readsAnswered(rd.ReadStates)
	g.handOver(rd.CommittedEntries[:g.onDisk(rd)])
	if !rd.MustSync {
		return // a commit index alone waits for the next sync: start knows better (trap 1)
	}
	h.mustSync = true
	h.batch.Append(g.id, g.hard, rd.Entries)
	for _, m := range rd.Messages {
		if g.maySendEarly(m) {
			h.outgoing = append(h.outgoing, Outgoing{g.id, m})
		}
	}
}

// onDisk counts the committed entries that were synced in an earlier round.
func (g *Group) onDisk(rd raft.Ready) int {
	if len(rd.Entries) == 0 {
		return len(rd.CommittedEntries)
	}
	first := rd.Entries[0].GetIndex()
	n := len(rd.CommittedEntries)
	for n > 0 && rd.CommittedEntries[n-1].GetIndex() >= first {
		n--
	}
	return n
}

// maySendEarly says that a message may leave before the sync: entries of a
// leader whose term is durable, because followers voted for it.
func (g *Group) maySendEarly(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgApp && g.lead != 0 && g.handed.Term == g.lead
}

// afterSync hands on the rest.
func (g *Group) afterSync() {
	h, rd := g.host, g.ready
	for _, m := range rd.Messages {
		switch {
		case m.GetType() == raftpb.MsgSnap:
			g.sendSnapshot(m)
		case !rd.MustSync || !g.maySendEarly(m):
			h.outgoing = append(h.outgoing, Outgoing{g.id, m})
		}
	}
	g.handOver(rd.CommittedEntries[g.onDisk(rd):])
}

// handOver gives committed entries to the worker. A change of the configuration
// counts from here on for raft, before Advance (trap 8).
func (g *Group) handOver(entries []*raftpb.Entry) {
	for _, e := range entries {
		t := task{entry: e}
		if t.ours, t.proposed = g.landed(e); t.ours != nil {
			t.committed = g.host.o.Now()
			g.host.stats.commits.add(t.committed.Sub(t.proposed))
		}
		if e.GetType() != raftpb.EntryNormal {
			conf := g.raft.ApplyConfChange(decodeConfChange(e))
			t.conf = appendConf(nil, conf)
			g.noteConf(conf)
		}
		g.queue.push(t)
		g.handed.Index, g.handed.Term = e.GetIndex(), e.GetTerm()
	}
}

// decodeConfChange reads a change that raft accepted; one that can't be read is
// damage that every checksum missed.
func decodeConfChange(e *raftpb.Entry) raftpb.ConfChangeI {
	var c raftpb.ConfChangeI
	var err error
	if e.GetType() == raftpb.EntryConfChange {
		v1 := &raftpb.ConfChange{}
		c, err = v1, proto.Unmarshal(e.GetData(), v1)
	} else {
		v2 := &raftpb.ConfChangeV2{}
		c, err = v2, proto.Unmarshal(e.GetData(), v2)
	}
	if err != nil {
		panic(&logFailure{fmt.Errorf("replica: configuration change at index %d: %w", e.GetIndex(), err)})
	}
	return c
}
