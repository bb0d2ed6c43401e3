package message

import (
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/dchest/siphash"
)

// Point is where a message stands in its queue's hash space: the top 44 bits
// of a 64-bit hash, the rest zero. The top bits of a point name its cell.
type Point uint64

// pointBits is how much of a hash a point keeps: what fits into an ID.
const pointBits = 44

// PointOf keeps of a hash what a point keeps.
func PointOf(hash uint64) Point { return Point(hash &^ (1<<(64-pointBits) - 1)) }

// Cell is the cell, 0 to Cells-1, that p lies in.
func (p Point) Cell() int { return int(uint64(p) / (1 << 64 / Cells)) }

// CellPoint is the first point of a cell: where its unkeyed messages stand.
func CellPoint(cell int) Point { return Point(uint64(cell) * (1 << 64 / Cells)) }

// KeyHash places a key: SipHash-2-4-128 of the key with its queue's secret. Two
// keys with one hash would share a place in every order, which nobody meets.
type KeyHash struct{ Hi, Lo uint64 }

// Point is where messages of the key stand.
func (h KeyHash) Point() Point { return PointOf(h.Hi) }

// HashKey places a key in a queue.
func HashKey(s *Secret, key string) KeyHash {
	lo, hi := siphash.Hash128(binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:]), []byte(key))
	return KeyHash{Hi: hi, Lo: lo}
}

// HashTenant is a tenant's number in a queue, never 0. With the secret nobody can
// make two tenants that share one.
func HashTenant(s *Secret, tenant string) uint64 { return max(HashKey(s, tenant).Hi, 1) }

// ID names a message for ever: its queue's number (28 bits), its point (44)
// and its place in the shard's order (50), laid out as a UUID version 8
// (RFC 9562, section 5.8). It finds its message without a search, also after
// splits and moves, because queue numbers are never used again and sequence
// numbers only grow.
type ID [16]byte

// MaxQueueNumber is the highest queue number that fits into an ID.
const MaxQueueNumber = 1<<28 - 1

// NewID composes an ID. The arguments must be in range: they come from Apply.
func NewID(queue uint32, p Point, seq uint64) ID {
	if queue > MaxQueueNumber || PointOf(uint64(p)) != p || seq >= MaxSequence {
		panic("message: id part out of range")
	}
	// 122 bits: queue 28 | point 44 | seq 50, cut into 48 | 12 | 62.
	hi := uint64(queue)<<36 | uint64(p)>>28  // 64 bits: queue, 36 bits of the point
	lo := (uint64(p)>>20&(1<<8-1))<<50 | seq // 58 bits: 8 bits of the point, seq
	a := hi >> 16                            // 48
	b := hi >> 4 & (1<<12 - 1)               // 12
	c := (hi&(1<<4-1))<<58 | lo              // 62
	var id ID
	binary.BigEndian.PutUint64(id[:8], a<<16|8<<12|b)
	binary.BigEndian.PutUint64(id[8:], 1<<63|c)
	return id
}

// Queue is the number of the message's queue.
func (id ID) Queue() uint32 { return uint32(id.hi() >> 36) }

// Point is where the message was sent to.
func (id ID) Point() Point {
	return Point(id.hi()<<28 | (id.lo()>>50)<<20)
}

// Seq is the message's place in its shard's order.
func (id ID) Seq() uint64 { return id.lo() & (1<<50 - 1) }

func (id ID) hi() uint64 {
	x := binary.BigEndian.Uint64(id[:8])
	y := binary.BigEndian.Uint64(id[8:])
	return x>>16<<16 | x&(1<<12-1)<<4 | y>>58&(1<<4-1)
}

func (id ID) lo() uint64 { return binary.BigEndian.Uint64(id[8:]) & (1<<58 - 1) }

// String is the usual form of a UUID: 8-4-4-4-12 hex digits.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[:8], id[:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:], id[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

var errID = errors.New("not a message id: want a UUID version 8 as 36 characters")

// ParseID reads what String wrote. Only the canonical form is taken, so that
// one message has one name.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, errID
	}
	flat := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(flat)); err != nil {
		return ID{}, errID
	}
	if id[6]>>4 != 8 || id[8]>>6 != 2 || id.String() != s {
		return ID{}, errID
	}
	return id, nil
}
