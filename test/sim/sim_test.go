//go:build !race

// Under the race detector the simulation is too slow to tell a process that waits
// from one that has yet to run, and no seed gives the same history again: '.ci/run
// sim' runs these tests without it.

package main

import (
	"maps"
	"slices"
	"testing"
	"time"
)

func quick(seed uint64, control string) options {
	return options{seed: seed, control: control, duration: 10 * time.Second, pace: 250 * time.Millisecond}
}

// Some seeds pass, and something happened in them.
func TestSeeds(t *testing.T) {
	sum := counts{}
	for seed := range uint64(8) {
		o := quick(seed+29, "")
		out := one(t, o, nil)
		if out.violation != nil {
			t.Errorf("%v\nagain: %s", out.violation, o.line())
		}
		sum.add(out.counts)
	}
	least := counts{"confirmed": 500, "acked": 300, "crashes": 10, "faults": 30, "deaths": 5, "moves": 1, "stale": 20, "jumps": 3, "existing": 5, "withdrawn": 20, "pauses": 20, "batches": 50, "letters": 20, "forced": 1, "follow-ups": 30, "follow-ups elsewhere": 5, "redrives": 3, "revived": 3, "purges": 1, "limits": 10, "overtaken": 3, "turns": 150}
	for what, n := range least {
		if sum[what] < n {
			t.Errorf("too little happened: %d %s, not %d: %v", sum[what], what, n, sum)
		}
	}
}

// Each bug that is put in is found, and its seed gives the same history again.
func TestControls(t *testing.T) {
	for name := range controls {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 100; seed++ {
				out := one(t, quick(seed, name), nil)
				if out.violation == nil {
					continue
				}
				t.Logf("seed %d: %.200v", seed, out.violation)
				// One run in fifty goes another way where others use the machine, the first
				// one as well as any.
				seen := map[uint64]bool{out.history: true}
				for range 3 {
					again := one(t, quick(seed, name), nil)
					if again.violation != nil && seen[again.history] {
						return
					}
					seen[again.history] = true
				}
				t.Errorf("seed %d has four histories: %x", seed, slices.Sorted(maps.Keys(seen)))
				return
			}
			t.Error("it is not found")
		})
	}
}
