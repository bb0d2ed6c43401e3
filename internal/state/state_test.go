package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	bodies.TargetGarbageRatio, bodies.RewriteMinimumAge = 0.1, 0 // so that files are written anew within a test
	goleak.VerifyTestMain(m)
}

// handles are numbers that are never used twice, as the log gives them.
type handles struct{ next uint64 }

func (h *handles) take() (uint64, error) {
	h.next++
	return h.next, nil
}

func open(t *testing.T, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(Options{FS: fs, Dir: "state", CacheBytes: 1 << 20, MemTable: 256 << 10, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openReplica(t *testing.T, s *Store, root uint64, h *handles) *Replica {
	t.Helper()
	r, err := s.OpenReplica(root, h.take)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rows is what the machine and the model have in common.
type rows interface {
	Get(space uint64, key []byte) ([]byte, bool)
	Has(space uint64, key []byte) bool
	Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool)
	Set(space uint64, key, value []byte)
	Delete(space uint64, key []byte)
	SingleDelete(space uint64, key []byte)
	Clear(space uint64)
}

type model map[uint64]map[string]string

func (m model) Get(space uint64, key []byte) ([]byte, bool) {
	v, ok := m[space][string(key)]
	return []byte(v), ok
}

func (m model) Has(space uint64, key []byte) bool {
	_, ok := m[space][string(key)]
	return ok
}

func (m model) Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(m[space])) {
		if k >= string(lo) && k < string(hi) && !visit([]byte(k), []byte(m[space][k])) {
			return
		}
	}
}

func (m model) Set(space uint64, key, value []byte) {
	if m[space] == nil {
		m[space] = map[string]string{}
	}
	m[space][string(key)] = string(value)
}
func (m model) Delete(space uint64, key []byte)       { delete(m[space], string(key)) }
func (m model) SingleDelete(space uint64, key []byte) { delete(m[space], string(key)) }
func (m model) Clear(space uint64)                    { delete(m, space) }

const (
	onceRow  = 1 // set once, SingleDelete
	manyRow  = 2 // set many times, Delete
	topRow   = 0xff
	spaces   = 4 // the group's own among them
	seqRange = 12
)

func key(kind byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, seq)
}

// apply is one entry: a function of its index and the rows alone, that returns
// what it read.
func apply(r rows, index uint64) string {
	rng := rand.New(rand.NewPCG(index, 7))
	read := ""
	for range 12 {
		space, seq := rng.Uint64N(spaces), rng.Uint64N(seqRange)
		value := bytes.Repeat(fmt.Append(nil, index, "."), 1+int(index)%2*bodies.MinimumSize) // every other one lies beside the tables
		once, many := key(onceRow, seq), key([]byte{manyRow, topRow}[rng.IntN(2)], seq)
		switch n := rng.IntN(20); {
		case n < 5:
			if !r.Has(space, once) {
				r.Set(space, once, value)
			}
		case n < 9:
			if r.Has(space, once) {
				r.SingleDelete(space, once)
			}
		case n < 12:
			r.Set(space, many, value)
		case n < 14:
			r.Delete(space, many)
		case n < 15 && space != GroupSpace:
			r.Clear(space)
		case n < 18: // neighbours, in order
			for seq := range uint64(seqRange) {
				for _, kind := range []byte{onceRow, manyRow, topRow} {
					v, ok := r.Get(space, key(kind, seq))
					read += fmt.Sprintf("%s %v ", v, ok)
				}
			}
		default:
			read += dump(r, space)
		}
	}
	return read
}

func dump(r interface {
	Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool)
}, space uint64,
) string {
	s := fmt.Sprintf("%d: ", space)
	r.Scan(space, nil, []byte{0xff, 0xff}, func(k, v []byte) bool {
		s += fmt.Sprintf("%x=%s ", k, v)
		return true
	})
	return s
}

func dumpAll(r interface {
	Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool)
},
) (s string) {
	for space := range uint64(spaces) {
		s += dump(r, space)
	}
	return s
}

// Pebble without its log is used by few: entries with every kind of write and
// read give the same as a map, through flushes, compactions, power cuts and the
// replays after them, which choose other handles (trap 12).
func TestTrap12RowsAreLikeAMapThroughCrashes(t *testing.T) {
	const root, entries = 1, 300
	want, reads := []string{dumpAll(model{})}, []string{""}
	m := model{}
	for i := range uint64(entries) {
		reads = append(reads, apply(m, i+1))
		want = append(want, dumpAll(m))
	}
	for seed := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		h := &handles{next: root}
		s := open(t, fs)
		r := openReplica(t, s, root, h)
		for index := uint64(1); index <= entries; index++ {
			b := r.Begin()
			if got := apply(b, index); got != reads[index] {
				t.Fatalf("seed %d, entry %d read %s\nnot %s", seed, index, got, reads[index])
			}
			b.Commit(binary.BigEndian.AppendUint64(nil, index))
			switch n := rng.IntN(100); {
			case n < 8:
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			case n == 8:
				if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
					t.Fatal(err)
				}
			case n < 12: // a power cut
				cut := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 99}[rng.IntN(3)], RNG: rng})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				fs, s = cut, open(t, cut)
				if _, err := s.Sweep([]uint64{root}); err != nil {
					t.Fatal(err)
				}
				r = openReplica(t, s, root, h)
				index = appliedIndex(t, r)
				if got := viewOf(r); got != want[index] {
					t.Fatalf("seed %d: after a power cut the rows at %d are %s\nnot %s", seed, index, got, want[index])
				}
			}
		}
		if got := viewOf(r); got != want[entries] {
			t.Fatalf("seed %d: the rows are %s\nnot %s", seed, got, want[entries])
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func appliedIndex(t *testing.T, r *Replica) uint64 {
	t.Helper()
	row, err := r.Applied()
	if err != nil {
		t.Fatal(err)
	}
	if row == nil {
		return 0
	}
	return binary.BigEndian.Uint64(row)
}

func viewOf(r *Replica) string {
	v := r.View()
	defer v.Close()
	return dumpAll(v)
}

// A view is of one entry, also where spaces are cleared and come back while it
// opens.
func TestViewIsOfOneEntry(t *testing.T) {
	s := open(t, vfs.NewMem())
	r := openReplica(t, s, 1, &handles{next: 1})
	done := make(chan struct{})
	var viewers sync.WaitGroup
	viewers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			v := r.View()
			own, _ := v.Get(GroupSpace, []byte("entry"))
			other, _ := v.Get(1, []byte("entry"))
			v.Close()
			if string(own) != string(other) {
				t.Errorf("a view shows entry %q in one space and %q in the other", own, other)
				return
			}
		}
	})
	for i := range 500 {
		b := r.Begin()
		b.Clear(1)
		b.Set(1, []byte("entry"), fmt.Append(nil, i))
		b.Set(GroupSpace, []byte("entry"), fmt.Append(nil, i))
		b.Commit([]byte("applied"))
	}
	close(done)
	viewers.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A sweep leaves what the roots reach, and the store's own handle 0, and nothing
// else.
func TestSweepLeavesWhatIsReached(t *testing.T) {
	s := open(t, vfs.NewMem())
	h := &handles{next: 10}
	kept, gone := openReplica(t, s, 1, h), openReplica(t, s, 2, h)
	for _, r := range []*Replica{kept, gone} {
		b := r.Begin()
		for space := range uint64(spaces) {
			b.Set(space, []byte("row"), []byte("value"))
		}
		b.Commit([]byte("applied"))
	}
	before := viewOf(kept)
	if n, err := s.Sweep([]uint64{1}); err != nil || n != spaces {
		t.Fatalf("%d handles were swept, not %d (%v)", n, spaces, err)
	}
	var left []uint64
	if err := s.Handles(func(handle uint64, _ int, _ int64) { left = append(left, handle) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(left, []uint64{0, 1, 11, 12, 13}) || viewOf(kept) != before {
		t.Fatalf("handles %v are left", left)
	}
	if n, err := s.Sweep([]uint64{1}); err != nil || n != 0 {
		t.Fatalf("a second sweep found %d (%v)", n, err)
	}
	if err := kept.Destroy(); err != nil {
		t.Fatal(err)
	}
	left = nil
	if err := s.Handles(func(handle uint64, _ int, _ int64) { left = append(left, handle) }); err != nil || !slices.Equal(left, []uint64{0}) {
		t.Fatalf("handles %v are left of a destroyed replica (%v)", left, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
