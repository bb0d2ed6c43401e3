package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/message"
)

// A replica that was created with nothing waits for its snapshot, also across
// restarts and power cuts, and keeps what it got.
func TestEmptyReplicaWaitsForItsSnapshot(t *testing.T) {
	c := newGrowing(t, nil)
	for range 20 {
		c.add("a")
	}
	empty := c.nodes[2]
	empty.restart()
	empty.kill()
	empty.fs = empty.fs.(*disk).crash(t, 0, 1)
	empty.start()
	if s := empty.group().Status(); s.Applied != 0 || s.Leader != 0 || s.Term != 0 {
		t.Fatalf("an empty replica is at %+v", s)
	}
	c.members([]uint64{1}, []uint64{2})
	until(t, "it has all", func() bool { return empty.peek("a") == 20 })
	empty.kill()
	empty.fs = empty.fs.(*disk).crash(t, 0, 1) // nothing was flushed
	empty.start()
	if got := empty.peek("a"); got != 20 {
		t.Fatalf("after a power cut there are %d of 20", got)
	}
	c.add("a")
	if got := empty.count("a"); got != 21 {
		t.Errorf("after going on there are %d of 21", got)
	}
}

// One voter becomes three by one joint change while commands go on; all end with
// the same rows, and each of the three can be lost.
func TestGrowFromOneToThreeUnderLoad(t *testing.T) {
	c := newGrowing(t, nil)
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				c.add(fmt.Sprint(i % 100))
			}
		}
	})
	c.nodes[1].forget()
	c.members([]uint64{1}, []uint64{2, 3})
	c.members([]uint64{1, 2, 3}, nil)
	close(stop)
	load.Wait()
	c.agree()
	for id := uint64(1); id <= 3; id++ {
		c.isolate(id, true)
		c.add("one is away")
		c.isolate(id, false)
	}
	c.agree()
	if s := c.nodes[2].group().Status(); len(s.Voters) != 3 || len(s.Learners)+len(s.VotersOutgoing) > 0 {
		t.Errorf("the configuration is %+v", s)
	}
}

// A follower that was away while the log that it needs was cut comes back by a
// snapshot. One that is damaged on its way is refused, and the next one taken;
// that its answer is lost does no harm.
func TestFollowerComesBackBySnapshot(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	away := c.others(c.leader())[0]
	before := away.group()
	c.isolate(away.id, true)
	for range 30 {
		c.add("a")
	}
	until(t, "it does not count as active", func() bool { return !active(c.leader(), away.id) })
	c.leader().forget()
	var mu sync.Mutex
	damaged := 0
	c.watchSnapshots(func(_ Outgoing, body io.Reader) io.Reader {
		mu.Lock()
		defer mu.Unlock()
		if damaged++; damaged > 3 {
			return body
		}
		all, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		all[len(all)/damaged-1] ^= 1
		return bytes.NewReader(all)
	})
	lost := false
	c.watch(func(from uint64, m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if lost || from != away.id || m.GetType() != raftpb.MsgAppResp || m.GetIndex() < 30 || m.GetReject() {
			return true
		}
		lost = true
		return false
	})
	c.isolate(away.id, false)
	until(t, "it has the snapshot", func() bool { return away.host.Stats().SnapshotsReceived == 1 })
	c.add("b")
	c.agree()
	if got := away.count("a"); got != 31 {
		t.Errorf("it has %d of 31", got)
	}
	if s := away.host.Stats(); s.SnapshotsReceived != 1 || damaged < 4 {
		t.Errorf("%d snapshots were installed and %d sent", s.SnapshotsReceived, damaged)
	}
	if o := <-propose(before, "a"); message.CodeOf(o.err) != message.Unavailable {
		t.Errorf("the replica before the snapshot took a command: %v", o)
	}
	until(t, "its old rows are deleted", func() bool { return len(away.unreached()) == 0 })
}

// The log is kept for a follower that is alive and slow, while it is within its
// budget.
func TestLogIsKeptForFollowers(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	slow := c.others(c.leader())[0]
	behind := slow.group().Status().Commit
	c.watch(func(_ uint64, m *raftpb.Message) bool { // it hears its leader, and gets no entries
		return m.GetTo() != slow.id || m.GetType() != raftpb.MsgApp
	})
	for range 50 {
		c.add("a")
	}
	leader := c.leader()
	leader.forgetSome()
	if first := leader.firstIndex(); first > behind+1 {
		t.Errorf("the log begins at %d, and a follower that is alive needs %d", first, behind+1)
	}
	c.watch(nil)
	c.agree()
	if got := slow.host.Stats().SnapshotsReceived; got != 0 {
		t.Errorf("it got %d snapshots", got)
	}
}

// Who follows keeps its log too, within the budget: when it leads, others need
// no snapshot for the few entries that they lack.
func TestFollowersKeepTheirLog(t *testing.T) {
	c := newCluster(t)
	for range 20 {
		c.add("a")
	}
	c.agree()
	for _, n := range c.others(c.leader()) {
		n.forgetSome()
		if first := n.firstIndex(); first != 2 {
			t.Errorf("the log of node %d begins at %d", n.id, first)
		}
	}
}

// While a snapshot is on its way the log from its index on is kept, also over
// the budget, so that its receiver needs no second one.
func TestLogIsKeptForASnapshot(t *testing.T) {
	c := newGrowing(t, func(o *Options) {
		o.Log.SegmentBytes, o.LogBudget = 512<<10, 1<<20
	})
	c.add("a")
	began, gate := make(chan uint64, 1), make(chan struct{})
	c.watchSnapshots(func(o Outgoing, body io.Reader) io.Reader {
		began <- o.Message.GetSnapshot().GetMetadata().GetIndex()
		<-gate
		return body
	})
	c.members([]uint64{1}, []uint64{2})
	index := <-began
	leader := c.nodes[1]
	live := func() (bytes int64) {
		leader.inLoop(func() { bytes = leader.host.liveBytes() })
		return bytes
	}
	for i := 0; live() <= leader.host.o.LogBudget; i++ {
		c.add(fmt.Sprint(i%10) + strings.Repeat("x", 20_000))
	}
	leader.forgetSome()
	if first := leader.firstIndex(); first > index+1 {
		t.Errorf("the log begins at %d while a snapshot at %d is on its way", first, index)
	}
	close(gate)
	c.agreeOn(1, 2)
	if got := c.nodes[2].host.Stats().SnapshotsReceived; got != 1 {
		t.Errorf("it took %d snapshots", got)
	}
}

// A snapshot that does not get on while the log grows is given up at twice the
// log's budget, with words that say so, and the log is cut.
func TestSnapshotEndsWhenTheLogGrowsTooMuch(t *testing.T) {
	c := newGrowing(t, func(o *Options) {
		o.Log.SegmentBytes, o.LogBudget = 512<<10, 1<<20
	})
	c.add("a")
	failed := make(chan error, 1)
	var moves atomic.Bool
	c.watchSnapshots(func(_ Outgoing, body io.Reader) io.Reader {
		var slow sync.Once
		return readerFunc(func(p []byte) (int, error) { // the network stands still
			ticker := time.NewTicker(time.Millisecond)
			defer ticker.Stop()
			for {
				<-ticker.C
				if moves.Load() { // also for one that was begun again meanwhile
					slow.Do(func() { time.Sleep(3 * TickEvery) }) // the log, which is still long, is looked at meanwhile
					return body.Read(p)
				}
				if _, err := body.Read(p[:0]); err != nil {
					select {
					case failed <- err:
					default:
					}
					return 0, err
				}
			}
		})
	})
	c.members([]uint64{1}, []uint64{2})
	body := strings.Repeat("x", 20_000)
	var reason error
	for i := range 2_000 {
		c.add(fmt.Sprint(i%10) + body)
		select {
		case reason = <-failed:
		default:
			continue
		}
		break
	}
	if message.CodeOf(reason) != message.ResourceExhausted {
		t.Fatalf("the snapshot ended with %v", reason)
	}
	moves.Store(true)
	c.watchSnapshots(nil)
	c.agreeOn(1, 2)
}

// Between two ticks no more is read than the rate allows, and an abort ends the
// waiting for the next one.
func TestSnapshotIsPacedByTicks(t *testing.T) {
	ctx, abort := context.WithCancelCause(t.Context())
	ticks := make(chan struct{}, 1)
	rows := strings.NewReader(strings.Repeat("x", 10_000))
	p := &pacer{ctx: ctx, rows: rows, ticks: ticks, perTick: 1_000, left: 1_000}
	for i := range 3 {
		if _, err := io.ReadFull(p, make([]byte, 1_000)); err != nil {
			t.Fatal(err)
		}
		if got := 10_000 - rows.Len(); got != 1_000*(i+1) {
			t.Fatalf("after %d ticks %d were read", i, got)
		}
		ticks <- struct{}{}
	}
	if n, err := p.Read(make([]byte, 5_000)); n != 1_000 || err != nil {
		t.Errorf("one read gave %d, %v", n, err)
	}
	abort(errStopped)
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, errStopped) {
		t.Errorf("after the abort: %v", err)
	}
}

// A replica that begins anew from a snapshot asks in contexts that it had not used
// before: an answer to a question of its former self, which comes late, is not taken
// for one to its own (trap 9).
func TestTrap09ReadsBeginAnewWithTheReplica(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	reader := c.others(c.leader())[0]
	var mu sync.Mutex
	var late *raftpb.Message
	silent, asked := false, false
	c.watch(func(from uint64, m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = asked || silent && from == reader.id && m.GetType() == raftpb.MsgReadIndex
		if m.GetTo() != reader.id {
			return true
		}
		if m.GetType() == raftpb.MsgReadIndexResp && late == nil {
			late = proto.Clone(m).(*raftpb.Message)
			return false
		}
		return !silent || m.GetType() == raftpb.MsgHeartbeat
	})
	reader.count("a") // by a second attempt
	c.isolate(reader.id, true)
	for range 30 {
		c.add("a")
	}
	until(t, "it does not count as active", func() bool { return !active(c.leader(), reader.id) })
	c.leader().forget()
	c.isolate(reader.id, false)
	until(t, "it has the snapshot", func() bool { return reader.host.Stats().SnapshotsReceived == 1 })
	c.agree()
	mu.Lock()
	silent = true
	mu.Unlock()
	got := make(chan uint64, 1)
	c.add("a")
	go func() { got <- reader.count("a") }()
	until(t, "the reader asks", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return asked
	})
	reader.host.Receive(testGroup, late)
	for range 3 { // the loop has looked at it
		reader.ticks <- reader.host.o.Now()
	}
	c.watch(nil)
	if n := <-got; n != 32 {
		t.Fatalf("32 were confirmed before the read, it saw %d", n)
	}
}
