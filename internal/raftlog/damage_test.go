package raftlog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// stopped returns the files of a log with three groups in several segments, and
// what it says. It was killed if it was not closed.
func stopped(t *testing.T, clean bool) (fs *vfs.MemFS, says string) {
	t.Helper()
	fs = vfs.NewCrashableMem()
	l := open(t, fs)
	write(t, l, func(b *Batch) {
		b.Create(newReplica(1))
		b.Create(newReplica(2))
		b.Append(2, hard(9, 3, 0), nil)
	})
	for i := range uint64(30) {
		write(t, l, func(b *Batch) { b.Append(1, hard(1, 1, i), entries(1, 1, 1+4*i, 4, 200)) })
	}
	if err := l.Truncate(1, 40); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(10) {
		write(t, l, func(b *Batch) { b.Append(1, hard(1, 1, 120+i), entries(1, 1, 121+4*i, 4, 200)) })
	}
	if len(l.chain) < 3 || len(l.free) == 0 {
		t.Fatalf("%d segments and %d free: the test shows little", len(l.chain), len(l.free))
	}
	says = describe(t, l, all)
	if !clean {
		killed := copyFS(t, fs)
		closeLog(t, l)
		return killed, says
	}
	closeLog(t, l)
	return fs, says
}

// needed tells for each file up to where its bytes are needed; the batch head
// that Close wrote last is not.
func needed(t *testing.T, fs vfs.FS) (upTo map[string]int64, lastBatch int64, newest string) {
	t.Helper()
	upTo = map[string]int64{}
	var oldest, generation uint64
	generations := map[string]uint64{}
	lengths := map[uint64]int64{}
	err := Inspect(fs, "raft", func(i Item) error {
		generations[i.File] = i.Generation
		if i.Kind == "head" {
			var store, prev, length, sealed uint64
			fmt.Sscanf(i.Note, "store %x, follows %d which is valid up to %d, sealed for %d", &store, &prev, &length, &sealed)
			lengths[prev] = int64(length)
		}
		if i.Generation < generation || i.Generation == 0 {
			return nil
		}
		generation, newest = i.Generation, i.File
		switch i.Kind {
		case "table":
			fmt.Sscanf(i.Note, "oldest needed %d", &oldest)
		case "batch":
			lastBatch = i.Offset
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for file, g := range generations {
		if g == generation {
			upTo[file] = lastBatch
		} else if g >= oldest && g > 0 {
			upTo[file] = lengths[g]
		}
	}
	return upTo, lastBatch, newest
}

// A single bit that flips in what was synced is found, wherever it is; one
// anywhere else changes nothing.
func TestBitFlip(t *testing.T) {
	fs, says := stopped(t, true)
	upTo, _, _ := needed(t, fs)
	if len(upTo) < 3 {
		t.Fatalf("needed are %v: the test shows little", upTo)
	}
	names, _ := fs.List("raft")
	for _, name := range names {
		whole := readFile(t, fs, "raft/"+name)
		for off := 0; off < len(whole); {
			clone := copyFS(t, fs)
			flipped := slices.Clone(whole)
			flipped[off] ^= 1 << (off % 8)
			putFile(t, clone, "raft/"+name, flipped)
			l, err := Open(testOptions(clone))
			want := int64(off) < upTo[name]
			if err == nil {
				got := describe(t, l, all)
				closeLog(t, l)
				if want || got != says {
					t.Fatalf("%s, byte %d: was not found; needed %v", name, off, want)
				}
			} else if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s, byte %d: %v", name, off, err)
			}
			if off++; off > 2*recordsAt {
				off += 40
			}
		}
	}
}

// After a kill the last write may be torn anywhere: the log opens and has all
// that came before. In the middle the same is damage.
func TestTornTail(t *testing.T) {
	fs, says := stopped(t, false)
	_, last, newest := needed(t, fs)
	whole := readFile(t, fs, "raft/"+newest)
	end := int64(len(whole))
	for end > 0 && whole[end-1] == 0 {
		end--
	}
	before, _, _ := strings.Cut(says, " 157/1 ") // the last write had entries 157–160
	before = strings.Replace(before, "hard 1 1 129", "hard 1 1 128", 1)
	step := int64(1)
	if racing {
		step = 5
	}
	for off := last; off < end; off += step {
		for _, how := range []string{"cut", "zeroed", "old bytes"} {
			torn := slices.Clone(whole)
			switch how {
			case "cut":
				torn = torn[:off]
			case "zeroed":
				clear(torn[off:])
			case "old bytes":
				for i := off; i < end; i++ {
					torn[i] = byte(i)
				}
			}
			clone := copyFS(t, fs)
			putFile(t, clone, "raft/"+newest, torn)
			l, err := Open(testOptions(clone))
			if err != nil {
				t.Fatalf("%s at %d: %v", how, off, err)
			}
			if got := describe(t, l, all); !strings.HasPrefix(got, before) || strings.Contains(got, " 157/1 ") {
				t.Fatalf("%s at %d: got\n%swant\n%s", how, off, got, before)
			}
			closeLog(t, l)
		}
	}
	torn := slices.Clone(whole)
	torn[last-1] ^= 1 // the end of the write before, which the last batch calls synced
	putFile(t, fs, "raft/"+newest, torn)
	if _, err := Open(testOptions(fs)); !errors.Is(err, ErrDamaged) {
		t.Fatalf("damage before the last write: %v", err)
	}
}

// Files that are missing, empty, old or another node's are never taken for a
// log with less in it.
func TestWrongFiles(t *testing.T) {
	fs, says := stopped(t, true)
	upTo, _, _ := needed(t, fs)
	older := copyFS(t, fs)
	l := open(t, fs)
	for i := range uint64(60) {
		write(t, l, func(b *Batch) { b.Append(1, nil, entries(1, 1, 161+4*i, 4, 200)) })
	}
	if err := l.Truncate(1, 250); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(10) {
		write(t, l, func(b *Batch) { b.Append(1, nil, entries(1, 1, 401+4*i, 4, 200)) })
	}
	now := describe(t, l, all)
	closeLog(t, l)

	refused := func(what string, fs vfs.FS, want error) {
		t.Helper()
		if l, err := Open(testOptions(fs)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
			if err == nil {
				closeLog(t, l)
			}
		}
	}
	nowUpTo, _, _ := needed(t, fs)
	for name := range nowUpTo {
		missing := copyFS(t, fs)
		if err := missing.Remove("raft/" + name); err != nil {
			t.Fatal(err)
		}
		refused(name+" is missing", missing, ErrDamaged)

		empty := copyFS(t, fs)
		putFile(t, empty, "raft/"+name, make([]byte, 8<<10))
		refused(name+" is empty", empty, ErrDamaged)

		if _, ok := upTo[name]; !ok {
			continue
		}
		old := copyFS(t, fs)
		putFile(t, old, "raft/"+name, readFile(t, older, "raft/"+name))
		if string(readFile(t, older, "raft/"+name)) != string(readFile(t, fs, "raft/"+name)) {
			refused(name+" is an older copy", old, ErrDamaged)
		}
	}

	// The names of slots mean nothing.
	var names []string
	for name := range nowUpTo {
		names = append(names, name)
	}
	swapped := copyFS(t, fs)
	putFile(t, swapped, "raft/"+names[0], readFile(t, fs, "raft/"+names[1]))
	putFile(t, swapped, "raft/"+names[1], readFile(t, fs, "raft/"+names[0]))
	l = open(t, swapped)
	if got := describe(t, l, all); got != now {
		t.Errorf("after swapping two files:\n%swant\n%s", got, now)
	}
	closeLog(t, l)

	o := testOptions(copyFS(t, fs))
	o.StoreID++
	if _, err := Open(o); !errors.Is(err, ErrOtherStore) {
		t.Errorf("another store's: %v", err)
	}
	newer := copyFS(t, fs)
	b := readFile(t, fs, "raft/"+names[0])
	h, _ := parseHead(b)
	h.format = format + 1
	h.put(b)
	putFile(t, newer, "raft/"+names[0], b)
	refused("a newer format", newer, ErrNewerFormat)

	// All of it older is consistent: only peers, which know the boot number, see that.
	l = open(t, older)
	if got := describe(t, l, all); got != says {
		t.Errorf("the older copy says\n%s", got)
	}
	closeLog(t, l)
}

// What is read back while the log runs is verified too.
func TestReadBackIsVerified(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.CacheBytes = 1
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, l)
	write(t, l, func(b *Batch) { b.Create(newReplica(1)); b.Append(1, nil, entries(1, 1, 1, 3, 100)) })
	at := l.replicas[1].entries[0]
	for off := range uint32(headerBytes + 100) {
		var b [1]byte
		f := l.current().file
		_, _ = f.ReadAt(b[:], int64(at.off+off))
		_, _ = f.WriteAt([]byte{b[0] ^ 4}, int64(at.off+off))
		if _, err := l.Entries(1, 1, 4, 1<<20); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d: %v", off, err)
		}
		_, _ = f.WriteAt(b[:], int64(at.off+off))
	}
	if _, err := l.Entries(1, 1, 4, 1<<20); err != nil {
		t.Fatal(err)
	}
}
