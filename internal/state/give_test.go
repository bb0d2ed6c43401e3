package state

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What is given away is the child's with the handles that it had, in the same
// commit, and a view from before still shows it where it was.
func TestGiveMovesSpacesWithTheirHandles(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	h := &handles{next: 10}
	r := openReplica(t, s, 1, h)
	b := r.Begin()
	for space := range uint64(4) {
		b.Set(space, []byte("row"), []byte{byte(space)})
	}
	b.Commit([]byte("applied 1"))
	whole := r.View()
	handles := r.Handles()

	b = r.Begin()
	p := b.Give(7, []uint64{1, 3, 9}, []byte("born"), []byte("note"))
	p.Set([]byte("own"), []byte("first"))
	if b.Has(1, []byte("row")) || !b.Has(2, []byte("row")) {
		t.Error("the batch still has what it gave")
	}
	b.Commit([]byte("applied 2"))

	if v, ok := whole.Get(3, []byte("row")); !ok || v[0] != 3 {
		t.Error("a view from before has lost a row")
	}
	whole.Close()
	check := func(s *Store) {
		t.Helper()
		given, err := s.Given(1)
		if err != nil || len(given) != 1 || given[0].Child != 7 || given[0].Root != p.Root() || string(given[0].Note) != "note" {
			t.Fatalf("given are %+v, %v", given, err)
		}
		child := openReplica(t, s, p.Root(), h)
		if applied, err := child.Applied(); err != nil || string(applied) != "born" {
			t.Errorf("the child is at %q, %v", applied, err)
		}
		if got := child.Spaces(); !slices.Equal(got, []uint64{0, 1, 3}) {
			t.Errorf("the child has the spaces %v", got)
		}
		v := child.View()
		defer v.Close()
		own, _ := v.Get(GroupSpace, []byte("own"))
		row, _ := v.Get(3, []byte("row"))
		if string(own) != "first" || !slices.Equal(row, []byte{3}) {
			t.Errorf("the child has the rows %q and %q", own, row)
		}
		parent := openReplica(t, s, 1, h)
		if got := parent.Spaces(); !slices.Equal(got, []uint64{0, 2}) {
			t.Errorf("the giver has the spaces %v", got)
		}
		both := slices.Concat(parent.Handles(), child.Handles())
		for _, x := range handles {
			if !slices.Contains(both, x) {
				t.Errorf("handle %d is nobody's", x)
			}
		}
	}
	check(s)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	after := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	check(after)

	// The giver's end is not the child's.
	if err := openReplica(t, s, 1, h).Destroy(); err != nil {
		t.Fatal(err)
	}
	v := openReplica(t, s, p.Root(), h).View()
	if !v.Has(1, []byte("row")) {
		t.Error("the child's rows went with the giver")
	}
	v.Close()

	// In the other store the row that leads to it goes, and then the child.
	if err := after.Taken(1, 7); err != nil {
		t.Fatal(err)
	}
	if given, err := after.Given(1); err != nil || len(given) != 0 {
		t.Errorf("given are still %+v, %v", given, err)
	}
	if err := after.Drop(p.Root()); err != nil {
		t.Fatal(err)
	}
	if n, err := after.Sweep([]uint64{1}); err != nil || n != 0 {
		t.Errorf("%d handles were left, %v", n, err)
	}
	closeAll(t, s.Close, after.Close)
}
