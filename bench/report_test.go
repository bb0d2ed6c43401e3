package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/load"
)

// Medians stand with their range, ratios are taken pass by pass, and a run that
// failed is told and not counted.
func TestReport(t *testing.T) {
	ours, theirs := &system{name: "ours", what: "this one"}, &system{name: "theirs", what: "that one"}
	r := &report{config: config{repeats: 3}, systems: []*system{ours, theirs}}
	for pass, rate := range []float64{100, 300, 200} {
		r.add(pass, ours, result(rate))
		r.add(pass, theirs, result(rate/2))
		r.add(pass, ours, load.Result{Workload: "W5 start", Elapsed: 100 * time.Millisecond, Used: load.Usage{Resident: 30 << 20}})
		r.loops = append(r.loops, make([]syncLoop, len(syncSizes)))
	}
	r.fail(1, theirs, "W2", errors.New("two messages did not arrive"))

	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| W1x64 | ours | 200 (100–300) | 2.00 (2.00–2.00) | 4.00 (4.00–4.00) | 10.0 (10.0–10.0) | 5.0 (5.0–5.0) | 1.50 (1.50–1.50) | 40 (40–40) | 0 |",
		"| W1x64 | theirs | 100 (50–150) |",
		"| W1x64 | 2.00 (2.00–2.00) | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) |",
		"| W5 start | ours | 100 (100–100) | 0.0 (0.0–0.0) | 30 (30–30) |",
		"Failed in pass 2: W2 on theirs: two messages did not arrive",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is not in the report:\n%s", line, out.String())
		}
	}
}

func result(rate float64) load.Result {
	return load.Result{
		Workload: "W1x64", Messages: 1000, PerSecond: rate, Elapsed: time.Second, P50: 2 * time.Millisecond, P99: 4 * time.Millisecond, Bytes: 1000,
		Used: load.Usage{ServerCPU: 10 * time.Millisecond, ClientCPU: 5 * time.Millisecond, Written: 1500, Resident: 40 << 20},
	}
}

func TestSyncLoop(t *testing.T) {
	for _, size := range []int{64, 4 << 10, 8 << 10} { // a batch fills the file, or is larger
		loops, err := measureSync(t.TempDir(), size, time.Millisecond, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range loops {
			if l.Batch != syncSizes[i] || l.PerSecond <= 0 || l.P50 <= 0 || l.P99 < l.P50 {
				t.Errorf("%d bytes: %+v", size, l)
			}
		}
	}
}
