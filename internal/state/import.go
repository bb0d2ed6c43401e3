package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// incomingDir holds the tables of snapshots on their way in, below the
	// store's directory. What a start finds there is of a process that ended.
	incomingDir = "incoming"
	// tableBytes is the size from which on a table is followed by another one.
	tableBytes = 32 << 20
)

// ErrDamaged marks a snapshot that is not what was sent.
var ErrDamaged = errors.New("the snapshot is damaged or of a newer version")

// ErrClosing is returned by what came too late: the store is closing.
var ErrClosing = errors.New("the store is closing")

// Import is a snapshot that has come in. Its rows lie in tables of their own
// until Install. Nothing reaches them before the log names Root.
type Import struct {
	Root    uint64 // the fresh root handle
	Applied []byte // the applied row

	store *Store
	files []string
	end   uint64 // handle after the last
}

// Import reads a snapshot to its end. take gives n handle numbers in a row that
// are reserved and were never used. Nothing of it is in the store, and every
// table that was written is synced, when it returns. The rows are never all in
// memory.
func (s *Store) Import(r io.Reader, take func(n int) (uint64, error)) (*Import, error) {
	i := importer{Import: Import{store: s}, r: r}
	if err := i.run(take); err != nil {
		if i.w != nil {
			err = errors.Join(err, i.w.Close())
		}
		return nil, errors.Join(fmt.Errorf("state: take in a snapshot: %w", err), i.Discard())
	}
	return &i.Import, nil
}

// Install puts the rows into the store by one ingest: it overlaps nothing, for
// the handles are fresh, and is durable when it returns.
func (i *Import) Install() error {
	if !i.store.enter() {
		return ErrClosing
	}
	defer i.store.leave()
	if err := i.store.db.Ingest(context.Background(), i.files); err != nil {
		return fmt.Errorf("state: install a snapshot: %w", err)
	}
	i.files = nil
	return nil
}

// Discard deletes what was read and not installed.
func (i *Import) Discard() (err error) {
	for _, path := range i.files {
		err = errors.Join(err, i.store.options.FS.Remove(path))
	}
	i.files = nil
	return err
}

// Drop deletes the rows after an Install that came to nothing. If the node
// stops before it is durable, the next start's Sweep does the same.
func (i *Import) Drop() error {
	if !i.store.enter() {
		return nil
	}
	defer i.store.leave()
	lo, _ := bounds(i.Root)
	_, hi := bounds(i.end - 1)
	return i.store.db.DeleteRange(lo, hi, pebble.NoSync)
}

// importer writes the rows of a stream into tables.
type importer struct {
	Import
	r      io.Reader
	w      *sstable.Writer // of the last of files; nil: none is open
	chunk  []byte          // scratch
	key    []byte          // scratch
	sum    uint32
	spaces uint64 // but space 0
	rows   uint64
}

func (i *importer) run(take func(n int) (uint64, error)) error {
	first, err := i.next()
	if err != nil {
		return err
	}
	if err := i.begin(first, take); err != nil {
		return err
	}
	for {
		payload, err := i.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := i.take(payload); err != nil {
			return err
		}
	}
	return i.closeTable()
}

// next reads a chunk; io.EOF after the last one.
func (i *importer) next() ([]byte, error) {
	var head [chunkHead]byte
	if err := readFull(i.r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	last := n == 0
	if last {
		n = 8
	}
	if n > maxChunk {
		return nil, fmt.Errorf("a chunk of %d bytes: %w", n, ErrDamaged)
	}
	if cap(i.chunk) < int(n) {
		i.chunk = make([]byte, n)
	}
	i.chunk = i.chunk[:n]
	if err := readFull(i.r, i.chunk); err != nil {
		return nil, err
	}
	i.sum = crc32.Update(i.sum, castagnoli, i.chunk)
	if i.sum != binary.LittleEndian.Uint32(head[4:]) {
		return nil, fmt.Errorf("the checksum after %d rows does not fit: %w", i.rows, ErrDamaged)
	}
	if !last {
		return i.chunk, nil
	}
	if rows := binary.LittleEndian.Uint64(i.chunk); rows != i.rows {
		return nil, fmt.Errorf("%d rows of %d came: %w", i.rows, rows, ErrDamaged)
	}
	return nil, io.EOF
}

// readFull fills b. A stream ends with its last chunk, and nowhere else.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// begin takes the handles and writes the host's rows.
func (i *importer) begin(payload []byte, take func(n int) (uint64, error)) (err error) {
	if len(payload) == 0 || payload[0] != exportFormat {
		return fmt.Errorf("the head: %w", ErrDamaged)
	}
	d := fields{payload[1:]}
	applied, ok := d.bytes()
	n, ok2 := d.uvarint()
	if !ok || !ok2 || n > uint64(len(d.b)) {
		return fmt.Errorf("the head: %w", ErrDamaged)
	}
	if i.Root, err = take(int(n) + 1); err != nil {
		return err
	}
	i.Applied, i.spaces, i.end = append([]byte{}, applied...), n, i.Root+n+1
	if err := i.set(appliedKey(i.Root), i.Applied); err != nil {
		return err
	}
	prefix := append(binary.BigEndian.AppendUint64(nil, i.Root), hostRows, 's')
	for place := range n {
		space, ok := d.uvarint()
		if !ok {
			return fmt.Errorf("the head: %w", ErrDamaged)
		}
		k := binary.BigEndian.AppendUint64(prefix, space)
		if err := i.set(k, binary.BigEndian.AppendUint64(nil, i.Root+1+place)); err != nil {
			return err
		}
	}
	return nil
}

// take writes the rows of a chunk. That they are in order is the table's to
// check.
func (i *importer) take(payload []byte) error {
	d := fields{payload}
	for len(d.b) > 0 {
		place, ok := d.uvarint()
		k, ok2 := d.bytes()
		v, ok3 := d.bytes()
		if !ok || !ok2 || !ok3 || place > i.spaces {
			return fmt.Errorf("row %d: %w", i.rows, ErrDamaged)
		}
		i.key = binary.BigEndian.AppendUint64(i.key[:0], i.Root+place)
		if place == 0 {
			i.key = append(i.key, groupRows)
		}
		i.key = append(i.key, k...)
		if err := i.set(i.key, v); err != nil {
			return err
		}
		i.rows++
	}
	return nil
}

// set adds a row to the open table, or to a new one.
func (i *importer) set(k, v []byte) error {
	if i.w != nil && i.w.Raw().EstimatedSize() >= tableBytes {
		if err := i.closeTable(); err != nil {
			return err
		}
	}
	if i.w == nil {
		if err := i.openTable(); err != nil {
			return err
		}
	}
	return i.w.Set(k, v)
}

func (i *importer) openTable() error {
	s := i.store
	fs := s.options.FS
	path := fs.PathJoin(s.dir, incomingDir, fmt.Sprintf("%d-%d.sst", i.Root, len(i.files)))
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	i.files = append(i.files, path)
	o := s.options.MakeWriterOptions(len(s.options.Levels)-1, s.db.FormatMajorVersion().MaxTableFormat())
	i.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)
	return nil
}

// closeTable completes and syncs the open table.
func (i *importer) closeTable() error {
	w := i.w
	i.w = nil
	return w.Close()
}

// fields reads a payload.
type fields struct{ b []byte }

func (f *fields) uvarint() (uint64, bool) {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		return 0, false
	}
	f.b = f.b[n:]
	return v, true
}

func (f *fields) bytes() ([]byte, bool) {
	n, ok := f.uvarint()
	if !ok || n > uint64(len(f.b)) {
		return nil, false
	}
	v := f.b[:n]
	f.b = f.b[n:]
	return v, true
}
