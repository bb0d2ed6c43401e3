// Command sim runs a whole cluster in one process, from one seed: real replicas,
// leaders, catalog, monitor and gateways over simulated clocks, disks and a
// simulated network, with faults; and checks what clients, workers and logs saw.
//
//	go run ./test/sim -seeds 500
//	go run ./test/sim -seed 17 -trace
//	go run ./test/sim -seeds 500 -control doubled-lease   (must fail)
//
// All of it is one goroutine at a time: hosts are stepped, what blocks runs in a
// bubble of testing/synctest that is woken by one event after the other, each in
// an instant of its own. So a seed gives the same history each time; -seed runs it
// twice and compares.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func main() {
	seeds := flag.Int("seeds", 100, "how many seeds to run, from -first on")
	first := flag.Uint64("first", 1, "the first of them")
	seed := flag.Uint64("seed", 0, "run this one, twice, and compare")
	ctl := flag.String("control", "", "put a bug in: no-sync, doubled-lease, skipped-fencing, reordered-key, dropped-ack, stale-read, hidden-age")
	duration := flag.Duration("duration", 30*time.Second, "simulated time with faults")
	pace := flag.Duration("pace", 250*time.Millisecond, "the longest pause of a sender")
	trace := flag.Bool("trace", false, "tell what happens")
	// A bubble wants a test: this is the one.
	testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "sim", F: func(t *testing.T) {
		if _, ok := controls[*ctl]; !ok {
			fmt.Fprintln(os.Stderr, "unknown control", *ctl)
			os.Exit(2)
		}
		o := options{control: *ctl, duration: *duration, pace: *pace}
		if *seed != 0 {
			o.seed = *seed
			replay(t, o, *trace)
			return
		}
		many(t, o, *first, *seeds)
	}}}, nil, nil)
}

// one runs one seed on one processor, so that goroutines take turns.
func one(t *testing.T, o options, trace io.Writer) outcome {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a run lives in a few MiB
	return run(t, o, trace)
}

// many runs seeds until one fails.
func many(t *testing.T, o options, first uint64, n int) {
	began := time.Now()
	var sum counts
	for i := range n {
		o.seed = first + uint64(i)
		out := one(t, o, nil)
		sum.add(out.counts)
		if out.violation != nil {
			fmt.Printf("seed %d: %v\n", o.seed, out.violation)
			fmt.Printf("again: %s\n", o.line())
			t.Fail()
			return
		}
	}
	fmt.Printf("%d seeds in %v, no violation: %+v\n", n, time.Since(began).Round(time.Second), sum)
}

// line is the command that runs a seed again.
func (o options) line() string {
	s := fmt.Sprintf("go run ./test/sim -seed %d -duration %v -pace %v", o.seed, o.duration, o.pace)
	if o.control != "" {
		s += " -control " + o.control
	}
	return s
}

// replay runs a seed twice.
func replay(t *testing.T, o options, trace bool) {
	var to io.Writer
	if trace {
		to = os.Stderr
	}
	a := one(t, o, to)
	b := one(t, o, nil)
	fmt.Printf("seed %d: history %016x of %d events, and again %016x of %d; %+v\n", o.seed, a.history, a.entries, b.history, b.entries, a.counts)
	if a.history != b.history {
		fmt.Println("the histories differ: something that the seed does not decide has a say")
		t.Fail()
	}
	if a.violation != nil {
		fmt.Println(a.violation)
		t.Fail()
	}
}

func (c *counts) add(o counts) {
	c.confirmed += o.confirmed
	c.refused += o.refused
	c.unknown += o.unknown
	c.delivered += o.delivered
	c.acked += o.acked
	c.fenced += o.fenced
	c.nacked += o.nacked
	c.deaths += o.deaths
	c.crashes += o.crashes
	c.faults += o.faults
	c.moves += o.moves
	c.stale += o.stale
}
