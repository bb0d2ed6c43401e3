package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/comanda-mq/comanda/internal/load"
)

const (
	runWithin = 20 * time.Minute // one workload on one system
	syncFor   = 2 * time.Second  // one bare loop
	syncFile  = 64 << 20         // bytes that it writes over and over
)

// config is what the flags say.
type config struct {
	workloads, systems            []string
	repeats                       int
	shards, clients, keys, queues int
	options                       load.Options
	dir, comanda                  string // comanda: the binary that was built
}

func main() {
	var c config
	workloads := flag.String("workloads", "W1x1,W1x64,W1x256,W2,W2@2000,W3,W3free,W4x100,W5", "what to run; see package load, and W5: start and idle")
	names := flag.String("systems", "comanda,redis,rabbitmq", "the systems, of which the first is compared with the others; comanda=FILE and comanda3=FILE are other builds of Comanda")
	flag.IntVar(&c.repeats, "repeats", 3, "passes over all")
	flag.IntVar(&c.options.Size, "size", 1024, "bytes of a message's body")
	flag.DurationVar(&c.options.Duration, "duration", 0, "of the measured phase; 0: 5 s, W2 15 s")
	flag.IntVar(&c.options.Preload, "preload", 0, "messages of W3 and W6; 0: 200,000 and 10,000,000")
	flag.IntVar(&c.shards, "shards", 1, "of Comanda's queues")
	flag.IntVar(&c.keys, "keys", 0, "over which Comanda's messages are spread; 0: without keys")
	flag.IntVar(&c.queues, "queues", 1, "of Comanda, over which messages are spread")
	flag.IntVar(&c.clients, "clients", 1, "of Comanda, over which producers are spread")
	flag.StringVar(&c.dir, "dir", "", "directory for the servers' data; default a temporary one")
	flag.Parse()
	c.workloads, c.systems = strings.Split(*workloads, ","), strings.Split(*names, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to do
	}
}

// compare does all passes and prints the report.
func compare(ctx context.Context, c config) (err error) {
	if c.dir, err = os.MkdirTemp(c.dir, "comanda-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	if c.comanda, err = build(ctx, c.dir); err != nil {
		return err
	}
	r := &report{config: c}
	for _, name := range c.systems {
		s, err := c.system(ctx, name)
		if err != nil {
			return err
		}
		r.systems = append(r.systems, s)
	}
	for pass := range c.repeats {
		loops, err := measureSync(c.dir, c.options.Size, syncFor, syncFile)
		if err != nil {
			return fmt.Errorf("bare sync loop: %w", err)
		}
		r.loops = append(r.loops, loops)
		for _, workload := range c.workloads {
			for _, s := range r.systems {
				if err := c.one(ctx, s, workload, func(res load.Result) { r.add(pass, s, res) }); err != nil {
					r.fail(pass, s, workload, err)
				}
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
			}
		}
	}
	return r.print(os.Stdout)
}

// build makes Comanda's binary from the sources, in dir.
func build(ctx context.Context, dir string) (binary string, err error) {
	// In its own module: this one does not list what the binary needs.
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/comanda-mq/comanda").Output()
	if err != nil {
		return "", fmt.Errorf("find comanda's sources: %w", err)
	}
	binary = filepath.Join(dir, "comanda")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/comanda")
	build.Dir = strings.TrimSpace(string(module))
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build comanda: %w: %s", err, out)
	}
	return binary, nil
}

// one runs a workload on a server that is started for it.
func (c config) one(ctx context.Context, s *system, workload string, report func(load.Result)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, runWithin)
	defer cancel()
	dir, err := os.MkdirTemp(c.dir, "server-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	runtime.GC() // nobody pays for the run before
	v, err := s.start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.stop()) }()
	o := c.options
	o.Meter, o.Report = v.meter(dir), report
	switch {
	case workload == "W5":
		return idle(ctx, s, v, o)
	case strings.HasPrefix(workload, "W6"):
		o.Filled = func(ctx context.Context) (err error) {
			v, err = restart(ctx, s, v, dir, o)
			return err
		}
		o.Meter = func() load.Usage { return v.meter(dir)() }
	}
	w, err := load.Parse(workload)
	if err != nil {
		return err
	}
	return load.Run(ctx, s.load, w, o)
}
