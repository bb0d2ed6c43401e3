package replica

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/comanda-mq/comanda/internal/message"
)

// Each confirmation is in what a power cut at that very moment leaves: a group
// of one neither commits nor applies before its own disk has the entry (trap 3,
// A1).
func TestTrap03SingleConfirmsOnlyWhatIsSynced(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	type cut struct {
		disk *disk
		want uint64
	}
	cuts := make(chan cut, 30)
	for range cap(cuts) {
		n.group().Propose(Command{Head: []byte("a")}, func(result any, err error) {
			if err != nil {
				t.Error(err)
			}
			cuts <- cut{d.crash(t, 0, 1), result.(uint64)}
		})
		n.add("b") // so that they do not all share an entry
	}
	for range cap(cuts) {
		c := <-cuts
		after := newNode(t, c.disk).start()
		if got := after.count("a"); got < c.want {
			t.Fatalf("%d was confirmed, and after a power cut there are %d", c.want, got)
		}
		after.kill()
	}
}

// While the disk holds the sync, nothing is applied and nobody is answered.
func TestTrap03SingleWaitsForItsDisk(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	before := len(n.machine().seen)
	reached, letGo := d.hold()
	c := propose(n.group(), "a")
	<-reached
	after := d.crash(t, 0, 1) // takes long enough for a worker that was given the entry too early
	n.machine().mu.Lock()
	if got := len(n.machine().seen); got != before {
		t.Errorf("an entry was applied before its sync")
	}
	n.machine().mu.Unlock()
	select {
	case <-c:
		t.Error("it was answered before its sync")
	default:
	}
	letGo()
	if o := <-c; o.err != nil || o.result != uint64(2) {
		t.Errorf("after the sync: %v", o)
	}
	old := newNode(t, after).start()
	if got := old.count("a"); got != 1 {
		t.Errorf("a power cut before the sync left %d", got)
	}
}

// At every sync of log and rows, with none, half or nearly all of what was not
// synced, a power cut leaves everything that was confirmed before, and replays
// end with rows as they were after some entry, whatever the last flush left.
func TestCrashAtEverySyncKeepsWhatWasConfirmed(t *testing.T) {
	d := newDisk(t, nil)
	n := newNode(t, d)
	n.tune = func(o *Options) { o.Log.SegmentBytes = 16 << 10; o.LogBudget = 48 << 10 }
	n.start().create(testGroup)
	type cut struct {
		disk      *disk
		confirmed uint64
		keep      int
	}
	var mu sync.Mutex
	var cuts []cut
	var confirmed, syncs uint64
	d.before(func(errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if syncs++; syncs%2 == 0 {
			keep := []int{0, 50, 99}[syncs/2%3]
			was := confirmed
			cuts = append(cuts, cut{d.crash(t, keep, syncs), was, keep})
		}
		return nil
	})
	ballast := make([]byte, 300)
	var all sync.WaitGroup
	for i := range 300 {
		all.Add(1)
		n.group().Propose(Command{Head: []byte("a")}, func(_ any, err error) {
			defer all.Done()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			confirmed++
			mu.Unlock()
		})
		n.group().Propose(Command{Head: fmt.Append(nil, i), Bodies: [][]byte{ballast}}, func(any, error) {})
		if i%5 == 0 {
			all.Wait()
		}
		if i%25 == 0 {
			if err := n.host.store.StartFlush(); err != nil {
				t.Error(err)
			}
			n.ticks <- n.host.o.Now()
		}
	}
	all.Wait()
	d.before(nil)
	if err := n.kill(); err != nil {
		t.Fatal(err)
	}
	hashes := n.machine().hashes()
	if len(cuts) < 30 {
		t.Fatalf("only %d cuts", len(cuts))
	}
	for i, c := range cuts {
		after := newNode(t, c.disk)
		after.tune = n.tune
		after.start()
		got, hash := after.count("a"), after.hash()
		if got < c.confirmed {
			t.Fatalf("cut %d, %d %% kept: %d were confirmed, %d are there", i, c.keep, c.confirmed, got)
		}
		if !hashes[hash] {
			t.Fatalf("cut %d, %d %% kept: the rows are as they were after no entry", i, c.keep)
		}
		after.kill()
	}
}

// The first failed sync ends the host with an error; who waits then learns that
// the outcome is unknown, and nobody gets a result any more (A4).
func TestFailedSyncEndsTheHost(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	broken := errors.New("the disk is broken")
	d.before(func(op errorfs.Op) error {
		if isLog(op) {
			return broken
		}
		return nil
	})
	first := propose(n.group(), "a")
	if o := <-first; message.CodeOf(o.err) != message.UnknownOutcome {
		t.Fatalf("a command whose sync failed got %v, %v", o.result, o.err)
	}
	if err := <-n.ended; !errors.Is(err, broken) {
		t.Errorf("Run returned %v", err)
	}
	n.stop()
	n.stop = nil
	if o := <-propose(n.group(), "a"); message.CodeOf(o.err) != message.Unavailable {
		t.Errorf("a command after the end got %v, %v", o.result, o.err)
	}
	if err := n.group().ReadIndex(t.Context()); message.CodeOf(err) != message.Unavailable {
		t.Errorf("a read after the end got %v", err)
	}
	select {
	case o := <-first:
		t.Errorf("done was called twice, the second time with %v", o)
	default:
	}
}

// A host that stops does not wait for a flush that fails again and again.
func TestStopOnABrokenDisk(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	broken := errors.New("the disk is broken")
	d.before(func(op errorfs.Op) error {
		if isLog(op) {
			return nil
		}
		return broken
	})
	n.stop()
	n.stop = nil
	if err := <-n.ended; !errors.Is(err, broken) {
		t.Errorf("Run returned %v", err)
	}
}

// The rows that count as durable are never ahead of what a power cut leaves.
func TestDurableRowIsNeverAheadOfACrash(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	rows := n.group().rows
	check := func() {
		row, err := rows.Durable()
		if err != nil {
			t.Fatal(err)
		}
		var durable uint64
		if row != nil {
			at, _, err := decodeApplied(row)
			if err != nil {
				t.Fatal(err)
			}
			durable = at.Index
		}
		after := newNode(t, d.crash(t, 0, 1))
		h, err := New(after.options())
		if err != nil {
			t.Fatal(err)
		}
		after.host = h
		if got := after.group().Status().Applied; got < durable {
			t.Fatalf("index %d counted as durable, a power cut left %d", durable, got)
		}
		ctx, stop := testContext()
		stop()
		if err := h.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		n.add("a")
		check()
		if i%3 == 0 {
			if err := n.host.store.StartFlush(); err != nil {
				t.Fatal(err)
			}
			check()
		}
		if i%4 == 0 {
			if err := n.host.store.Flush(); err != nil {
				t.Fatal(err)
			}
			check()
		}
	}
}

// A host that is told to stop while a worker waits for a handle ends without an
// error, and with everything closed.
func TestStopWhileAWorkerWaitsForAHandle(t *testing.T) {
	d := newDisk(t, nil)
	n := single(t, d)
	n.add("a")
	n.host.handles.stop() // as when the host stops
	for n.group().Status().Applied%7 != 6 {
		n.add("a")
	}
	last := propose(n.group(), "a") // clears a space, which then needs a new handle
	until(t, "the worker has given up", func() bool {
		q := &n.group().queue
		q.mu.Lock()
		defer q.mu.Unlock()
		return n.group().behind() && len(q.tasks) > 0
	})
	if err := n.kill(); err != nil {
		t.Errorf("the host ended with %v", err)
	}
	if o := <-last; message.CodeOf(o.err) != message.UnknownOutcome {
		t.Errorf("the command that waited got %v, %v", o.result, o.err)
	}
	n.start()
	if got := n.count("a"); got < 2 {
		t.Errorf("after the next start there are %d", got)
	}
}
