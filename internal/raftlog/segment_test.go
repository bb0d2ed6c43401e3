package raftlog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// load appends entries to group 1 until the log has switched segments n times,
// truncating behind.
func load(t *testing.T, l *Log, n int) {
	t.Helper()
	for start := l.Boot(); l.Boot() < start+uint64(n); {
		last, err := l.LastIndex(1)
		if err != nil {
			t.Fatal(err)
		}
		write(t, l, func(b *Batch) { b.Append(1, hard(1, 1, last), entries(1, 1, last+1, 4, 200)) })
		if err := l.Truncate(1, last); err != nil {
			t.Fatal(err)
		}
	}
}

// An idle group's vote survives until every segment was used again twice.
func TestIdleVoteSurvivesRecycling(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Create(newReplica(2)); b.Append(2, hard(8, 3, 0), nil) })
	load(t, l, 20)
	clone := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if r, _ := clone.Replica(2); r.HardState.GetTerm() != 8 || r.HardState.GetVote() != 3 {
		t.Errorf("the vote is %v", r.HardState)
	}
	closeLog(t, clone)
	closeLog(t, l)
}

// Endless load in a bounded number of files, restarts included.
func TestFilesStayBounded(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	for range 10 {
		load(t, l, 10)
		if live, free := l.Segments(); live > 2 || free > maxFree {
			t.Fatalf("%d segments in use, %d free", live, free)
		}
		closeLog(t, l)
		l = open(t, fs)
	}
	closeLog(t, l)
	names, err := fs.List("raft")
	if err != nil || len(names) > 4 {
		t.Errorf("%d files %v, %v", len(names), names, err)
	}
}

// A group that cannot be truncated pins the log until its entries are written
// again; then its old segments are free, and nothing of it is lost.
func TestRelocate(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) {
		b.Create(newReplica(1))
		b.Create(newReplica(2))
		b.Append(2, hard(3, 1, 0), entries(2, 3, 1, 20, 100))
	})
	load(t, l, 5)
	stuck, _ := l.Segments()
	if got := l.Pinned(); !slices.Equal(got, []uint64{2}) || stuck < 6 {
		t.Fatalf("%v pin %d segments: the test shows nothing", got, stuck)
	}
	if err := l.Relocate(2); err != nil {
		t.Fatal(err)
	}
	load(t, l, 1)
	if live, _ := l.Segments(); live > 3 {
		t.Errorf("%d segments after relocating, %d before", live, stuck)
	}
	clone := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	for _, log := range []*Log{l, clone} {
		es, err := log.Entries(2, 1, 21, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		equalEntries(t, es, entries(2, 3, 1, 20, 100))
		closeLog(t, log)
	}
}

// What fills a segment in many records is more than one record may hold: it is
// written again in parts.
func TestRelocateFullSegment(t *testing.T) {
	l := open(t, vfs.NewMem())
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	for index := uint64(1); len(l.chain) < 3; index++ {
		write(t, l, func(b *Batch) { b.Append(1, nil, entries(1, 1, index, 1, 900)) })
	}
	last, err := l.LastIndex(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Relocate(1); err != nil {
		t.Fatal(err)
	}
	es, err := l.Entries(1, 1, last+1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	equalEntries(t, es, entries(1, 1, 1, int(last), 900))
	closeLog(t, l)
}

// A recycled slot is full of records that were valid once: none comes back.
func TestOldRecordsInRecycledSlot(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	load(t, l, 9)
	for range 50 {
		last, _ := l.LastIndex(1)
		write(t, l, func(b *Batch) { b.Append(1, nil, entries(1, 1, last+1, 1, 1)) })
		want := describe(t, l, all)
		clone := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
		from := func(uint64) uint64 { first, _ := l.FirstIndex(1); return first }
		if got := describe(t, clone, from); got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
		closeLog(t, clone)
	}
	closeLog(t, l)
}

// A batch larger than a segment takes several; an entry larger than one is
// refused.
func TestLargeBatch(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) {
		b.Create(newReplica(1))
		for i := range uint64(50) {
			b.Append(1, nil, entries(1, 1, 1+i, 1, 1000))
		}
	})
	clone := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if last, _ := clone.LastIndex(1); last != 50 {
		t.Errorf("last index %d", last)
	}
	closeLog(t, clone)
	var b Batch
	b.Append(1, nil, entries(1, 1, 51, 1, 9000))
	if err := l.Write(&b); err == nil {
		t.Error("an entry larger than a segment was taken")
	}
	_ = l.Close()
}

// A large append is cut into records; none has a commit index beyond its
// entries, so that no torn batch makes raft panic.
func TestCutAppendKeepsCommitWithin(t *testing.T) {
	var b Batch
	b.Append(1, hard(1, 1, 9), entries(1, 1, 1, 10, runBytes/3))
	var commits []uint64
	for _, r := range b.recs[1:] {
		u, err := parseRun(b.buf[r.start+headerBytes : r.end])
		if err != nil {
			t.Fatal(err)
		}
		if last := u.first + u.n - 1; u.hs.commit > last {
			t.Errorf("commit %d with entries up to %d", u.hs.commit, last)
		}
		commits = append(commits, u.hs.commit)
	}
	if len(commits) < 3 || commits[len(commits)-1] != 9 {
		t.Errorf("commits %v", commits)
	}
}

// A sync or write that fails anywhere in a switch ends the log; what was
// confirmed is there afterwards.
func TestFailedSwitch(t *testing.T) {
	for fail := range 12 {
		t.Run(fmt.Sprint(fail), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			fs := &watchedFS{FS: mem}
			l := open(t, fs)
			write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
			n := 0
			fs.beforeSync = func() error {
				if n++; n > 5+fail {
					return errors.New("medium error")
				}
				return nil
			}
			confirmed := uint64(0)
			for {
				var b Batch
				b.Append(1, nil, entries(1, 1, confirmed+1, 2, 1000))
				if err := l.Write(&b); err != nil {
					break
				}
				confirmed += 2
			}
			_ = l.Close()
			clone := open(t, mem.CrashClone(vfs.CrashCloneCfg{}))
			if last, _ := clone.LastIndex(1); last != confirmed {
				t.Errorf("last index %d, confirmed %d", last, confirmed)
			}
			closeLog(t, clone)
		})
	}
}
