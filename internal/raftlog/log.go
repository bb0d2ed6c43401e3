package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	defaultSegmentBytes = 32 << 20
	minSegmentBytes     = 4 << 10
	maxSegmentBytes     = 1 << 30
	defaultCacheBytes   = 64 << 20
	maxFree             = 4 // slots that wait for use; more are deleted

	writeCategory = vfs.DiskWriteCategory("raft-log")
)

// Options say where a log lies and how large its parts are.
type Options struct {
	FS  vfs.FS
	Dir string
	// StoreID is the random identity of the data directory.
	StoreID uint64
	// SegmentBytes is the size of new segments, 32 MiB by default, 4 KiB to
	// 1 GiB. An entry must fit in 3/4 of it, the table of replicas in 1/8.
	SegmentBytes int64
	// CacheBytes bounds the entries kept in memory, over all groups: 64 MiB by
	// default.
	CacheBytes int64
	// Logger may be nil.
	Logger *slog.Logger
}

func (o *Options) defaults() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes {
		return fmt.Errorf("raft log segments of %d bytes: the size must be between %d and %d", o.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Log is the Raft log of all groups of a node. One goroutine owns it and calls
// every method. The first error of a write or sync is final: every later call
// that can fail returns it, and the process must end, because nobody knows what
// of the file is on disk.
type Log struct {
	o     Options
	err   error
	chain []*segment          // oldest first; the last one is written
	slots map[uint32]*segment // those of the chain by slot
	free  []*segment          // slots that nothing needs; the last one is used first
	spare chan slotResult     // holds the slot that is being prepared; nil if none is

	nextSlot   uint32
	generation uint64 // the highest that any slot shows
	end        uint32 // of what is written in the last segment
	synced     uint32 // of what is synced there

	replicas  map[uint64]*replica
	destroyed map[uint64]uint64 // group without a replica → lowest id that may be created
	handles   uint64
	strict    bool // entries must follow what is there; false while old segments are replayed
	cache     cache
	buf       []byte
}

type slotResult struct {
	segment *segment
	err     error
}

// Close waits for the spare segment's preparation and closes the files. It
// first writes that all before is synced, so that what happens to the files
// while the node is stopped is found by the next Open. It returns the error
// that stopped the log, if one did.
func (l *Log) Close() error {
	if l.err == nil {
		l.err = l.attest()
	}
	if l.spare != nil {
		if r := <-l.spare; r.err == nil {
			l.free = append(l.free, r.segment)
		}
		l.spare = nil
	}
	err := l.err
	for _, s := range slices.Concat(l.chain, l.free) {
		err = errors.Join(err, s.file.Close())
	}
	l.chain, l.free = nil, nil
	if l.err == nil {
		l.err = errors.New("the raft log is closed")
	}
	return err
}

func (l *Log) fail(err error) error {
	if l.err == nil {
		l.err = err
	}
	return l.err
}

func (l *Log) current() *segment { return l.chain[len(l.chain)-1] }

// Boot is the boot number: it grows with every Open and every switch to a new
// segment, and is durable when it is returned.
func (l *Log) Boot() uint64 { return l.current().generation }

// Handles is the first handle number that is not reserved. Numbers begin at 1.
func (l *Log) Handles() uint64 { return max(l.handles, 1) }

// Replicas returns the live replicas by group. Their Conf is not to be changed.
func (l *Log) Replicas() []Replica {
	rs := make([]Replica, 0, len(l.replicas))
	for _, group := range slices.Sorted(maps.Keys(l.replicas)) {
		rs = append(rs, l.replicas[group].export(group))
	}
	return rs
}

// Replica returns the group's replica, if there is one.
func (l *Log) Replica(group uint64) (Replica, bool) {
	r := l.replicas[group]
	if r == nil {
		return Replica{}, false
	}
	return r.export(group), true
}

// MinReplica is the lowest replica id that may still be created for the group;
// while a replica lives, the lowest that may follow it.
func (l *Log) MinReplica(group uint64) uint64 {
	if r := l.replicas[group]; r != nil {
		return r.id + 1
	}
	return max(l.destroyed[group], 1)
}

// Segments returns how many segment files are in use, and how many wait for it.
func (l *Log) Segments() (live, free int) { return len(l.chain), len(l.free) }

// Pinned returns the groups whose entries keep the oldest segment from being
// used again. The owner flushes their rows and truncates them, or relocates
// those that it cannot truncate. Without a limit of its own the log grows as
// long as that is not done.
func (l *Log) Pinned() []uint64 {
	if len(l.chain) < 2 {
		return nil
	}
	return slices.Sorted(maps.Keys(l.chain[0].live))
}
