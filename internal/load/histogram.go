package load

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	subBits = 5 // 32 steps an octave: a value is kept to 3 %
	buckets = (64 - subBits) << subBits
)

// histogram counts durations in steps of 3 %. Many goroutines may add.
type histogram struct {
	counts [buckets]atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(uint64(max(d, 0)))].Add(1)
}

// reset forgets what was added. Nobody may add meanwhile.
func (h *histogram) reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}

// bucketOf keeps the highest bits of v: below 64 each value has a bucket.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// floorOf is the lowest value in a bucket.
func floorOf(bucket int) uint64 {
	if bucket < 2<<subBits {
		return uint64(bucket)
	}
	shift := bucket>>subBits - 1
	return uint64(bucket-shift<<subBits) << shift
}

// quantile returns the value that a share q of all are at or below, or 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	var total int64
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	rank, seen := int64(q*float64(total-1)), int64(0)
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen > rank {
			return time.Duration(floorOf(i))
		}
	}
	return 0
}
