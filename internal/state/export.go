package state

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// A snapshot is a replica's rows as a stream:
//
//	chunk  length 4 | crc32c 4 | payload       of at most maxChunk bytes
//	first  format | applied row | spaces but 0, in order
//	then   n × (space's place in that list, 0: space 0 | key | value)
//	last   length 0 | crc32c | rows 8
//
// Numbers in payloads are uvarints. Rows are in the order of spaces and keys.
// Handles are the node's own and left out. Each checksum goes on from the one
// before, so that chunks can't be lost, doubled or exchanged unseen.
const (
	exportFormat = 1
	chunkBytes   = 256 << 10 // a chunk ends with the row that makes it longer
	maxChunk     = 64 << 20  // room for the largest row, and for millions of spaces
	chunkHead    = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Export is the stream of a view's rows. It is read by one goroutine, holds at
// most a chunk and a row in memory, and must be closed before its view.
type Export struct {
	view    *View
	applied []byte
	spaces  []uint64 // 0, then the others; nil until the first chunk
	next    int      // place of the space that comes next
	cut     int      // length of the prefix that is not sent
	it      *pebble.Iterator
	chunk   []byte // being made
	unread  []byte // of the last one
	sum     uint32
	rows    uint64
	ended   bool
}

// Export begins a stream of the rows that the view shows.
func (v *View) Export() *Export {
	return &Export{view: v, applied: v.Applied()}
}

// head makes the first chunk.
func (e *Export) head() error {
	e.spaces = append([]uint64{GroupSpace}, e.view.spaces.spaces()...)
	e.begin()
	e.chunk = append(e.chunk, exportFormat)
	e.chunk = appendBytes(e.chunk, e.applied)
	e.chunk = binary.AppendUvarint(e.chunk, uint64(len(e.spaces)-1))
	for _, s := range e.spaces[1:] {
		e.chunk = binary.AppendUvarint(e.chunk, s)
	}
	return e.seal()
}

func appendBytes(b, v []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(v))), v...) }

// Read gives the next part of the stream; io.EOF after its last chunk.
func (e *Export) Read(p []byte) (int, error) {
	if len(e.unread) == 0 {
		if e.ended {
			return 0, io.EOF
		}
		if err := e.fill(); err != nil {
			return 0, fmt.Errorf("state: read the rows for a snapshot: %w", err)
		}
	}
	n := copy(p, e.unread)
	e.unread = e.unread[n:]
	return n, nil
}

// fill makes the next chunk.
func (e *Export) fill() error {
	if e.spaces == nil {
		return e.head()
	}
	e.begin()
	for len(e.chunk) < chunkBytes {
		ok, err := e.step()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		e.chunk = binary.AppendUvarint(e.chunk, uint64(e.next-1))
		e.chunk = appendBytes(e.chunk, e.it.Key()[e.cut:])
		v, err := e.it.ValueAndErr()
		if err != nil {
			return err
		}
		e.chunk = appendBytes(e.chunk, v)
		e.rows++
	}
	if len(e.chunk) == chunkHead {
		return e.end()
	}
	return e.seal()
}

// step goes to the next row; false after the last.
func (e *Export) step() (bool, error) {
	for {
		if e.it != nil {
			if e.it.Next() {
				return true, nil
			}
			if err := e.Close(); err != nil {
				return false, err
			}
		}
		if e.next == len(e.spaces) {
			return false, nil
		}
		if err := e.open(); err != nil {
			return false, err
		}
		if e.it.First() {
			return true, nil
		}
	}
}

// open begins the next space.
func (e *Export) open() (err error) {
	lo, _ := prefix(nil, e.view.root, e.view.spaces, e.spaces[e.next])
	hi := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(lo)+1)
	e.cut = len(lo)
	e.next++
	e.it, err = e.view.snap.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	return err
}

func (e *Export) begin() { e.chunk = append(e.chunk[:0], make([]byte, chunkHead)...) }

// seal completes the chunk.
func (e *Export) seal() error {
	n := len(e.chunk) - chunkHead
	if n > maxChunk {
		return fmt.Errorf("a row or the list of spaces makes a chunk of %d bytes: at most %d fit", n, maxChunk)
	}
	e.sum = crc32.Update(e.sum, castagnoli, e.chunk[chunkHead:])
	binary.LittleEndian.PutUint32(e.chunk, uint32(n))
	binary.LittleEndian.PutUint32(e.chunk[4:], e.sum)
	e.unread = e.chunk
	return nil
}

// end makes the last chunk: its length tells it from the others.
func (e *Export) end() error {
	e.chunk = binary.LittleEndian.AppendUint64(e.chunk, e.rows)
	if err := e.seal(); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(e.chunk, 0)
	e.ended = true
	return nil
}

// Close ends the reading of rows; twice is fine.
func (e *Export) Close() error {
	if e.it == nil {
		return nil
	}
	err := e.it.Close()
	e.it = nil
	return err
}
