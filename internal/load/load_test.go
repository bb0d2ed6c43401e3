package load_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/comanda-mq/comanda/internal/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// In fake time a workload counts exactly: who sends for 100 ms by calls of 1 ms
// each sends 100 messages.
func TestWorkloadsCount(t *testing.T) {
	for _, c := range []struct {
		name     string
		messages int64 // of the first result
		results  string
		largest  int // batch
	}{
		{"W1x3", 300, "W1x3", 1},
		{"W4x10", 4_000, "W4x10", 10},
		{"W2", 400, "W2", 1},
		{"W2free", 400, "W2free", 1},
		{"W2@1000", 100, "W2@1000", 1},
		{"W3", 1_230, "W3", 100},
		{"W3free", 1_230, "W3free", 100},
		{"W6", 1_230, "W6 fill, W6 send, W6 drain", 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				results, err := run(t, m, c.name, nil)
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for _, r := range results {
					names = append(names, r.Workload)
				}
				if got := strings.Join(names, ", "); got != c.results {
					t.Fatalf("results %q, want %q", got, c.results)
				}
				// W2's consumers are a call behind its producers.
				if n := results[0].Messages; n > c.messages || n < c.messages-8 {
					t.Errorf("%d messages, want %d", n, c.messages)
				}
				if m.largest != c.largest || m.bodySize != 128 {
					t.Errorf("batches of up to %d bodies of %d bytes, want %d of 128", m.largest, m.bodySize, c.largest)
				}
				if len(m.waiting) > 0 || m.closed != 1 || m.opened[0] != "bench-load" {
					t.Errorf("%d messages were left; opened %v, closed %d", len(m.waiting), m.opened, m.closed)
				}
				if m.peak > 8 {
					t.Errorf("%d handlers at once, want at most 8", m.peak)
				}
			})
		})
	}
}

// Latencies are those of the calls.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results, err := run(t, &memory{}, "W1x4", nil)
		if err != nil {
			t.Fatal(err)
		}
		r := results[0]
		for _, d := range []time.Duration{r.P50, r.P99} {
			if d < callTime*96/100 || d > callTime {
				t.Errorf("a latency of %s, want that of a call, %s, to 4 %%", d, callTime)
			}
		}
		if r.PerSecond < 3_900 || r.PerSecond > 4_100 || r.Bytes != r.Messages*128 {
			t.Errorf("%.0f/s and %d bytes", r.PerSecond, r.Bytes)
		}
	})
}

// A system that does not keep what it confirmed, or makes something up, fails
// the run: these are the checker's negative controls.
func TestFaultsAreReported(t *testing.T) {
	for _, c := range []struct {
		name string
		faults
		want string // in the error; empty: none
	}{
		{"lost", faults{lose: 100}, "have arrived"},
		{"made up", faults{foreign: true}, "that nobody sent"},
		{"refused", faults{sendErr: errFake}, errFake.Error()},
		{"acks lost", faults{ackErr: errFake}, errFake.Error()},
		{"none", faults{}, ""},
	} {
		for _, workload := range []string{"W1x4", "W2", "W3", "W4x10", "W6"} {
			t.Run(c.name+"/"+workload, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &memory{faults: c.faults}
					_, err := run(t, m, workload, nil)
					if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
						t.Errorf("error %v, want one with %q", err, c.want)
					}
					if m.closed != 1 {
						t.Error("the queue is still there")
					}
				})
			})
		}
	}
}

// A duplicate is counted, and does not stand in for a message that is missing.
func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results, err := run(t, &memory{faults: faults{double: 10}}, "W3", nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := results[0].Duplicates; d < 115 || d > 123 {
			t.Errorf("%d duplicates, want 123, less what came after the last message", d)
		}
		if _, err := run(t, &memory{faults: faults{double: 10, lose: 15}}, "W3", nil); err == nil {
			t.Error("as many duplicates as losses hide the losses")
		}
	})
}

// The meter is read around the measured phase only.
func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads int64
		results, err := run(t, &memory{}, "W1x1", func(o *load.Options) {
			o.Meter = func() load.Usage {
				reads++
				return load.Usage{Written: reads * 100, ServerCPU: time.Duration(reads), Resident: 7}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if u := results[0].Used; reads != 2 || u.Written != 100 || u.ServerCPU != 1 || u.Resident != 7 {
			t.Errorf("after %d reads: %+v", reads, u)
		}
	})
}

// W6 tells when its backlog stands, and stops when that fails.
func TestFilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		results, err := run(t, m, "W6", func(o *load.Options) {
			o.Filled = func(context.Context) error {
				if len(m.waiting) != o.Preload {
					t.Errorf("%d messages wait, want %d", len(m.waiting), o.Preload)
				}
				return errFake
			}
		})
		if !errors.Is(err, errFake) || len(results) != 1 {
			t.Errorf("%d results, error %v", len(results), err)
		}
	})
}

// The end of the context ends a run, and its queue with it.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{faults: faults{lose: 1}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		w, _ := load.Parse("W3")
		var results []load.Result
		if err := load.Run(ctx, m, w, short(&results)); !errors.Is(err, context.DeadlineExceeded) || m.closed != 1 {
			t.Errorf("error %v, closed %d", err, m.closed)
		}
	})
}

func TestParse(t *testing.T) {
	for name, ok := range map[string]bool{
		"W1": true, "W1x1": true, "W2": true, "W2free": true, "W2@2000": true, "W3": true, "W3free": true, "W4": true, "W4x1000": true, "W6": true,
		"": false, "W": false, "W5": false, "W1x": false, "W1x0": false, "W1x-1": false, "W2x2": false, "W2@": false, "W3x": false,
		"W4x1001": false, "W6x1": false, "w1": false,
	} {
		w, err := load.Parse(name)
		if (err == nil) != ok || ok && w.Name != name {
			t.Errorf("%q: %v, %v", name, w.Name, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	w, _ := load.Parse("W2")
	for _, o := range []load.Options{{Size: 15}, {Size: 2 << 20}, {Producers: -1}, {Consumers: 10_001}, {Preload: -1}, {Duration: -1}} {
		m := &memory{}
		if err := load.Run(t.Context(), m, w, o); err == nil || len(m.opened) > 0 {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
