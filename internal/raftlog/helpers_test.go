package raftlog

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testStore = 0x5707e

func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "raft", StoreID: testStore, SegmentBytes: 8 << 10, CacheBytes: 4 << 10}
}

func open(t *testing.T, fs vfs.FS) *Log {
	t.Helper()
	l, err := Open(testOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, l *Log, fill func(b *Batch)) {
	t.Helper()
	var b Batch
	fill(&b)
	if err := l.Write(&b); err != nil {
		t.Fatal(err)
	}
}

func newReplica(group uint64) Replica {
	return Replica{Group: group, ID: 1, Root: 100 + group, Conf: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// entries makes n of them from first on, whose data tells them apart.
func entries(group, term, first uint64, n, size int) []*raftpb.Entry {
	es := make([]*raftpb.Entry, n)
	for i := range es {
		index := first + uint64(i)
		data := fmt.Appendf(nil, "%d/%d/%d", group, term, index)
		data = append(data, bytes.Repeat([]byte{'.'}, max(0, size-len(data)))...)
		es[i] = &raftpb.Entry{Term: &term, Index: &index, Type: raftpb.EntryNormal.Enum(), Data: data}
	}
	return es
}

// describe tells everything that a log returns, truncation apart: what it says
// of entries begins at from(group).
func describe(t *testing.T, l *Log, from func(group uint64) uint64) string {
	t.Helper()
	var w strings.Builder
	fmt.Fprintf(&w, "handles %d\n", l.Handles())
	for _, r := range l.Replicas() {
		hs := r.HardState
		fmt.Fprintf(&w, "group %d id %d root %d base %v voters %v hard %d %d %d\n", r.Group, r.ID, r.Root, r.Base, r.Conf.GetVoters(), hs.GetTerm(), hs.GetVote(), hs.GetCommit())
		first, err1 := l.FirstIndex(r.Group)
		last, err2 := l.LastIndex(r.Group)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if first = max(first, from(r.Group)); first > last {
			continue
		}
		es, err := l.Entries(r.Group, first, last+1, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			fmt.Fprintf(&w, " %d/%d %q\n", e.GetIndex(), e.GetTerm(), e.GetData())
		}
	}
	for _, group := range slices.Sorted(maps.Keys(l.destroyed)) {
		fmt.Fprintf(&w, "group %d from replica %d\n", group, l.MinReplica(group))
	}
	return w.String()
}

func all(uint64) uint64 { return 0 }

func equalEntries(t *testing.T, got, want []*raftpb.Entry) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b *raftpb.Entry) bool { return proto.Equal(a, b) }) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// watchedFS counts writes and data syncs of segments, and calls before each of
// the latter, which may fail it.
type watchedFS struct {
	vfs.FS
	writes, syncs atomic.Int64
	beforeSync    func() error
}

func (fs *watchedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	return &watchedFile{f, fs}, err
}

type watchedFile struct {
	vfs.File
	fs *watchedFS
}

func (f *watchedFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.writes.Add(1)
	return f.File.WriteAt(b, off)
}

func (f *watchedFile) SyncData() error {
	f.fs.syncs.Add(1)
	if f.fs.beforeSync != nil {
		if err := f.fs.beforeSync(); err != nil {
			return err
		}
	}
	return f.File.SyncData()
}

// copyFS returns a copy of the directory as it is, synced or not.
func copyFS(t testing.TB, from vfs.FS) *vfs.MemFS {
	t.Helper()
	to := vfs.NewCrashableMem()
	if err := to.MkdirAll("raft", 0o755); err != nil {
		t.Fatal(err)
	}
	names, err := from.List("raft")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		putFile(t, to, "raft/"+name, readFile(t, from, "raft/"+name))
	}
	return to
}

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && len(b) > 0 {
		t.Fatal(err)
	}
	return b
}

func putFile(t testing.TB, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path, writeCategory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Clone(b)); err != nil {
		t.Fatal(err)
	}
}
