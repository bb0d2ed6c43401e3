package raftlog

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// What was written is there, and is there again after a restart, read from
// memory and from the segments alike.
func TestRoundTrip(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) {
		b.Create(newReplica(7))
		b.Create(newReplica(3))
		b.Append(7, hard(2, 1, 0), entries(7, 2, 1, 10, 20))
		b.Append(3, hard(5, 0, 0), nil)
		b.ReserveHandles(1001)
	})
	want := describe(t, l, all)
	for range 3 {
		boot := l.Boot()
		closeLog(t, l)
		l = open(t, fs)
		if got := describe(t, l, all); got != want {
			t.Fatalf("after reopening:\n%swant:\n%s", got, want)
		}
		if l.Boot() <= boot {
			t.Fatalf("boot number %d after %d", l.Boot(), boot)
		}
	}
	es, err := l.Entries(7, 1, 11, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	equalEntries(t, es, entries(7, 2, 1, 10, 20))
	closeLog(t, l)
}

// raft relies on these answers to the letter.
func TestStorageSemantics(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer closeLog(t, l)
	write(t, l, func(b *Batch) {
		r := newReplica(1)
		r.Base = Position{Index: 10, Term: 3}
		b.Create(r)
		b.Append(1, nil, entries(1, 4, 11, 10, 50))
	})
	if err := l.Truncate(1, 12); err != nil {
		t.Fatal(err)
	}
	term := func(i uint64) string { v, err := l.Term(1, i); return fmt.Sprint(v, err) }
	read := func(lo, hi, size uint64) string {
		es, err := l.Entries(1, lo, hi, size)
		return fmt.Sprint(len(es), err)
	}
	first, _ := l.FirstIndex(1)
	last, _ := l.LastIndex(1)
	for _, c := range []struct{ what, got, want string }{
		{"first and last", fmt.Sprint(first, last), "13 20"},
		{"term below", term(11), fmt.Sprint(0, raft.ErrCompacted)},
		{"term of the truncation", term(12), "4 <nil>"},
		{"term of the last", term(20), "4 <nil>"},
		{"term above", term(21), fmt.Sprint(0, raft.ErrUnavailable)},
		{"entries below", read(12, 14, 1<<20), fmt.Sprint(0, raft.ErrCompacted)},
		{"entries above", read(13, 22, 1<<20), fmt.Sprint(0, raft.ErrUnavailable)},
		{"all", read(13, 21, 1<<20), "8 <nil>"},
		{"at least one", read(13, 21, 0), "1 <nil>"},
		{"as many as fit", read(13, 21, 3*(50+entryFraming)), "3 <nil>"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.what, c.got, c.want)
		}
	}
	if _, err := l.LastIndex(2); !errors.Is(err, ErrNoReplica) {
		t.Errorf("a group that is not there: %v", err)
	}
}

// Everything in a batch, of whatever groups, costs one write and one sync; a
// commit index alone costs no sync and becomes durable with the next.
func TestOneWriteOneSync(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := &watchedFS{FS: mem}
	l := open(t, fs)
	defer func() { closeLog(t, l) }()
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Create(newReplica(2)) })

	l.free = append(l.free, (<-l.spare).segment) // its zeros are written apart
	l.spare = nil
	count := func(do func()) string {
		w, s := fs.writes.Load(), fs.syncs.Load()
		do()
		return fmt.Sprint(fs.writes.Load()-w, " writes ", fs.syncs.Load()-s, " syncs")
	}
	if got := count(func() {
		write(t, l, func(b *Batch) {
			b.Append(1, hard(1, 1, 0), entries(1, 1, 1, 5, 10))
			b.Append(2, hard(1, 2, 0), entries(2, 1, 1, 5, 10))
		})
	}); got != "1 writes 1 syncs" {
		t.Errorf("two groups: %s", got)
	}
	if got := count(func() {
		var b Batch
		b.Append(1, hard(1, 1, 5), nil)
		if err := l.WriteNoSync(&b); err != nil {
			t.Fatal(err)
		}
	}); got != "1 writes 0 syncs" {
		t.Errorf("commit only: %s", got)
	}
	commit := func() uint64 {
		clone := open(t, mem.CrashClone(vfs.CrashCloneCfg{}))
		defer closeLog(t, clone)
		r, _ := clone.Replica(1)
		return r.HardState.GetCommit()
	}
	if got := commit(); got != 0 {
		t.Errorf("commit %d survived a power cut without a sync: the test shows nothing", got)
	}
	write(t, l, func(b *Batch) { b.Append(2, nil, entries(2, 1, 6, 1, 10)) })
	if got := commit(); got != 5 {
		t.Errorf("commit %d after the next write, want 5", got)
	}
}

// After a failed sync nobody knows what is on disk: no later call may say yes.
func TestFailedSyncIsFinal(t *testing.T) {
	fs := &watchedFS{FS: vfs.NewMem()}
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	broken := errors.New("medium error")
	fs.beforeSync = func() error { return broken }
	var b Batch
	b.Append(1, nil, entries(1, 1, 1, 1, 10))
	if err := l.Write(&b); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	fs.beforeSync = nil
	_, readErr := l.Entries(1, 1, 2, 100)
	_, lastErr := l.LastIndex(1)
	for i, err := range []error{l.Write(&b), l.WriteNoSync(&b), l.Truncate(1, 1), l.Relocate(1), readErr, lastErr, l.Close()} {
		if !errors.Is(err, broken) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

// A new leader's entries replace a suffix, also in what a restart reads.
func TestSuffixOverwrite(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Append(1, hard(1, 1, 3), entries(1, 1, 1, 10, 30)) })
	write(t, l, func(b *Batch) { b.Append(1, hard(2, 2, 3), entries(1, 2, 5, 3, 30)) })
	want := append(entries(1, 1, 1, 4, 30), entries(1, 2, 5, 3, 30)...)
	for range 2 {
		last, err := l.LastIndex(1)
		if err != nil || last != 7 {
			t.Fatalf("last index %d, %v", last, err)
		}
		es, err := l.Entries(1, 1, 8, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		equalEntries(t, es, want)
		closeLog(t, l)
		l = open(t, fs)
	}
	closeLog(t, l)
}

// A destroyed replica never comes back under its old id, a reset one begins
// where its snapshot ends.
func TestReplicaLife(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Append(1, hard(3, 1, 2), entries(1, 3, 1, 5, 10)) })
	write(t, l, func(b *Batch) {
		b.Reset(1, Position{Index: 50, Term: 4}, &raftpb.ConfState{Voters: []uint64{9}}, 777, hard(4, 0, 50))
		b.Append(1, nil, entries(1, 4, 51, 2, 10))
	})
	closeLog(t, l)
	l = open(t, fs)
	r, _ := l.Replica(1)
	if r.Root != 777 || r.Base != (Position{50, 4}) || r.Truncated != r.Base || r.Conf.GetVoters()[0] != 9 || r.HardState.GetTerm() != 4 {
		t.Errorf("after the reset: %+v", r)
	}
	if last, _ := l.LastIndex(1); last != 52 {
		t.Errorf("last index %d", last)
	}
	write(t, l, func(b *Batch) { b.Destroy(1, 5) })
	closeLog(t, l)
	l = open(t, fs)
	if _, ok := l.Replica(1); ok || l.MinReplica(1) != 5 {
		t.Errorf("after the destruction: there %v, lowest next %d", ok, l.MinReplica(1))
	}
	old := newReplica(1)
	old.ID = 4
	var b Batch
	b.Create(old)
	if err := l.Write(&b); err == nil {
		t.Error("a replica id came back")
	}
	_ = l.Close()
	l = open(t, fs)
	old.ID = 5
	write(t, l, func(b *Batch) { b.Create(old) })
	if last, _ := l.LastIndex(1); last != 0 || l.MinReplica(1) != 6 {
		t.Errorf("the new replica has old entries up to %d, next id %d", last, l.MinReplica(1))
	}
	closeLog(t, l)
}

// The cache holds no more than its limit, and what is no more in it is read
// back equal.
func TestCacheIsBounded(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer closeLog(t, l)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Create(newReplica(2)) })
	for i := range uint64(40) {
		write(t, l, func(b *Batch) {
			b.Append(1, nil, entries(1, 1, 1+3*i, 3, 100))
			b.Append(2, nil, entries(2, 1, 1+3*i, 3, 50))
		})
		var bytes int64
		for _, r := range l.replicas {
			for _, e := range r.cached {
				bytes += int64(len(e.GetData())) + cachedEntry
			}
		}
		if bytes > l.o.CacheBytes {
			t.Fatalf("%d bytes in memory, the limit is %d", bytes, l.o.CacheBytes)
		}
	}
	if n := len(l.replicas[1].cached); n == 0 || n == 120 {
		t.Fatalf("%d of 120 entries are in memory: the test shows nothing", n)
	}
	es, err := l.Entries(1, 1, 121, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	equalEntries(t, es, entries(1, 1, 1, 120, 100))
}
