package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// reader is what a Batch and a View have in common.
type reader struct {
	src    pebble.Reader
	root   uint64
	spaces *table
	key    []byte // scratch
	it     *pebble.Iterator
}

func (r *reader) fullKey(space uint64, key []byte) ([]byte, bool) {
	k, ok := prefix(r.key[:0], r.root, r.spaces, space)
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
	p, ok := prefix(nil, r.root, r.spaces, space)
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
	moved   bool // spaces has changed; views learn of it with the commit
	// written has a hash of each key that the batch has written: the others can
	// be read past the batch.
	written map[uint64]struct{}
	seed    maphash.Seed
	runs    []run
}

// run reads neighbours: an entry mostly leases messages that lie one behind the
// other, and an iterator steps to the next row where a look-up would begin
// again at the top of the tree.
type run struct {
	prefix []byte // handle and kind of row
	last   []byte
	it     *pebble.Iterator
}

// maxRuns bounds the iterators of one batch.
const maxRuns = 4

// Begin starts the batch of one entry. One batch is open at a time.
func (r *Replica) Begin() *Batch {
	b := &r.batch
	b.replica = r
	b.b, b.moved = r.store.db.NewIndexedBatch(), false
	if b.written == nil {
		b.written, b.seed = map[uint64]struct{}{}, maphash.MakeSeed()
	}
	b.reader = reader{src: b.b, root: r.root, spaces: r.spaces.Load(), key: b.key}
	return b
}

// Get returns a copy of a row's value, and whether the row is there.
func (b *Batch) Get(space uint64, key []byte) ([]byte, bool) {
	k, ok := b.fullKey(space, key)
	if !ok {
		return nil, false
	}
	if v, ok, done := b.next(k); done {
		return v, ok
	}
	return b.reader.Get(space, key)
}

// Has says whether a row is there.
func (b *Batch) Has(space uint64, key []byte) bool {
	k, ok := b.fullKey(space, key)
	if !ok {
		return false
	}
	if _, ok, done := b.next(k); done {
		return ok
	}
	return b.reader.Has(space, key)
}

// next reads k by the iterator of its kind of row, if k comes after the row
// that was read of that kind before, and the batch has not written it.
func (b *Batch) next(k []byte) (v []byte, ok, done bool) {
	if len(k) < 9+8 {
		return nil, false, false // no sequence number, no neighbours
	}
	if _, mine := b.written[maphash.Bytes(b.seed, k)]; mine {
		return nil, false, false
	}
	for i := range b.runs {
		r := &b.runs[i]
		if !bytes.Equal(r.prefix, k[:9]) {
			continue
		}
		if bytes.Compare(k, r.last) <= 0 {
			return nil, false, false
		}
		r.last = append(r.last[:0], k...)
		if r.it == nil {
			_, hi := bounds(binary.BigEndian.Uint64(r.prefix))
			if kind := r.prefix[8]; kind < 0xff {
				hi = append(slices.Clone(r.prefix[:8]), kind+1)
			}
			it, err := b.replica.store.db.NewIter(&pebble.IterOptions{LowerBound: r.prefix, UpperBound: hi})
			must("get", err)
			r.it = it
		}
		if !r.it.SeekGE(k) || !bytes.Equal(r.it.Key(), k) {
			must("get", r.it.Error())
			return nil, false, true
		}
		v, err := r.it.ValueAndErr()
		must("get", err)
		return append([]byte(nil), v...), true, true
	}
	if len(b.runs) < maxRuns { // the second read of a kind opens the iterator
		b.runs = append(b.runs, run{prefix: slices.Clone(k[:9]), last: slices.Clone(k)})
	}
	return nil, false, false
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
	must("set", b.b.Set(spaceKey(b.root, space), v[:], nil))
	b.setSpace(space, h)
	k, _ = b.fullKey(space, key)
	return k
}

func spaceKey(root, space uint64) []byte {
	k := append(binary.BigEndian.AppendUint64(nil, root), hostRows, 's')
	return binary.BigEndian.AppendUint64(k, space)
}

// Set writes a row.
func (b *Batch) Set(space uint64, key, value []byte) {
	k := b.writeKey(space, key)
	b.note(k)
	must("set", b.b.Set(k, value, nil))
}

func (b *Batch) note(k []byte) { b.written[maphash.Bytes(b.seed, k)] = struct{}{} }

// Delete deletes a row, if it is there.
func (b *Batch) Delete(space uint64, key []byte) {
	if k, ok := b.fullKey(space, key); ok {
		b.note(k)
		must("delete", b.b.Delete(k, nil))
	}
}

// SingleDelete deletes a row that was set exactly once since it was last
// deleted. In the memtable and in compactions it vanishes together with its
// row; of a row that was set twice the older value would come back.
func (b *Batch) SingleDelete(space uint64, key []byte) {
	if k, ok := b.fullKey(space, key); ok {
		b.note(k)
		must("delete", b.b.SingleDelete(k, nil))
	}
}

// Clear drops a whole space, whatever it holds, by two range tombstones. A
// later write to it begins with a fresh handle.
func (b *Batch) Clear(space uint64) {
	h, ok := b.spaces.handle(space)
	if !ok {
		return
	}
	lo, hi := bounds(h)
	must("clear", b.b.DeleteRange(lo, hi, nil))
	must("clear", b.b.Delete(spaceKey(b.root, space), nil))
	b.setSpace(space, 0)
}

// setSpace makes space → handle known to the batch; handle 0 takes it out.
func (b *Batch) setSpace(space, handle uint64) {
	b.spaces, b.moved = b.spaces.with(space, handle, b.moved), true
}

// Commit writes the batch and the applied row as one step that a crash can't
// part. It does not sync.
func (b *Batch) Commit(applied []byte) {
	must("close iterators", b.closeReads())
	must("set", b.b.Set(appliedKey(b.root), applied, nil))
	if b.moved { // rare: a view must not see the rows with other handles
		b.replica.moving.Lock()
		defer b.replica.moving.Unlock()
	}
	must("commit", b.b.Commit(pebble.NoSync))
	b.replica.spaces.Store(b.spaces)
	must("commit", b.b.Close())
	b.b = nil
}

// Abandon ends a batch that a Failure has stopped on its way to Commit, if there
// is one; nothing of it is written. The store can then be closed.
func (r *Replica) Abandon() error {
	b := &r.batch
	if b.b == nil {
		return nil
	}
	err := errors.Join(b.closeReads(), b.b.Close())
	b.b = nil
	return err
}

// closeReads ends all reading of the batch.
func (b *Batch) closeReads() (err error) {
	if b.it != nil {
		err = b.it.Close()
		b.it = nil
	}
	for i := range b.runs {
		if it := b.runs[i].it; it != nil {
			err = errors.Join(err, it.Close())
		}
	}
	b.runs = b.runs[:0]
	clear(b.written)
	return err
}

// View is the rows of a replica as of one applied entry. It is used by one
// goroutine and must be closed.
type View struct {
	reader
	snap  *pebble.Snapshot
	store *Store
}

// View opens a view of what is committed now. It may be called by any
// goroutine. nil: the store is closing.
func (r *Replica) View() *View {
	if !r.store.enter() {
		return nil
	}
	r.moving.RLock()
	defer r.moving.RUnlock()
	v := &View{snap: r.store.db.NewSnapshot(), store: r.store}
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
	v.store.leave()
}
