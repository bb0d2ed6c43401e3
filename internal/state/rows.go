package state

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// reader is what a Batch and a View have in common.
type reader struct {
	src    pebble.Reader
	root   uint64
	spaces *map[uint64]uint64
	key    []byte // scratch
	it     *pebble.Iterator
}

func (r *reader) fullKey(space uint64, key []byte) ([]byte, bool) {
	k, ok := prefix(r.key[:0], r.root, *r.spaces, space)
	r.key = append(k, key...)
	return r.key, ok
}

// Get returns a copy of a row's value, and whether the row is there.
func (r *reader) Get(space uint64, key []byte) ([]byte, bool) {
	k, ok := r.fullKey(space, key)
	if !ok {
		return nil, false
	}
	v, closer, err := r.src.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false
	}
	must("get", err)
	v = append([]byte(nil), v...)
	must("get", closer.Close())
	return v, true
}

// Has says whether a row is there.
func (r *reader) Has(space uint64, key []byte) bool {
	k, ok := r.fullKey(space, key)
	if !ok {
		return false
	}
	_, closer, err := r.src.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return false
	}
	must("get", err)
	must("get", closer.Close())
	return true
}

// Scan visits the rows of a space from lo to before hi, in order, until visit
// says false. The slices are only valid during the call, and visit may not
// call Scan.
func (r *reader) Scan(space uint64, lo, hi []byte, visit func(key, value []byte) bool) {
	p, ok := prefix(nil, r.root, *r.spaces, space)
	if !ok {
		return
	}
	cut := len(p)
	o := &pebble.IterOptions{LowerBound: append(p[:cut:cut], lo...), UpperBound: append(p[:cut:cut], hi...)}
	if r.it == nil {
		it, err := r.src.NewIter(o)
		must("scan", err)
		r.it = it
	} else {
		r.it.SetOptions(o) // also shows it what the batch holds by now
	}
	for ok := r.it.First(); ok; ok = r.it.Next() {
		v, err := r.it.ValueAndErr()
		must("scan", err)
		if !visit(r.it.Key()[cut:], v) {
			break
		}
	}
	must("scan", r.it.Error())
}

func (r *reader) closeIter() {
	if r.it != nil {
		must("close iterator", r.it.Close())
		r.it = nil
	}
}

// Batch collects the rows of one entry; what it holds is seen by its own reads
// and by nobody else until Commit.
type Batch struct {
	reader
	replica *Replica
	b       *pebble.Batch
}

// Begin starts the batch of one entry. One batch is open at a time.
func (r *Replica) Begin() *Batch {
	b := &r.batch
	b.replica = r
	b.b = r.store.db.NewIndexedBatch()
	b.reader = reader{src: b.b, root: r.root, spaces: r.spaces.Load(), key: b.key}
	return b
}

func (b *Batch) writeKey(space uint64, key []byte) []byte {
	k, ok := b.fullKey(space, key)
	if ok {
		return k
	}
	h, err := b.replica.alloc()
	must("allocate a handle", err)
	var v [8]byte
	binary.BigEndian.PutUint64(v[:], h)
	must("set", b.b.Set(b.spaceKey(space), v[:], nil))
	b.replica.setSpace(space, h)
	b.spaces = b.replica.spaces.Load()
	k, _ = b.fullKey(space, key)
	return k
}

func (b *Batch) spaceKey(space uint64) []byte {
	k := append(binary.BigEndian.AppendUint64(nil, b.root), hostRows, 's')
	return binary.BigEndian.AppendUint64(k, space)
}

// Set writes a row.
func (b *Batch) Set(space uint64, key, value []byte) {
	must("set", b.b.Set(b.writeKey(space, key), value, nil))
}

// Delete deletes a row, if it is there.
func (b *Batch) Delete(space uint64, key []byte) {
	if k, ok := b.fullKey(space, key); ok {
		must("delete", b.b.Delete(k, nil))
	}
}

// SingleDelete deletes a row that was set exactly once since it was last
// deleted. In the memtable and in compactions it vanishes together with its
// row; of a row that was set twice the older value would come back.
func (b *Batch) SingleDelete(space uint64, key []byte) {
	if k, ok := b.fullKey(space, key); ok {
		must("delete", b.b.SingleDelete(k, nil))
	}
}

// Clear drops a whole space, whatever it holds, by two range tombstones. A
// later write to it begins with a fresh handle.
func (b *Batch) Clear(space uint64) {
	h, ok := (*b.spaces)[space]
	if !ok {
		return
	}
	lo, hi := bounds(h)
	must("clear", b.b.DeleteRange(lo, hi, nil))
	must("clear", b.b.Delete(b.spaceKey(space), nil))
	b.replica.setSpace(space, 0)
	b.spaces = b.replica.spaces.Load()
}

// Commit writes the batch and the applied row as one step that a crash can't
// part. It does not sync.
func (b *Batch) Commit(applied []byte) {
	b.closeIter()
	must("set", b.b.Set(appliedKey(b.root), applied, nil))
	must("commit", b.b.Commit(pebble.NoSync))
	must("commit", b.b.Close())
	b.b = nil
}

// View is the rows of a replica as of one applied entry. It is used by one
// goroutine and must be closed.
type View struct {
	reader
	snap *pebble.Snapshot
}

// View opens a view of what is committed now. It may be called by any
// goroutine.
func (r *Replica) View() *View {
	v := &View{snap: r.store.db.NewSnapshot()}
	v.reader = reader{src: v.snap, root: r.root, spaces: r.spaces.Load()}
	return v
}

// Applied returns the applied row that the view stands at; nil if there is none.
func (v *View) Applied() []byte {
	b, closer, err := v.snap.Get(appliedKey(v.root))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	must("get", err)
	b = append([]byte(nil), b...)
	must("get", closer.Close())
	return b
}

// Close ends the view.
func (v *View) Close() {
	v.closeIter()
	must("close snapshot", v.snap.Close())
}
