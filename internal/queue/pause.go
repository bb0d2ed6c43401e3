package queue

import (
	"encoding/binary"

	"github.com/comanda-mq/comanda/internal/message"
)

// pauses are the keys and tenants of a queue whose messages are not handed out, with
// their hashes, for the leader, who sees nothing else of an offer.
type pauses struct {
	list   []message.Pause // in order
	hashes []uint64        // as in an Offer: of each its key's or its tenant's
}

func (p *pauses) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.list)))
	for i := range p.list {
		x := &p.list[i]
		b = putString(putString(putString(b, x.Key), x.Tenant), x.By)
		b = binary.BigEndian.AppendUint64(putInt(b, x.At), p.hashes[i])
	}
	return b
}

func decodePauses(d *decoder) (p pauses) {
	n := d.count(12)
	p.list, p.hashes = make([]message.Pause, n), make([]uint64, n)
	for i := range p.list {
		p.list[i] = message.Pause{Key: d.string(), Tenant: d.string(), By: d.string(), At: d.int()}
		p.hashes[i] = d.fixed64()
	}
	return p
}
