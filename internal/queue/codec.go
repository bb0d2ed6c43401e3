package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Rows and entries are written by hand: fields in a fixed order, numbers as
// uvarints, byte strings with their length before them. There are no maps and
// no optional order, so equal values are equal bytes on every replica.

func putString[S ~string | ~[]byte](b []byte, s S) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func putInt(b []byte, v int64) []byte { return binary.AppendUvarint(b, uint64(v)) }

// decoder reads what the put functions wrote. The first thing that does not
// fit sets bad; after that everything reads as zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 { return int64(d.uint()) }

func (d *decoder) hash() message.KeyHash { return message.KeyHash{Hi: d.fixed64(), Lo: d.fixed64()} }

func appendIDs(b []byte, ids []message.ID) []byte {
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func decodeIDs(d *decoder) []message.ID {
	n := d.count(16)
	if n == 0 {
		return nil
	}
	ids := make([]message.ID, n)
	for i := range ids {
		copy(ids[i][:], d.take(16))
	}
	return ids
}

func putTime(b []byte, t time.Time) []byte { return putInt(b, t.UnixMilli()) }

func (d *decoder) time() time.Time { return time.UnixMilli(d.int()).UTC() }

func (d *decoder) millis() time.Duration { return time.Duration(d.int()) * time.Millisecond }

// count reads the number of things that follow, each at least size bytes.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes returns a slice of the input.
func (d *decoder) bytes() []byte { return d.take(d.uint()) }

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) fixed64() uint64 {
	s := d.take(8)
	if s == nil {
		return 0
	}
	return binary.BigEndian.Uint64(s)
}

func (d *decoder) unread() bool { return d.bad || len(d.b) > 0 }

// end returns an error unless all of the input was read and made sense.
func (d *decoder) end(what string) error {
	if d.unread() {
		return fmt.Errorf("queue: %s is damaged or of a newer format", what)
	}
	return nil
}

// must stops the process: a row or entry that a checksum found whole but that
// does not read is a defect, or was written by a newer version, and skipping it
// would make this replica differ from the others.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// beUint64 reads the number at the begin of a part of a row.
func beUint64(b []byte) uint64 {
	if len(b) < 8 {
		panic(errShortRow)
	}
	return binary.BigEndian.Uint64(b)
}

var errShortRow = errors.New("queue: a row is shorter than its kind")
