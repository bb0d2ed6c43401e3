package raftlog

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// segment is one use of a slot file, from its head to its seal.
type segment struct {
	head
	slot   uint32
	size   int64
	file   vfs.File
	sealed uint64         // generation of the segment after it, 0 for none
	live   map[uint64]int // how many entries that are still wanted lie here, by group
}

const slotSuffix = ".seg"

func slotName(slot uint32) string { return fmt.Sprintf("%06d%s", slot, slotSuffix) }

// parseSlot returns 0 for a name that is no slot's.
func parseSlot(name string) uint32 {
	n, err := strconv.ParseUint(strings.TrimSuffix(name, slotSuffix), 10, 32)
	if err != nil || slotName(uint32(n)) != name {
		return 0
	}
	return uint32(n)
}

// createSlot makes a slot file. It writes every byte: a write into a file that
// was only preallocated changes its metadata, which makes each sync 2–4 × as
// slow.
func createSlot(fs vfs.FS, dir string, slot uint32, size int64) (*segment, error) {
	path := fs.PathJoin(dir, slotName(slot))
	f, err := fs.OpenReadWrite(path, writeCategory)
	if err != nil {
		return nil, fmt.Errorf("create raft log segment: %w", err)
	}
	zeros := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(fs, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("create raft log segment %s: %w", path, errors.Join(err, f.Close()))
	}
	return &segment{slot: slot, size: size, file: f, live: map[uint64]int{}}, nil
}

// openSlot opens a slot file and reads its head and seal. A slot that was never
// used, or was not finished, has generation 0.
func openSlot(fs vfs.FS, dir string, slot uint32) (*segment, error) {
	path := fs.PathJoin(dir, slotName(slot))
	f, err := fs.OpenReadWrite(path, writeCategory)
	if err != nil {
		return nil, fmt.Errorf("open raft log segment: %w", err)
	}
	s := &segment{slot: slot, file: f, live: map[uint64]int{}}
	if err := s.readHead(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *segment) readHead(path string) error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("open raft log segment %s: %w", path, err)
	}
	s.size = info.Size()
	var first [recordsAt]byte
	if _, err := s.file.ReadAt(first[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read raft log segment %s: %w", path, err)
	}
	if allZero(first[:]) {
		return nil
	}
	h, ok := parseHead(first[:])
	if !ok {
		return damage(path, 0, "the head does not match its checksum")
	}
	if h.format > format {
		return fmt.Errorf("%s: %w: format %d, and this program knows %d: start a newer comanda", path, ErrNewerFormat, h.format, format)
	}
	s.head = h
	if s.sealed, ok = parseSeal(first[sealAt:], h.mark); !ok {
		return damage(path, sealAt, "the seal does not match its checksum")
	}
	return nil
}

// read returns the whole segment, in buf if that is large enough.
func (s *segment) read(buf []byte) ([]byte, error) {
	if int64(cap(buf)) < s.size {
		buf = make([]byte, s.size)
	}
	buf = buf[:s.size]
	n, err := s.file.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read raft log segment %s: %w", slotName(s.slot), err)
	}
	return buf[:n], nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// damageError is what a checksum, or a file that is not there, tells.
type damageError struct {
	path   string
	offset int64
	what   string
}

// ErrDamaged marks an error that says: bytes that were synced once are not what
// they were. The node must not start, or go on, with this log.
var ErrDamaged = errors.New("the raft log is damaged")

// ErrNewerFormat means that a newer version of comanda wrote the log.
var ErrNewerFormat = errors.New("the raft log has a newer format")

// ErrOtherStore means that a segment belongs to another data directory.
var ErrOtherStore = errors.New("the raft log belongs to another data directory")

func damage(path string, offset int64, format string, args ...any) error {
	return &damageError{path: path, offset: offset, what: fmt.Sprintf(format, args...)}
}

func (e *damageError) Error() string {
	return fmt.Sprintf("%v: %s at offset %d: %s; look at it with 'comanda data inspect', then bring the file back as it was, or replace this node by a new one",
		ErrDamaged, e.path, e.offset, e.what)
}

func (e *damageError) Is(target error) bool { return target == ErrDamaged }
