package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/raftlog"
)

// Rows are durable up to an entry of which the log says that it is there, and
// not that it is committed: a commit index alone is not synced. Raft panics at
// the start unless it is told.
func TestTrap01CommitIsAtLeastWhatIsApplied(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	for range 20 {
		n.add("a")
	}
	if err := n.host.store.Flush(); err != nil {
		t.Fatal(err)
	}
	after := newNode(t, d.crash(t, 0, 1)).start()
	if got := after.count("a"); got != 20 {
		t.Fatalf("%d of 20 are there", got)
	}
}

// Rows are durable and the log that made them is older: it is empty after them,
// and the group goes on from there.
func TestTrap01RowsAheadOfTheLog(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	early := d.crash(t, 0, 1)
	for range 10 {
		n.add("a")
	}
	if err := n.host.store.Flush(); err != nil {
		t.Fatal(err)
	}
	late := d.crash(t, 0, 1)
	if err := late.mem.RemoveAll("data/log"); err != nil {
		t.Fatal(err)
	}
	if ok, err := vfs.Clone(early.mem, late.mem, "data/log", "data/log"); err != nil || !ok {
		t.Fatalf("copy the log: %v", err)
	}
	after := newNode(t, late).start()
	if got := after.count("a"); got != 11 {
		t.Fatalf("%d of 11 are there", got)
	}
	after.add("a")
	after.restart()
	if got := after.count("a"); got != 12 {
		t.Fatalf("after going on, %d of 12 are there", got)
	}
}

// After a kill -9 the last entry is only in the page cache. What a start has
// read from there must survive a power cut that comes next.
func TestTrap02UnsyncedTailIsSyncedBeforeItCounts(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	reached, letGo := d.hold()
	c := propose(n.group(), "a")
	<-reached
	killed := d.crash(t, 100, 1)
	letGo()
	<-c
	h, err := New(newNode(t, killed).options())
	if err != nil {
		t.Fatal(err)
	}
	seen, err := h.log.LastIndex(testGroup)
	if err != nil {
		t.Fatal(err)
	}
	cut := killed.crash(t, 0, 1)
	ctx, stop := testContext()
	stop()
	if err := h.Run(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := New(newNode(t, cut).options())
	if err != nil {
		t.Fatal(err)
	}
	defer after.Run(ctx)
	if last, err := after.log.LastIndex(testGroup); err != nil || last < seen {
		t.Fatalf("raft saw index %d, and a power cut later the log ends at %d (%v)", seen, last, err)
	}
}

// Segments are used again and again, with entries of one size, so that old
// records stand where new ones could: a power cut with any part of the unsynced
// tail brings none of them back.
func TestTrap04RecycledSegmentsBringNothingBack(t *testing.T) {
	d := newDisk(t, nil)
	n := newNode(t, d)
	n.tune = func(o *Options) { o.Log.SegmentBytes = 4 << 10 }
	n.start().create(testGroup)
	ballast := make([]byte, 200)
	for i := range 150 {
		c := make(chan error, 1)
		n.group().Propose(Command{Head: []byte("a"), Bodies: [][]byte{ballast}}, func(_ any, err error) { c <- err })
		if err := <-c; err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			if err := n.host.store.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if i < 100 || i%2 == 0 {
			continue // every file was used several times
		}
		confirmed := uint64(i + 1)
		after := newNode(t, d.crash(t, []int{0, 50, 100}[i%3], uint64(i)))
		after.tune = n.tune
		after.start()
		if got := after.count("a" + string(ballast)); got != confirmed {
			t.Fatalf("%d were confirmed, %d are there", confirmed, got)
		}
		after.kill()
	}
	files, err := d.List("data/log")
	if err != nil || len(files) > 12 {
		t.Fatalf("the log has %d files (%v)", len(files), err)
	}
}

// inbox keeps what a node without peers sends.
type inbox struct {
	mu   sync.Mutex
	msgs []*raftpb.Message
}

func (i *inbox) Send(msgs []Outgoing) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, o := range msgs {
		i.msgs = append(i.msgs, o.Message)
	}
}

func (i *inbox) SendSnapshot(context.Context, Outgoing, io.Reader) error {
	return errors.New("nobody is there")
}

func (i *inbox) all(kind raftpb.MessageType) (found []*raftpb.Message) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.msgs {
		if m.GetType() == kind {
			found = append(found, m)
		}
	}
	return found
}

// A sole voter that has just won does not know what it had confirmed, until an
// entry of its own term is committed: a learner's question at that moment gets
// no answer, and not an old one.
func TestTrap09NoReadIndexBeforeAnEntryOfTheOwnTerm(t *testing.T) {
	d, sent := newDisk(t, nil), &inbox{}
	n := newNode(t, d)
	n.transport = sent
	n.start()
	_, err := n.host.Create(NewReplica{Group: testGroup, Replica: 1, Base: raftlog.Position{Index: 1, Term: 1}, Conf: &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it leads", func() bool { return n.group().Status().Leading })
	for range 5 {
		n.add("a")
	}
	confirmed := n.group().Status().Applied
	n.kill()
	var reached <-chan struct{}
	var letGo func()
	// Handles for the replay are reserved first, then comes the vote for itself.
	n.opened = func() { reached, letGo = d.holdAfter(1) }
	n.start()
	<-reached
	question := func() {
		n.host.Receive(testGroup, &raftpb.Message{
			Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(2)), To: new(uint64(1)),
			Entries: []*raftpb.Entry{{Data: []byte("who asks")}},
		})
	}
	question()
	letGo()
	n.count("a") // it leads, and its own readers have an answer
	for _, m := range sent.all(raftpb.MsgReadIndexResp) {
		if m.GetIndex() < confirmed {
			t.Fatalf("index %d was confirmed, and a reader was told that %d is all", confirmed, m.GetIndex())
		}
	}
	question()
	until(t, "an answer", func() bool { return len(sent.all(raftpb.MsgReadIndexResp)) > 0 })
	if m := sent.all(raftpb.MsgReadIndexResp)[0]; m.GetIndex() < confirmed {
		t.Fatalf("index %d was confirmed, and a reader was told that %d is all", confirmed, m.GetIndex())
	}
}

// The late answer to an attempt that was given up says nothing to readers that
// came after it.
func TestTrap09EachAttemptHasItsOwnContext(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	c.agree()
	leader := c.leader()
	reader := c.others(leader)[0]
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
		// From then on the reader hears its leader, and neither news nor answers.
		return !silent || m.GetType() == raftpb.MsgHeartbeat && m.GetCommit() <= late.GetIndex()
	})
	reader.count("a") // by a second attempt
	mu.Lock()
	if late == nil {
		mu.Unlock()
		t.Fatal("the first attempt was not held back")
	}
	silent = true
	mu.Unlock()
	c.add("a")
	got := make(chan uint64, 1)
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
	if n := <-got; n != 2 {
		t.Fatalf("2 were confirmed before the read, it saw %d", n)
	}
}

// A leader that has just been deposed does not pass on what it was about to
// propose, stamped by a clock that nobody follows any more.
func TestTrap10NoProposalIsForwarded(t *testing.T) {
	c := newCluster(t)
	c.add("a")
	old := c.leader()
	term := old.group().Status().Term
	var mu sync.Mutex
	forwarded := false
	c.watch(func(_ uint64, m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		forwarded = forwarded || m.GetType() == raftpb.MsgProp
		return true
	})
	reached, letGo := old.fs.(*disk).hold()
	before := propose(old.group(), "b") // holds the loop
	<-reached
	after := propose(old.group(), "c")
	next := c.others(old)[0].id
	old.host.Receive(testGroup, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(next), To: new(old.id), Term: new(term + 1)})
	letGo()
	if o := <-after; message.CodeOf(o.err) != message.NotLeader {
		t.Errorf("a command that met a deposed leader got %v, %v", o.result, o.err)
	}
	c.add("d")
	<-before
	mu.Lock()
	defer mu.Unlock()
	if forwarded {
		t.Error("a proposal was forwarded")
	}
}

// The host joins every entry in one buffer, because raft copies what it is
// given; a raft that does not would have the log change under it.
func TestTrap10RaftCopiesProposals(t *testing.T) {
	n := single(t, vfs.NewMem())
	n.add("first")
	var done sync.WaitGroup
	for i := range 40 {
		done.Add(1)
		n.group().Propose(Command{Head: fmt.Append(nil, i)}, func(any, error) { done.Done() })
		done.Wait() // an entry each
	}
	m := n.machine()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, entry := range m.log[1:] {
		if names := splitEntry(entry); names[0] != fmt.Sprint(i) {
			t.Fatalf("entry %d became %q", i, names)
		}
	}
}

// Commands and messages that wait are bounded in count and bytes, and what does
// not fit is refused or lost, and counted.
func TestTrap16EveryBoxHasALimit(t *testing.T) {
	d := newDisk(t, nil)
	n := newNode(t, d)
	n.tune = func(o *Options) { o.Log.SegmentBytes = 1 << 20 }
	n.start().create(testGroup)
	n.add("a")
	reached, letGo := d.hold()
	first := propose(n.group(), "a")
	<-reached
	body := bytes.Repeat([]byte{1}, 200<<10)
	var mu sync.Mutex
	codes := map[message.Code]int{}
	var all sync.WaitGroup
	for range maxPendingBytes/len(body) + 10 {
		all.Add(1)
		n.group().Propose(Command{Head: []byte("x"), Bodies: [][]byte{body}}, func(_ any, err error) {
			mu.Lock()
			defer mu.Unlock()
			codes[message.CodeOf(err)]++
			all.Done()
		})
	}
	for range maxPending {
		all.Add(1)
		n.group().Propose(Command{}, func(_ any, err error) {
			mu.Lock()
			defer mu.Unlock()
			codes[message.CodeOf(err)]++
			all.Done()
		})
	}
	for range maxInbox + 7 {
		n.host.Receive(testGroup, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(2))})
	}
	mu.Lock()
	if codes[message.ResourceExhausted] < 10 {
		t.Errorf("with everything full, %d were refused", codes[message.ResourceExhausted])
	}
	mu.Unlock()
	if lost := n.host.Stats().Lost; lost != 7 {
		t.Errorf("%d messages were lost, not 7", lost)
	}
	letGo()
	<-first
	all.Wait()
	if p, b := n.group().pending.Load(), n.group().bytes.Load(); p != 0 || b != 0 {
		t.Errorf("%d commands and %d bytes still count as waiting", p, b)
	}
	if o := <-propose(n.group(), string(make([]byte, 600<<10))); message.CodeOf(o.err) != message.TooLarge {
		t.Errorf("a command larger than an entry may be got %v", o.err)
	}
}

// A group whose worker is stuck takes no more than its queue holds, and the
// others go on, heartbeats included.
func TestTrap16StuckWorkerStopsNobodyElse(t *testing.T) {
	n := newNode(t, vfs.NewMem())
	gate := make(chan struct{})
	n.onOpen = func(m *counterMachine) {
		if m.group.ID() == testGroup {
			m.gate = gate
		}
	}
	n.tune = func(o *Options) { o.Log.SegmentBytes = 1 << 20 }
	n.start().create(testGroup)
	other := n.create(2)
	stuck := n.group()
	body := make([]byte, 200<<10)
	var all sync.WaitGroup
	for range 120 {
		all.Add(1)
		stuck.Propose(Command{Head: []byte("x"), Bodies: [][]byte{body}}, func(any, error) { all.Done() })
		if o := <-propose(other, "a"); o.err != nil {
			t.Fatal(o.err)
		}
		n.ticks <- n.host.o.Now()
	}
	until(t, "the queue is full", stuck.queue.over)
	if got := stuck.queue.bytes.Load(); got > maxQueuedBytes+maxHandOver {
		t.Errorf("%d bytes wait for the worker", got)
	}
	close(gate)
	all.Wait()
	if got := n.count("x" + string(body)); got == 0 {
		t.Error("nothing was applied after the worker was free again")
	}
}
