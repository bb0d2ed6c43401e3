//go:build !race

package cost

import (
	"runtime"
	"testing"
)

const runs = 50 // entries in one measurement

// TestAllocations takes the smallest of five measurements.
func TestAllocations(t *testing.T) {
	got := map[string]float64{}
	for name, work := range works {
		got[name] = allocations(work(t))
	}
	compare(t, "allocations", got)
}

func allocations(f func()) float64 {
	f() // warm up
	best := 0.0
	for i := range 5 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range runs {
			f()
		}
		runtime.ReadMemStats(&after)
		if n := float64(after.Mallocs-before.Mallocs) / (runs * entry); i == 0 || n < best {
			best = n
		}
	}
	return best
}
