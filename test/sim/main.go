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
// twice and compares. On a machine that is busy with other things one in fifty seeds
// gives another one, because Go lets others go on in the middle of an instant: -loose
// looks for more of those, and -again for one of them.
package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func main() {
	seeds := flag.Int("seeds", 100, "how many seeds to run, from -first on")
	first := flag.Uint64("first", 1, "the first of them")
	seed := flag.Uint64("seed", 0, "run this one, twice, and compare")
	ctl := flag.String("control", "", "put a bug in: "+strings.Join(slices.Sorted(maps.Keys(controls)), ", "))
	duration := flag.Duration("duration", 30*time.Second, "simulated time with faults")
	pace := flag.Duration("pace", 250*time.Millisecond, "the longest pause of a sender")
	twice := flag.Bool("twice", false, "run each seed twice, and compare")
	loose := flag.Bool("loose", false, "use all processors: more orders are met, and a seed gives another history each time")
	again := flag.Int("again", 0, "run -seed that often, loose, for a violation that one run does not show again")
	trace := flag.Bool("trace", false, "tell what happens")
	// A bubble wants a test: this is the one.
	testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "sim", F: func(t *testing.T) {
		if _, ok := controls[*ctl]; !ok && *ctl != "" {
			fmt.Fprintln(os.Stderr, "unknown control", *ctl)
			os.Exit(2)
		}
		o := options{control: *ctl, duration: *duration, pace: *pace, loose: *loose}
		if *seed != 0 {
			o.seed, o.keep = *seed, *again > 0
			if *again > 0 {
				o.loose = true
				meet(t, o, *again)
			} else {
				replay(t, o, *trace)
			}
			return
		}
		if *twice {
			o.keep = true
		}
		many(t, o, *first, *seeds)
	}}}, nil, nil)
}

// one runs one seed, on one processor, so that goroutines take turns.
func one(t *testing.T, o options, trace io.Writer) outcome {
	if !o.loose {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a run lives in a few MiB
	return run(t, o, trace)
}

// many runs seeds until one fails.
func many(t *testing.T, o options, first uint64, n int) {
	began := time.Now()
	sum := counts{}
	for i := range n {
		o.seed = first + uint64(i)
		out := one(t, o, nil)
		sum.add(out.counts)
		if o.keep {
			again := one(t, o, nil)
			if d := difference(out.lines, again.lines); d != "" {
				fmt.Printf("seed %d: the histories differ: something that the seed does not decide has a say\n%s", o.seed, d)
				t.Fail()
			}
		}
		if out.violation != nil {
			fmt.Printf("seed %d: %v\n", o.seed, out.violation)
			fmt.Printf("again: %s\n", o.line())
			t.Fail()
			return
		}
	}
	fmt.Printf("%d seeds in %v, no violation: %v\n", n, time.Since(began).Round(time.Second), sum)
}

// meet runs a seed again and again, and lets Go decide each time which of those who
// were woken in one instant go on first. The history of a violation is printed.
func meet(t *testing.T, o options, n int) {
	for i := range n {
		if out := one(t, o, nil); out.violation != nil {
			fmt.Printf("%s\nseed %d, in run %d: %v\n", strings.Join(out.lines, "\n"), o.seed, i+1, out.violation)
			t.Fail()
			return
		}
	}
	fmt.Printf("seed %d, %d runs: no violation\n", o.seed, n)
}

// difference shows where two histories begin to differ; empty: nowhere.
func difference(a, b []string) string {
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	if at == len(a) && at == len(b) {
		return ""
	}
	before := max(at-20, 0)
	after := func(lines []string) string { return strings.Join(lines[at:min(at+5, len(lines))], "\n  ") }
	return fmt.Sprintf("  %s\nfirst:\n  %s\nthen:\n  %s\n", strings.Join(a[before:at], "\n  "), after(a), after(b))
}

// line is the command that runs a seed again.
func (o options) line() string {
	s := fmt.Sprintf("go run ./test/sim -seed %d -duration %v -pace %v", o.seed, o.duration, o.pace)
	if o.control != "" {
		s += " -control " + o.control
	}
	if o.loose {
		s += " -again 100"
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
	fmt.Printf("seed %d: history %016x of %d events, and again %016x of %d; %v\n", o.seed, a.history, a.entries, b.history, b.entries, a.counts)
	if a.history != b.history {
		fmt.Println("the histories differ: something that the seed does not decide has a say")
		t.Fail()
	}
	if a.violation != nil {
		fmt.Println(a.violation)
		t.Fail()
	}
}
