package catalog

import (
	"encoding/binary"
	"strconv"

	"github.com/comanda-mq/comanda/internal/message"
)

// Hash places a key in the queue.
func (q *Queue) Hash(key string) message.KeyHash { return message.HashKey(&q.Secret, key) }

// HashTenant is a tenant's number.
func (q *Queue) HashTenant(tenant string) uint64 { return message.HashTenant(&q.Secret, tenant) }

// HashIn places a dedup id or a unique key, which count within a key ("": of none).
func (q *Queue) HashIn(key, id string) message.KeyHash {
	b := binary.AppendUvarint(make([]byte, 0, 256), uint64(len(key)))
	return q.Hash(string(append(append(b, key...), id...)))
}

// Shard is the shard that a cell belongs to. Shards cover all cells at every
// version, so there always is one.
func (q *Queue) Shard(cell int) *Shard {
	for i := range q.Shards {
		if s := &q.Shards[i]; s.From <= cell && cell <= s.To {
			return s
		}
	}
	panic("catalog: the shards of queue " + q.Name + " do not cover its cells")
}

// split cuts a queue's cells into n shards of equal size, as far as that goes,
// and spreads them over the groups. It begins at another group for each queue.
func split(number uint32, n int, groups []uint64) []Shard {
	shards := make([]Shard, n)
	for i := range shards {
		shards[i] = Shard{
			From:  i * message.Cells / n,
			To:    (i+1)*message.Cells/n - 1,
			Path:  path(i, n),
			Group: groups[(int(number)+i)%len(groups)],
			Epoch: 1,
		}
	}
	return shards
}

// path names the i-th of n shards that a queue begins with. A shard's id is its
// path in the tree of splits: a queue of one shard has 0, and a queue that
// begins with more has the children of 0.
func path(i, n int) string {
	if n == 1 {
		return rootPath
	}
	return rootPath + "." + strconv.Itoa(i)
}

const rootPath = "0"
