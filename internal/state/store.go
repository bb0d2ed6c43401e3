package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options of a Store.
type Options struct {
	FS           vfs.FS
	Dir          string
	StoreID      uint64 // identity of the data directory; the rows of another one are refused
	CacheBytes   int64  // block cache; 0: 64 MiB
	MemTable     uint64 // size of one of up to 4 memtables; 0: 32 MiB
	ReadOnly     bool   // for inspection of a stopped server's directory
	Logger       *slog.Logger
	OnFlush      func() // called, on a goroutine of Pebble's, when a flush has made rows durable
	OnBackground func(error)
}

// Store is the one Pebble of a node.
type Store struct {
	db      *pebble.DB
	dir     string
	options *pebble.Options // for the tables of snapshots

	mu      sync.Mutex
	views   int // open ones, and installs under way
	closing bool
	idle    sync.Cond // there are none

	broken chan struct{} // closed when failure is set
	// failure is the first error of what Pebble does by itself. It tries again for
	// ever, so who waits for it must know.
	failure error
}

// bodies has values that are mostly body in files beside the tables: a flush writes
// them once, and compactions move no more than what points to them. It is Pebble's
// own means; CockroachDB has it on for the same sizes (cockroachdb/cockroach, pull
// requests 148857 and 153362). What it saves is in docs/performance.md, rows.
var bodies = pebble.ValueSeparationPolicy{
	Enabled:               true,
	MinimumSize:           256,
	MaxBlobReferenceDepth: 10,
	// A file goes when nothing points into it. When more than a fifth of all files
	// together is dead, the one with the most of it is written anew, so that a few old
	// messages do not keep the disk full; but not at once: in a queue that is drained
	// the rest dies soon.
	TargetGarbageRatio: 0.2,
	RewriteMinimumAge:  5 * time.Minute,
}

// Open opens or creates the store in o.Dir.
func Open(o Options) (*Store, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.MemTable == 0 {
		o.MemTable = 32 << 20
	}
	s := &Store{dir: o.Dir, broken: make(chan struct{})}
	s.idle.L = &s.mu
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref() // the DB holds its own reference
	po := &pebble.Options{
		FS:                          o.FS,
		Cache:                       cache,
		DisableWAL:                  true,
		ReadOnly:                    o.ReadOnly,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                o.MemTable,
		MemTableStopWritesThreshold: 4,
		// Rows arrive in order, so most compactions only move files; a higher
		// threshold lets more of them do so (docs/performance.md, rows).
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 40,
		CompactionConcurrencyRange: func() (int, int) {
			return 1, 2
		},
		Logger: logger{o.Logger},
		EventListener: &pebble.EventListener{
			FlushEnd: func(pebble.FlushInfo) {
				if o.OnFlush != nil {
					o.OnFlush()
				}
			},
			BackgroundError: func(err error) {
				s.fail(err)
				if o.OnBackground != nil {
					o.OnBackground(err)
				}
			},
		},
	}
	po.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy { return bodies }
	for i := range po.Levels {
		// Most lookups of state rows find nothing: the filter answers them.
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	po.EnsureDefaults()
	db, err := pebble.Open(o.Dir, po)
	if err != nil {
		return nil, fmt.Errorf("state: open %s: %w", o.Dir, err)
	}
	s.db, s.options = db, po
	err = s.identify(o)
	if err == nil && !o.ReadOnly {
		err = s.clearIncoming()
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// clearIncoming deletes the tables of snapshots that an earlier process did not
// install.
func (s *Store) clearIncoming() error {
	dir := s.options.FS.PathJoin(s.dir, incomingDir)
	if err := s.options.FS.RemoveAll(dir); err != nil {
		return fmt.Errorf("state: delete what is left of snapshots: %w", err)
	}
	return s.options.FS.MkdirAll(dir, 0o755)
}

// ErrOtherStore marks rows that belong to another data directory.
var ErrOtherStore = errors.New("the rows belong to another data directory")

// identityKey lies under handle 0, which no space ever gets.
var identityKey = append(make([]byte, 8), 'i')

// identify writes the identity into a new store, and compares it in an old one.
func (s *Store) identify(o Options) error {
	v, closer, err := s.db.Get(identityKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if o.ReadOnly {
			return nil
		}
		if err := s.db.Set(identityKey, binary.BigEndian.AppendUint64(nil, o.StoreID), pebble.NoSync); err != nil {
			return fmt.Errorf("state: %s: %w", o.Dir, err)
		}
		return s.Flush() // durable before any row is
	case err != nil:
		return fmt.Errorf("state: read the identity in %s: %w", o.Dir, err)
	}
	id := binary.BigEndian.Uint64(v)
	if err := closer.Close(); err != nil {
		return err
	}
	if id != o.StoreID && !o.ReadOnly {
		return fmt.Errorf("state: %s has identity %016x, this directory is %016x: %w; put back the directory that belongs here", o.Dir, id, o.StoreID, ErrOtherStore)
	}
	return nil
}

// Close waits for the views that are open, and closes the store; no new view
// opens. Rows that were not flushed are not made durable: the log has their
// entries.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closing = true
	for s.views > 0 {
		s.idle.Wait()
	}
	s.mu.Unlock()
	return s.db.Close()
}

// enter counts a view; false: the store is closing.
func (s *Store) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.views++
	return true
}

func (s *Store) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.views--; s.views == 0 {
		s.idle.Broadcast()
	}
}

// StartFlush begins a flush of all that is committed now, without waiting.
// Options.OnFlush tells when one has ended.
func (s *Store) StartFlush() error {
	_, err := s.db.AsyncFlush()
	return err
}

// Flush makes durable all that is committed now.
func (s *Store) Flush() error {
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-s.broken:
		return fmt.Errorf("state: flush %s: %w", s.dir, s.failure)
	}
}

func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = err
		close(s.broken)
	}
}

// Metrics are Pebble's own.
func (s *Store) Metrics() *pebble.Metrics { return s.db.Metrics() }

// Sweep deletes the rows of every handle that none of the roots reaches:
// leftovers of replicas that were destroyed and of replays that chose other
// handles. It must run before any replica is opened.
func (s *Store) Sweep(roots []uint64) (swept int, err error) {
	reached := map[uint64]bool{0: true} // the identity
	for _, root := range roots {
		reached[root] = true
		spaces, err := loadSpaces(s.db, root)
		if err != nil {
			return 0, err
		}
		for _, h := range spaces.handles() {
			reached[h] = true
		}
	}
	it, err := s.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; {
		h := binary.BigEndian.Uint64(it.Key())
		lo, hi := bounds(h)
		if !reached[h] {
			if err := s.db.DeleteRange(lo, hi, pebble.NoSync); err != nil {
				return swept, err
			}
			swept++
		}
		ok = it.SeekGE(hi)
	}
	return swept, it.Error()
}

// Handles visits each handle that has rows, with the number of its rows and
// their bytes: for inspection.
func (s *Store) Handles(visit func(handle uint64, rows int, bytes int64)) (err error) {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var cur uint64
	var rows int
	var size int64
	for ok := it.First(); ok; ok = it.Next() {
		if h := binary.BigEndian.Uint64(it.Key()); h != cur {
			if rows > 0 {
				visit(cur, rows, size)
			}
			cur, rows, size = h, 0, 0
		}
		rows++
		size += int64(len(it.Key()) + len(it.Value()))
	}
	if rows > 0 {
		visit(cur, rows, size)
	}
	return it.Error()
}

// Roots lists the root handles that have an applied row, for inspection.
func (s *Store) Roots() (roots []uint64, err error) {
	err = s.Handles(func(handle uint64, _ int, _ int64) {
		if _, closer, e := s.db.Get(appliedKey(handle)); e == nil {
			roots = append(roots, handle)
			err = errors.Join(err, closer.Close())
		}
	})
	return roots, err
}

func bounds(handle uint64) (lo, hi []byte) {
	return binary.BigEndian.AppendUint64(nil, handle), binary.BigEndian.AppendUint64(nil, handle+1)
}

type logger struct{ *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	if l.Logger != nil {
		l.Debug("pebble", "text", fmt.Sprintf(format, args...))
	}
}

func (l logger) Errorf(format string, args ...any) {
	if l.Logger != nil {
		l.Error("pebble", "text", fmt.Sprintf(format, args...))
	}
}

// Fatalf is called when Pebble can't go on; neither can the process.
func (l logger) Fatalf(format string, args ...any) {
	panic(&Failure{Op: "pebble", Err: fmt.Errorf(format, args...)})
}

// Failure is what reads and writes of rows panic with when the store fails: a
// replica that can't read its rows can't apply its next entry, nor skip it, so
// there is nothing to handle but to end the process with its words.
type Failure struct {
	Op  string
	Err error
}

func (f *Failure) Error() string { return "state: " + f.Op + ": " + f.Err.Error() }

// Unwrap gives the store's own error.
func (f *Failure) Unwrap() error { return f.Err }

func must(op string, err error) {
	if err != nil {
		panic(&Failure{Op: op, Err: err})
	}
}
