package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/internal/load"
)

// report collects the results of all passes.
type report struct {
	config  config
	systems []*system
	names   []string // of workloads and their stages, in order
	results []passResult
	loops   [][]syncLoop
}

type passResult struct {
	pass   int
	system *system
	load.Result
	err error
}

func (r *report) add(pass int, s *system, res load.Result) {
	if !slices.Contains(r.names, res.Workload) {
		r.names = append(r.names, res.Workload)
	}
	r.results = append(r.results, passResult{pass: pass, system: s, Result: res})
	fmt.Fprintf(os.Stderr, "pass %d, %s, %s: %.0f/s, p50 %s, p99 %s, %s, resident %d MiB\n",
		pass+1, s.name, res.Workload, res.PerSecond, short(res.P50), short(res.P99), res.Elapsed.Round(time.Millisecond), res.Used.Resident>>20)
}

func (r *report) fail(pass int, s *system, workload string, err error) {
	r.results = append(r.results, passResult{pass: pass, system: s, Result: load.Result{Workload: workload}, err: err})
	fmt.Fprintf(os.Stderr, "pass %d, %s, %s: %v\n", pass+1, s.name, workload, err)
}

// of are the results of a workload at a system, a pass each.
func (r *report) of(s *system, workload string) (all []passResult) {
	for _, x := range r.results {
		if x.system == s && x.Workload == workload && x.err == nil {
			all = append(all, x)
		}
	}
	return all
}

// print writes the report as Markdown.
func (r *report) print(out io.Writer) error {
	w := &strings.Builder{}
	fmt.Fprintf(w, "%s, %d CPUs, %s; bodies of %d bytes, %d passes, medians (lowest–highest).\n\n",
		runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), runtime.Version(), r.config.options.Size, r.config.repeats)
	for _, s := range r.systems {
		fmt.Fprintf(w, "- **%s**: %s\n", s.name, s.what)
	}
	r.table(w)
	r.ratios(w)
	r.bare(w)
	r.failures(w)
	_, err := io.WriteString(out, w.String())
	return err
}

// table has a line for each workload and system.
func (r *report) table(w *strings.Builder) {
	fmt.Fprint(w, "\n| workload | system | messages/s | p50 ms | p99 ms | CPU µs a message: server | load | disk bytes a payload byte | resident MiB | duplicates |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range r.names {
		for _, s := range r.systems {
			all := r.of(s, name)
			if len(all) == 0 || all[0].Messages == 0 {
				continue
			}
			each := func(f func(load.Result) float64) []float64 { return values(all, f) }
			perMessage := func(f func(load.Result) time.Duration) []float64 {
				return each(func(x load.Result) float64 { return micros(f(x)) / float64(x.Messages) })
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %.0f |\n", name, s.name,
				spread(each(func(x load.Result) float64 { return x.PerSecond }), 0),
				latency(each(func(x load.Result) float64 { return micros(x.P50) / 1000 })),
				latency(each(func(x load.Result) float64 { return micros(x.P99) / 1000 })),
				spread(perMessage(func(x load.Result) time.Duration { return x.Used.ServerCPU }), 1),
				spread(perMessage(func(x load.Result) time.Duration { return x.Used.ClientCPU }), 1),
				spread(each(func(x load.Result) float64 { return float64(x.Used.Written) / float64(x.Bytes) }), 2),
				spread(each(func(x load.Result) float64 { return float64(x.Used.Resident) / (1 << 20) }), 0),
				median(each(func(x load.Result) float64 { return float64(x.Duplicates) })))
		}
	}
	r.stillness(w)
}

// stillness has the results that count no messages: of W5, and W6's restart.
func (r *report) stillness(w *strings.Builder) {
	head := "\n| | system | took ms | CPU % | resident MiB |\n|---|---|---|---|---|\n"
	for _, name := range r.names {
		for _, s := range r.systems {
			all := r.of(s, name)
			if len(all) == 0 || all[0].Messages != 0 {
				continue
			}
			fmt.Fprintf(w, "%s| %s | %s | %s | %s | %s |\n", head, name, s.name,
				spread(values(all, func(x load.Result) float64 { return micros(x.Elapsed) / 1000 }), 0),
				spread(values(all, func(x load.Result) float64 { return 100 * x.Used.ServerCPU.Seconds() / x.Elapsed.Seconds() }), 1),
				spread(values(all, func(x load.Result) float64 { return float64(x.Used.Resident) / (1 << 20) }), 0))
			head = ""
		}
	}
}

// ratios compares the first system with the others, pass by pass.
func (r *report) ratios(w *strings.Builder) {
	first := r.systems[0]
	for _, s := range r.systems[1:] {
		fmt.Fprintf(w, "\n| %s : %s | messages/s | p50 | p99 |\n|---|---|---|---|\n", first.name, s.name)
		for _, name := range r.names {
			ours, theirs := r.of(first, name), r.of(s, name)
			if len(ours) == 0 || len(theirs) == 0 || ours[0].Messages == 0 {
				continue
			}
			each := func(f func(load.Result) float64) string {
				var quotients []float64
				for _, o := range ours {
					for _, t := range theirs {
						if o.pass == t.pass && f(t.Result) > 0 {
							quotients = append(quotients, f(o.Result)/f(t.Result))
						}
					}
				}
				return spread(quotients, 2)
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s |\n", name,
				each(func(x load.Result) float64 { return x.PerSecond }),
				each(func(x load.Result) float64 { return micros(x.P50) }),
				each(func(x load.Result) float64 { return micros(x.P99) }))
		}
	}
}

// bare has the loops that only write and sync.
func (r *report) bare(w *strings.Builder) {
	fmt.Fprint(w, "\n| bare write and fdatasync, messages a batch | messages/s | p50 ms | p99 ms |\n|---|---|---|---|\n")
	for i, batch := range syncSizes {
		var rate, p50, p99 []float64
		for _, pass := range r.loops {
			rate = append(rate, pass[i].PerSecond)
			p50 = append(p50, micros(pass[i].P50)/1000)
			p99 = append(p99, micros(pass[i].P99)/1000)
		}
		fmt.Fprintf(w, "| %d | %s | %s | %s |\n", batch, spread(rate, 0), spread(p50, 2), spread(p99, 2))
	}
}

func (r *report) failures(w *strings.Builder) {
	for _, x := range r.results {
		if x.err != nil {
			fmt.Fprintf(w, "\nFailed in pass %d: %s on %s: %v\n", x.pass+1, x.Workload, x.system.name, x.err)
		}
	}
}

func values(all []passResult, f func(load.Result) float64) (vs []float64) {
	for _, x := range all {
		vs = append(vs, f(x.Result))
	}
	return vs
}

func median(vs []float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	return vs[len(vs)/2]
}

// spread is the median and, of several, the range.
func spread(vs []float64, digits int) string {
	switch len(vs) {
	case 0:
		return "·"
	case 1:
		return fmt.Sprintf("%.*f", digits, vs[0])
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, median(vs), digits, slices.Min(vs), digits, slices.Max(vs))
}

// latency is spread, or a dot where nothing was measured.
func latency(vs []float64) string {
	if slices.Max(vs) == 0 {
		return "·"
	}
	return spread(vs, 2)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func short(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
