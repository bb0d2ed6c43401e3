package load

import (
	"math"
	"testing"
	"time"
)

// Each value lies in its bucket, and a bucket is at most 1/32 wide.
func TestBuckets(t *testing.T) {
	for _, v := range []uint64{0, 1, 31, 32, 63, 64, 65, 127, 128, 1_000, 999_999, 1 << 40, math.MaxInt64} {
		b := bucketOf(v)
		low, high := floorOf(b), floorOf(b+1)
		if v < low || v >= high || v-low > v/32 {
			t.Errorf("%d is in bucket %d, from %d to %d", v, b, low, high)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	if q := h.quantile(0.5); q != 0 {
		t.Errorf("of nothing: %d", q)
	}
	for i := range 100 {
		h.add(time.Duration(i + 1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 98, 1: 100} {
		if got := h.quantile(q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	h.reset()
	if q := h.quantile(1); q != 0 {
		t.Errorf("after reset: %d", q)
	}
}

// Bodies of neighbours differ, so that compression finds nothing.
func TestBodiesDiffer(t *testing.T) {
	l := newLedger()
	seen := map[string]bool{}
	body := make([]byte, 128)
	for range 1_000 {
		l.fill(body)
		seen[string(body[minBody:minBody+16])] = true
	}
	if len(seen) < 1_000 {
		t.Errorf("%d different bodies of 1,000", len(seen))
	}
}
