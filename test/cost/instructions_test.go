//go:build instructions && !race

package cost

import (
	"flag"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

var (
	only    = flag.String("work", "", "do only this work, for valgrind to count")
	entries = flag.Int("entries", 0, "how many entries of it")
)

// TestInstructions runs itself under valgrind, which counts the instructions of
// this process and of nothing else: once for few entries and once for many. Their
// difference is without what a start costs.
func TestInstructions(t *testing.T) {
	if *only != "" {
		f := works[*only](t)
		for range *entries {
			f()
		}
		return
	}
	if _, err := exec.LookPath("valgrind"); err != nil || runtime.GOARCH != "amd64" {
		t.Fatal("instructions are counted with valgrind, those of amd64: install it")
	}
	const few, many = 20, 120
	got := map[string]float64{}
	for name := range works {
		got[name] = (instructions(t, name, many) - instructions(t, name, few)) / ((many - few) * entry)
	}
	compare(t, "instructions", got)
}

var refs = regexp.MustCompile(`I +refs: +([\d,]+)`)

// instructions of a process that does so many entries of a work. The garbage
// collector, which works when it gets to it, stays off: what it will cost is
// counted as allocations.
func instructions(t *testing.T, work string, n int) float64 {
	t.Helper()
	c := exec.CommandContext(t.Context(), "valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
		os.Args[0], "-test.run=^TestInstructions$", "-work="+work, "-entries="+strconv.Itoa(n))
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off")
	out, err := c.CombinedOutput()
	m := refs.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%s: %v\n%s", c, err, out)
	}
	count, err := strconv.ParseFloat(strings.ReplaceAll(string(m[1]), ",", ""), 64)
	if err != nil {
		t.Fatal(err)
	}
	return count
}
