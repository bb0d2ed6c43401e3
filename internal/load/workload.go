package load

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Workload is one of the workloads that the package comment lists.
type Workload struct {
	Name string
	// do runs it and reports what it measured.
	do func(ctx context.Context, r *run) error
	// producers and batch are of W1 and W4.
	producers, batch int
	// rate is W2's, in messages a second; 0: as fast as it goes.
	rate int
	// wait is W2's and W3's: handlers wait for their ack.
	wait bool
}

// Parse finds the workload of a name, as W1x64, W2, W2@2000, W3free or W4x100.
func Parse(name string) (Workload, error) {
	w := Workload{Name: name, wait: true, batch: 1}
	kind, tail := name[:min(2, len(name))], name[min(2, len(name)):]
	number := func(sign string, standard int) (n int, ok bool) {
		digits, found := strings.CutPrefix(tail, sign)
		if !found {
			return standard, tail == ""
		}
		n, err := strconv.Atoi(digits)
		return n, err == nil && n > 0
	}
	ok := false
	switch kind {
	case "W1":
		w.do = enqueue
		w.producers, ok = number("x", 0)
	case "W2":
		w.do = pipeline
		if w.wait = tail != "free"; !w.wait {
			tail = ""
		}
		w.rate, ok = number("@", 0)
	case "W3":
		w.do = drain
		w.wait, ok = tail == "", tail == "" || tail == "free"
	case "W4":
		w.do = enqueue
		w.batch, ok = number("x", 100)
		ok = ok && w.batch <= maxBatch
	case "W6":
		w.do, ok = backlog, tail == ""
	}
	if !ok {
		return Workload{}, fmt.Errorf("workload %q: want W1xN, W2, W2free, W2@RATE, W3, W3free, W4xN (N at most %d) or W6", name, maxBatch)
	}
	return w, nil
}

// maxBatch is the largest batch that every system takes in one request.
const maxBatch = 1000

// Options of a run; the zero value of a field means its default.
type Options struct {
	Size      int           // bytes of a body; default 1,024, at least 16
	Duration  time.Duration // of the measured phase of W1, W2 and W4; default 5 s, for W2 15 s
	Producers int           // of W2, W4 and W6, and of W1 where its name gives none; default 64
	Consumers int           // default 64
	Preload   int           // messages of W3 and W6; default 200,000 and 10,000,000
	// Queue is the name of the queue that a run makes and deletes; default
	// bench-load.
	Queue string
	// Meter reads the meters of the machine; default none.
	Meter func() Usage
	// Filled is called when W6's backlog stands.
	Filled func(ctx context.Context) error
	// Report gets each result as soon as it is there.
	Report func(Result)
}

func (o Options) withDefaults(w Workload) Options {
	preload, duration := 200_000, 5*time.Second
	switch w.Name[:2] {
	case "W2":
		duration = 15 * time.Second
	case "W6":
		preload = 10_000_000
	}
	set(&o.Size, 1024)
	set(&o.Duration, duration)
	set(&o.Producers, 64)
	set(&o.Consumers, 64)
	set(&o.Preload, preload)
	set(&o.Queue, "bench-load")
	if o.Meter == nil {
		o.Meter = func() Usage { return Usage{} }
	}
	if o.Filled == nil {
		o.Filled = func(context.Context) error { return nil }
	}
	if o.Report == nil {
		o.Report = func(Result) {}
	}
	return o
}

func set[T comparable](v *T, standard T) {
	var unset T
	if *v == unset {
		*v = standard
	}
}

// Check refuses options with which a workload can't run.
func (o Options) Check(w Workload) error {
	o = o.withDefaults(w)
	if o.Size < minBody || o.Size > 1<<20 {
		return fmt.Errorf("%s: bodies of %d bytes: want %d to %d", w.Name, o.Size, minBody, 1<<20)
	}
	if min(o.Producers, o.Consumers, o.Preload) < 1 || max(o.Producers, o.Consumers) > 10_000 || o.Duration < 0 {
		return fmt.Errorf("%s: want 1 to 10,000 producers and consumers, at least 1 message, and a duration above 0", w.Name)
	}
	return nil
}

// Usage is what meters of the machine show at a moment, or their difference
// over a measured phase.
type Usage struct {
	ServerCPU time.Duration `json:"server_cpu_ns"`
	ClientCPU time.Duration `json:"client_cpu_ns"`
	Written   int64         `json:"written_bytes"`  // to the disk
	Resident  int64         `json:"resident_bytes"` // of the server, at the moment
}

func (u Usage) since(before Usage) Usage {
	u.ServerCPU -= before.ServerCPU
	u.ClientCPU -= before.ClientCPU
	u.Written -= before.Written
	return u
}

// Result is what a workload, or a stage of one, measured.
type Result struct {
	Workload   string        `json:"workload"`
	Messages   int64         `json:"messages"`
	Sent       int64         `json:"sent"` // meanwhile; W2's backlog has grown by the difference
	Elapsed    time.Duration `json:"elapsed_ns"`
	PerSecond  float64       `json:"per_second"`
	P50        time.Duration `json:"p50_ns"` // W1, W4: of a send until confirmed; W2: from send to handler
	P99        time.Duration `json:"p99_ns"`
	Duplicates int64         `json:"duplicates"`
	Bytes      int64         `json:"bytes"` // of the bodies
	Used       Usage         `json:"used"`
}
