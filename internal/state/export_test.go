package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// takeRun gives n numbers in a row.
func (h *handles) takeRun(n int) (uint64, error) {
	first := h.next + 1
	h.next += uint64(n)
	return first, nil
}

// filled is a replica with rows of every kind and size.
func filled(t *testing.T, s *Store, h *handles) *Replica {
	t.Helper()
	r := openReplica(t, s, 1, h)
	for index := range uint64(40) {
		b := r.Begin()
		apply(b, index+1)
		b.Set(index%spaces, key(topRow, 1<<40+index), bytes.Repeat([]byte{byte(index)}, 40_000))
		b.Commit(binary.BigEndian.AppendUint64(nil, index+1))
	}
	return r
}

func export(t *testing.T, r *Replica) []byte {
	t.Helper()
	v := r.View()
	defer v.Close()
	e := v.Export()
	defer e.Close()
	all, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// An imported snapshot shows, under handles of its own, exactly the rows of the
// view that it was made from, and nothing else of that store changes; it stays
// after a power cut, with no flush.
func TestImportShowsWhatTheViewShowed(t *testing.T) {
	from := open(t, vfs.NewMem())
	r := filled(t, from, &handles{next: 1})
	v := r.View()
	want, applied := dumpAll(v), v.Applied()
	e := v.Export()
	b := r.Begin() // what comes after the view is not in it
	b.Clear(1)
	b.Set(2, []byte("later"), nil)
	b.Commit([]byte("later"))

	fs := vfs.NewCrashableMem()
	to, h := open(t, fs), &handles{next: 500}
	other := filled(t, to, h)
	before := viewOf(other)
	in, err := to.Import(e, h.takeRun)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(in.Applied, applied) {
		t.Errorf("the applied row is %x, not %x", in.Applied, applied)
	}
	if err := in.Install(); err != nil {
		t.Fatal(err)
	}
	if got := viewOf(openReplica(t, to, in.Root, h)); got != want {
		t.Fatalf("the rows are\n%.300s\nnot\n%.300s", got, want)
	}
	if viewOf(other) != before {
		t.Fatal("rows of another replica changed")
	}
	cut := open(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 1))}))
	if got := viewOf(openReplica(t, cut, in.Root, h)); got != want {
		t.Fatal("after a power cut the rows are not those of the snapshot")
	}
	closeAll(t, func() error { return e.Close() }, func() error { v.Close(); return nil }, from.Close, to.Close, cut.Close)
}

func closeAll(t *testing.T, closers ...func() error) {
	t.Helper()
	for _, c := range closers {
		if err := c(); err != nil {
			t.Fatal(err)
		}
	}
}

// A stream that was cut, flipped or shuffled is refused at whatever place, and
// leaves neither rows nor files.
func TestImportRefusesWhatWasNotSent(t *testing.T) {
	from := open(t, vfs.NewMem())
	sent := export(t, filled(t, from, &handles{next: 1}))
	fs := vfs.NewMem()
	to, h := open(t, fs), &handles{next: 500}
	refused := func(what string, stream []byte) {
		t.Helper()
		in, err := to.Import(bytes.NewReader(stream), h.takeRun)
		if err == nil {
			t.Fatalf("%s was taken, root %d", what, in.Root)
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", what, err)
		}
		if files, err := fs.List("state/" + incomingDir); err != nil || len(files) > 0 {
			t.Fatalf("%s left %v (%v)", what, files, err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		at := rng.IntN(len(sent))
		flipped := slices.Clone(sent)
		flipped[at] ^= 1 << rng.IntN(8)
		refused(fmt.Sprintf("a flipped bit at %d of %d", at, len(sent)), flipped)
		refused(fmt.Sprintf("the first %d of %d", at, len(sent)), sent[:at])
	}
	chunks := split(sent)
	if len(chunks) < 5 {
		t.Fatalf("only %d chunks", len(chunks))
	}
	lost := slices.Concat(slices.Delete(slices.Clone(chunks), 2, 3)...)
	refused("a lost chunk", lost)
	refused("a doubled chunk", slices.Concat(slices.Insert(slices.Clone(chunks), 2, chunks[2])...))
	chunks[2], chunks[3] = chunks[3], chunks[2]
	refused("two exchanged chunks", slices.Concat(chunks...))
	var left []uint64
	if err := to.Handles(func(handle uint64, _ int, _ int64) { left = append(left, handle) }); err != nil || !slices.Equal(left, []uint64{0}) {
		t.Errorf("handles %v have rows (%v)", left, err)
	}
	closeAll(t, from.Close, to.Close)
}

func split(stream []byte) (chunks [][]byte) {
	for len(stream) > 0 {
		n := int(binary.LittleEndian.Uint32(stream))
		if n == 0 {
			n = 8
		}
		chunks = append(chunks, stream[:n+chunkHead])
		stream = stream[n+chunkHead:]
	}
	return chunks
}

// What an earlier process read and did not install is deleted at the start, and
// what was installed and not named by the log is swept.
func TestStartDeletesWhatSnapshotsLeft(t *testing.T) {
	from, fs := open(t, vfs.NewMem()), vfs.NewMem()
	sent := export(t, filled(t, from, &handles{next: 1}))
	to, h := open(t, fs), &handles{next: 500}
	if _, err := to.Import(bytes.NewReader(sent), h.takeRun); err != nil {
		t.Fatal(err)
	}
	in, err := to.Import(bytes.NewReader(sent), h.takeRun)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Install(); err != nil {
		t.Fatal(err)
	}
	closeAll(t, to.Close)
	to = open(t, fs)
	if files, err := fs.List("state/" + incomingDir); err != nil || len(files) > 0 {
		t.Errorf("%v are left (%v)", files, err)
	}
	if n, err := to.Sweep(nil); err != nil || n != spaces {
		t.Errorf("%d handles were swept (%v)", n, err)
	}
	closeAll(t, from.Close, to.Close)
}

// A snapshot that came to nothing leaves no rows.
func TestDropDeletesAnInstalledSnapshot(t *testing.T) {
	s := open(t, vfs.NewMem())
	h := &handles{next: 1}
	r := filled(t, s, h)
	before := viewOf(r)
	in, err := s.Import(bytes.NewReader(export(t, r)), h.takeRun)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Install(); err != nil {
		t.Fatal(err)
	}
	if err := in.Drop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Handles(func(handle uint64, _ int, _ int64) {
		if handle >= in.Root {
			t.Errorf("handle %d has rows", handle)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if viewOf(r) != before {
		t.Error("rows of another replica changed")
	}
	closeAll(t, s.Close)
}

// Making a space copies little of the table of those that are there.
func BenchmarkNewSpace(b *testing.B) {
	t := &table{}
	for n := range b.N {
		t = t.with(uint64(n), uint64(n)+1, false)
	}
}
