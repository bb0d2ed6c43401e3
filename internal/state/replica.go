package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// GroupSpace is the space that a replica has from the start: its own.
const GroupSpace = 0

const (
	hostRows  = 0 // under the root: the host's
	groupRows = 1 // under the root: rows of GroupSpace
)

// Replica is the rows of one replica. Its methods but View are called by one
// goroutine, its apply worker.
type Replica struct {
	store  *Store
	root   uint64
	alloc  func() (uint64, error)
	spaces atomic.Pointer[table] // as of the last commit
	// moving is held for writing over a commit that changes spaces, and for
	// reading while a view takes rows and spaces of one commit.
	moving sync.RWMutex
	batch  Batch
}

// OpenReplica opens the rows under a root. alloc gives a handle number that is
// reserved and was never used.
func (s *Store) OpenReplica(root uint64, alloc func() (uint64, error)) (*Replica, error) {
	spaces, err := loadSpaces(s.db, root)
	if err != nil {
		return nil, err
	}
	r := &Replica{store: s, root: root, alloc: alloc}
	r.spaces.Store(spaces)
	return r, nil
}

func loadSpaces(db pebble.Reader, root uint64) (_ *table, err error) {
	prefix := append(binary.BigEndian.AppendUint64(nil, root), hostRows, 's')
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: append(binary.BigEndian.AppendUint64(nil, root), hostRows, 's'+1)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	spaces := &table{}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		k := it.Key()[len(prefix):]
		if len(k) != 8 || len(v) != 8 {
			return nil, fmt.Errorf("state: root %d: a space row has %d+%d bytes", root, len(k), len(v))
		}
		spaces.with(binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(v), true)
	}
	return spaces, it.Error()
}

func appliedKey(root uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, root), hostRows, 'a')
}

// Spaces lists the replica's spaces, its own first.
func (r *Replica) Spaces() []uint64 {
	return append([]uint64{GroupSpace}, r.spaces.Load().spaces()...)
}

// Root is the replica's root handle.
func (r *Replica) Root() uint64 { return r.root }

// Applied returns the applied row as of the last commit; nil if there is none.
func (r *Replica) Applied() ([]byte, error) { return r.store.Applied(r.root) }

// Applied returns the applied row under a root; nil if there is none.
func (s *Store) Applied(root uint64) ([]byte, error) {
	v, closer, err := s.db.Get(appliedKey(root))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state: applied row of root %d: %w", root, err)
	}
	return append([]byte(nil), v...), closer.Close()
}

// Durable returns the applied row as a crash now would leave it; nil if there
// is none. It is the only evidence on which the log may be cut.
func (r *Replica) Durable() (_ []byte, err error) {
	key := appliedKey(r.root)
	it, err := r.store.db.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: append(key[:len(key):len(key)], 0), OnlyReadGuaranteedDurable: true})
	if err != nil {
		return nil, fmt.Errorf("state: durable applied row of root %d: %w", r.root, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() {
		return nil, it.Error()
	}
	v, err := it.ValueAndErr()
	return append([]byte(nil), v...), err
}

// Destroy deletes all rows of the replica. It is not synced: the log's record
// that the replica was destroyed is, and the next start sweeps.
func (r *Replica) Destroy() (err error) {
	b := r.store.db.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	handles := r.Handles()
	slices.Sort(handles)
	for i := 0; i < len(handles); {
		first := i // of a run, as a snapshot brings them
		for i++; i < len(handles) && handles[i] == handles[i-1]+1; i++ {
		}
		lo, _ := bounds(handles[first])
		_, hi := bounds(handles[i-1])
		if err := b.DeleteRange(lo, hi, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

// prefix appends what every key of the space begins with; false if the space
// has no rows yet.
func prefix(dst []byte, root uint64, spaces *table, space uint64) ([]byte, bool) {
	if space == GroupSpace {
		return append(binary.BigEndian.AppendUint64(dst, root), groupRows), true
	}
	h, ok := spaces.handle(space)
	return binary.BigEndian.AppendUint64(dst, h), ok
}

// Handles lists the handles of the replica's rows, in no order, for inspection.
func (r *Replica) Handles() []uint64 { return append(r.spaces.Load().handles(), r.root) }
