package queue

import (
	"encoding/binary"

	"github.com/comanda-mq/comanda/internal/message"
)

// inlineBody is up to which size a body lies in its message's data row, so
// that a lease reads one row. Larger ones lie apart, so that lists do not read
// them.
const inlineBody = 4 << 10

// Head is what is known of a message when it is sent. It never changes.
type Head struct {
	Seq        uint64
	Key        string
	Hash       message.KeyHash // only with a key
	Type       string
	Tenant     string
	TenantHash uint64 // with a tenant, not 0
	Attributes []message.Attribute
	SentAt     int64 // wall time, ms since 1970
	Due        int64 // group time, ms; 0: ready at once
	At         int64 // wall time, ms: not before; 0: no such time
	DueWall    int64 // At, or about Due by wall time, for people
	Expires    int64 // wall time, ms; 0: never
	Priority   byte
	BodySize   int
	Dedup      *Mark          // nil: it has no dedup id
	Unique     *Mark          // nil: it has no unique key
	Retry      *message.Retry // nil: as the queue says
	Foreign    message.ID     // its id, if it was sent to another place; zero: the place is its id
}

// size is about how many bytes a message without its body takes in an answer.
func (h *Head) size() int64 {
	n := message.MessageOverhead + len(h.Key) + len(h.Type) + len(h.Tenant)
	for i := range h.Attributes {
		n += len(h.Attributes[i].Name) + len(h.Attributes[i].Value) + 16
	}
	return int64(n)
}

// answer is about how many bytes the message takes in an answer to a lease.
func (h *Head) answer() int64 { return h.size() + int64(h.BodySize) }

func (h *Head) keyed() bool { return h.Key != "" }

// Head flags, a uvarint: one byte for what is used most.
const (
	headKeyed = 1 << iota
	headDelayed
	headTyped
	headAttributed
	headBodyApart
	headRetry
	headDeliverAt
	headExpires
	headDedup
	headUnique
	headTenant
	headForeign
)

// appendHead writes the data row: flags, the parts that the flags name, and
// the body unless it lies apart.
func appendHead(b []byte, h *Head, body []byte) []byte {
	var flags uint64
	if h.keyed() {
		flags |= headKeyed
	}
	if h.Due > 0 {
		flags |= headDelayed
	}
	if h.Type != "" {
		flags |= headTyped
	}
	if len(h.Attributes) > 0 {
		flags |= headAttributed
	}
	if len(body) > inlineBody {
		flags |= headBodyApart
	}
	if h.Retry != nil {
		flags |= headRetry
	}
	if h.At > 0 {
		flags |= headDeliverAt
	}
	if h.Expires > 0 {
		flags |= headExpires
	}
	if h.Dedup != nil {
		flags |= headDedup
	}
	if h.Unique != nil {
		flags |= headUnique
	}
	if h.Tenant != "" {
		flags |= headTenant
	}
	if h.Foreign != (message.ID{}) {
		flags |= headForeign
	}
	b = append(binary.AppendUvarint(b, flags), h.Priority)
	b = putInt(b, h.SentAt)
	if flags&headKeyed != 0 {
		b = appendHash(b, h.Hash)
		b = putString(b, h.Key)
	}
	if flags&headDelayed != 0 {
		b = putInt(putInt(b, h.Due), h.DueWall)
	}
	if flags&headTyped != 0 {
		b = putString(b, h.Type)
	}
	if flags&headAttributed != 0 {
		b = appendAttributes(b, h.Attributes)
	}
	if flags&headRetry != 0 {
		b = appendRetry(b, h.Retry)
	}
	if flags&headDeliverAt != 0 {
		b = putInt(b, h.At)
	}
	if flags&headExpires != 0 {
		b = putInt(b, h.Expires)
	}
	if flags&headDedup != 0 {
		b = h.Dedup.append(b)
	}
	if flags&headUnique != 0 {
		b = h.Unique.append(b)
	}
	if flags&headTenant != 0 {
		b = putString(binary.BigEndian.AppendUint64(b, h.TenantHash), h.Tenant)
	}
	if flags&headForeign != 0 {
		b = append(b, h.Foreign[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(body)))
	if flags&headBodyApart == 0 {
		b = append(b, body...)
	}
	return b
}

// decodeHead reads a data row. body is a part of row, or nil and apart if it
// lies in a row of its own.
func decodeHead(seq uint64, row []byte) (h Head, body []byte, apart bool) {
	d := decoder{b: row}
	h, body, apart = readHead(&d)
	h.Seq = seq
	must(d.end("a data row"))
	return h, body, apart
}

// readHead reads all of a head but its sequence number, which the row's key has.
func readHead(d *decoder) (h Head, body []byte, apart bool) {
	flags := d.uint()
	h.Priority = d.byte()
	h.SentAt = d.int()
	if flags&headKeyed != 0 {
		h.Hash = message.KeyHash{Hi: d.fixed64(), Lo: d.fixed64()}
		h.Key = d.string()
	}
	if flags&headDelayed != 0 {
		h.Due, h.DueWall = d.int(), d.int()
	}
	if flags&headTyped != 0 {
		h.Type = d.string()
	}
	if flags&headAttributed != 0 {
		h.Attributes = decodeAttributes(d)
	}
	if flags&headRetry != 0 {
		h.Retry = decodeRetry(d)
	}
	if flags&headDeliverAt != 0 {
		h.At = d.int()
		h.DueWall = h.At
	}
	if flags&headExpires != 0 {
		h.Expires = d.int()
	}
	if flags&headDedup != 0 {
		h.Dedup = decodeMark(d)
	}
	if flags&headUnique != 0 {
		h.Unique = decodeMark(d)
	}
	if flags&headTenant != 0 {
		h.TenantHash, h.Tenant = d.fixed64(), d.string()
	}
	if flags&headForeign != 0 {
		copy(h.Foreign[:], d.take(16))
	}
	if flags >= headForeign<<1 {
		d.fail() // of a newer version
	}
	h.BodySize = int(d.uint())
	if apart = flags&headBodyApart != 0; !apart {
		body = d.take(uint64(h.BodySize))
	}
	return h, body, apart
}

func appendAttributes(b []byte, as []message.Attribute) []byte {
	b = binary.AppendUvarint(b, uint64(len(as)))
	for _, a := range as {
		b = append(b, byte(a.Kind))
		b = putString(putString(b, a.Name), a.Value)
	}
	return b
}

func decodeAttributes(d *decoder) []message.Attribute {
	n := d.count(3)
	as := make([]message.Attribute, 0, n)
	for range n {
		as = append(as, message.Attribute{Kind: message.AttributeKind(d.byte()), Name: d.string(), Value: d.bytes()})
	}
	return as
}

func appendRetry(b []byte, r *message.Retry) []byte {
	b = append(putInt(b, int64(r.MaxAttempts)), byte(r.Backoff.Kind))
	b = putInt(putInt(b, millis(r.Backoff.Initial)), millis(r.Backoff.Max))
	return appendDelays(b, r.Backoff.List)
}

func decodeRetry(d *decoder) *message.Retry {
	r := &message.Retry{MaxAttempts: int(d.int()), Backoff: message.Backoff{Kind: message.BackoffKind(d.byte())}}
	r.Backoff.Initial, r.Backoff.Max = d.millis(), d.millis()
	r.Backoff.List = decodeDelays(d)
	if !knownBackoff(&r.Backoff) {
		d.fail()
	}
	return r
}
