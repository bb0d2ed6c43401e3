package raftlog

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Open copies what may be only in the page cache, and no more.
func TestOpenCopiesTheTailOnly(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	for i := range uint64(30) {
		write(t, l, func(b *Batch) { b.Append(1, nil, entries(1, 1, 1+i, 1, 200)) })
	}
	if len(l.chain) != 1 {
		t.Fatalf("%d segments: the test wants one that is nearly full", len(l.chain))
	}
	killed := open(t, copyFS(t, fs))
	if got := killed.chain[0].live[1]; len(killed.chain) != 2 || got != 29 {
		t.Errorf("%d of 30 entries were left where they are, want all but the last", got)
	}
	closeLog(t, killed)
	closeLog(t, l)
}

// The process ends after a seal was written and before it was synced. The next
// one believes the seal, so it must sync it: otherwise a power cut would take
// away what the segments behind it rest on.
func TestSealThatWasNotSynced(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := &watchedFS{FS: mem}
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Append(1, nil, entries(1, 1, 1, 20, 100)) })
	want := describe(t, l, all)
	syncs := 0
	fs.beforeSync = func() error {
		if syncs++; syncs == 2 { // the new segment's table, then the seal
			return errors.New("the process ends here")
		}
		return nil
	}
	if err := l.beginSegment(l.end, nil); err == nil || l.chain[0].sealed == 0 {
		t.Fatal("the seal was not what failed")
	}
	_ = l.fail(errors.New("gone"))
	_ = l.Close()
	fs.beforeSync = nil

	l = open(t, fs)
	write(t, l, func(b *Batch) { b.Append(1, nil, entries(1, 1, 21, 1, 100)) })
	after := open(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	if got := describe(t, after, all); got[:len(want)] != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	closeLog(t, after)
	closeLog(t, l)
}

// A segment that was begun and not sealed was never used: the log goes on from
// the one before.
func TestUnsealedSegmentIsIgnored(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := &watchedFS{FS: mem}
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Append(1, nil, entries(1, 1, 1, 3, 100)) })
	want := describe(t, l, all)
	boot := l.Boot()
	fs.beforeSync = func() error { return errors.New("the process ends here") }
	if err := l.beginSegment(l.end, nil); err == nil {
		t.Fatal("the sync did not fail")
	}
	_ = l.fail(errors.New("gone"))
	_ = l.Close()
	fs.beforeSync = nil
	garbled := readFile(t, fs, "raft/000002.seg")
	garbled[recordsAt+headerBytes] ^= 1
	putFile(t, mem, "raft/000002.seg", garbled)

	l = open(t, fs)
	if got := describe(t, l, all); got != want || l.Boot() <= boot+1 {
		t.Errorf("boot %d after %d:\n%swant\n%s", l.Boot(), boot, got, want)
	}
	closeLog(t, l)
}

// When the newest segment is gone, the one before, which is whole, does not
// pass for the log.
func TestNewestSegmentIsGone(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Append(1, nil, entries(1, 1, 1, 3, 100)) })
	if err := l.beginSegment(l.end, nil); err != nil {
		t.Fatal(err)
	}
	write(t, l, func(b *Batch) { b.Append(1, hard(5, 1, 0), nil) })
	newest := "raft/" + slotName(l.current().slot)
	closeLog(t, l)
	if err := fs.Remove(newest); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testOptions(fs)); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened with %v", err)
	}
}

// A record that lies at another place than it was written to is damage, even if
// every byte of it is right.
func TestRecordsThatChangedPlaces(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	write(t, l, func(b *Batch) { b.ReserveHandles(1000); b.ReserveHandles(2000) })
	end := int(l.end)
	closeLog(t, l)
	name := "raft/" + slotName(1)
	whole := readFile(t, fs, name)
	n := headerBytes + 2
	swapped := slices.Concat(whole[:end-2*n], whole[end-n:end], whole[end-2*n:end-n], whole[end:])
	putFile(t, fs, name, swapped)
	if _, err := Open(testOptions(fs)); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened with %v", err)
	}
}

// However much was written without a sync, what a kill leaves fits into the
// segment that Open begins, with a quarter to spare for the table.
func TestUnsyncedTailFits(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	for i := range uint64(100) {
		var b Batch
		b.Append(1, nil, entries(1, 1, 1+i, 1, 30))
		if err := l.WriteNoSync(&b); err != nil {
			t.Fatal(err)
		}
		if unsynced := l.end - l.synced; unsynced > 6<<10 {
			t.Fatalf("%d bytes are not synced", unsynced)
		}
		killed := open(t, copyFS(t, fs))
		if last, _ := killed.LastIndex(1); last != i+1 {
			t.Fatalf("last index %d, want %d", last, i+1)
		}
		closeLog(t, killed)
	}
	if len(l.chain) > 1 {
		t.Error("a switch synced: the test shows less than it should")
	}
	closeLog(t, l)
}

// A table that promises an entry that no segment has is damage, not a gap that
// raft stumbles over later.
func TestEntryInNoSegment(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
	l.replicas[1].entries = append(l.replicas[1].entries, entry{term: 1})
	if err := l.beginSegment(l.end, nil); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if _, err := Open(testOptions(fs)); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened with %v", err)
	}
}

// What does not follow the log is the caller's mistake, and nothing of it is
// written.
func TestGapIsRefused(t *testing.T) {
	for _, first := range []uint64{1, 3, 8} { // 1–3 are truncated, the last is 6
		fs := vfs.NewMem()
		l := open(t, fs)
		write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Append(1, nil, entries(1, 1, 1, 6, 10)) })
		if err := l.Truncate(1, 3); err != nil {
			t.Fatal(err)
		}
		var b Batch
		b.Append(1, nil, entries(1, 2, first, 1, 10))
		if err := l.Write(&b); err == nil {
			t.Errorf("an append at %d was taken", first)
		}
		_ = l.Close()
		l = open(t, fs)
		if last, _ := l.LastIndex(1); last != 6 {
			t.Errorf("after the append at %d the last index is %d", first, last)
		}
		closeLog(t, l)
	}
}

// The same on a real disk, with segments of the usual size.
func TestOnDisk(t *testing.T) {
	o := Options{FS: vfs.Default, Dir: filepath.Join(t.TempDir(), "raft"), StoreID: 1}
	var want string
	for i := range uint64(3) {
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			write(t, l, func(b *Batch) { b.Create(newReplica(1)) })
		} else if got := describe(t, l, all); got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
		write(t, l, func(b *Batch) { b.Append(1, hard(1, 1, i), entries(1, 1, 1+10*i, 10, 100)) })
		want = describe(t, l, all)
		closeLog(t, l)
	}
}

// Inspect shows every record of a stopped log, and where one is damaged.
func TestInspect(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) { b.Create(newReplica(4)); b.Append(4, hard(2, 1, 0), entries(4, 2, 1, 3, 10)) })
	end := l.end
	closeLog(t, l)
	kinds := func() (kinds []string, found Item, note string) {
		t.Helper()
		err := Inspect(fs, "raft", func(i Item) error {
			if i.File != slotName(1) {
				return nil
			}
			kinds = append(kinds, i.Kind)
			if i.Kind == "append" {
				found = i
			}
			note = i.Note
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return kinds, found, note
	}
	got, found, _ := kinds()
	if want := []string{"head", "table", "batch", "created", "append", "batch", "end"}; !slices.Equal(got, want) {
		t.Errorf("kinds %v, want %v", got, want)
	}
	if found.Group != 4 || found.First != 1 || found.Last != 3 || found.Note != "term 2, vote 1, commit 0" {
		t.Errorf("the append is %+v", found)
	}
	whole := readFile(t, fs, "raft/"+slotName(1))
	whole[end-1] ^= 1
	putFile(t, fs, "raft/"+slotName(1), whole)
	if got, _, note := kinds(); len(got) != 5 || note != "damaged: what is here was synced and does not match its checksum" {
		t.Errorf("kinds %v, the last says %q", got, note)
	}
}
