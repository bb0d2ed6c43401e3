package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/comanda-mq/comanda/internal/load"
)

// server is what was started for a system: a process for each of its nodes.
type server struct {
	nodes []*process
	took  time.Duration // from the first one's start until all answered
}

// start runs a system's server with all its data below dir.
func (s *system) start(ctx context.Context, dir string) (*server, error) {
	began, v := time.Now(), &server{}
	if err := s.launch(ctx, dir, v); err != nil {
		return nil, errors.Join(err, v.stop())
	}
	v.took = time.Since(began)
	return v, nil
}

// add starts the process of one more node.
func (v *server) add(ctx context.Context, dir string, env []string, name string, args ...string) error {
	p, err := launch(ctx, dir, env, name, args...)
	if err == nil {
		v.nodes = append(v.nodes, p)
	}
	return err
}

// answer returns when ready says of each node that it answers.
func (v *server) answer(ctx context.Context, ready func(ctx context.Context, i int) error) error {
	for i, p := range v.nodes {
		if err := p.answers(ctx, func(ctx context.Context) error { return ready(ctx, i) }); err != nil {
			return err
		}
	}
	return nil
}

// stop ends all nodes. The first one ends last: it is the first to start again,
// and may have to know the newest.
func (v *server) stop() error {
	var errs []error
	for _, p := range slices.Backward(v.nodes) {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// usage sums what the processes of all nodes have used and hold.
func (v *server) usage() (cpu time.Duration, resident int64) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// The name, in parentheses, may hold spaces: the fields after it count.
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		group, _ := strconv.Atoi(f[2])
		if !slices.ContainsFunc(v.nodes, func(p *process) bool { return p.group() == group }) {
			continue
		}
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		pages, _ := strconv.Atoi(f[21])
		cpu += time.Duration(user+system) * time.Second / clockTicks
		resident += int64(pages * os.Getpagesize())
	}
	return cpu, resident
}

// meter reads the server, this process and the disk that holds dir. Whatever
// else writes to that disk counts too.
func (v *server) meter(dir string) func() load.Usage {
	return func() (u load.Usage) {
		u.ServerCPU, u.Resident = v.usage()
		var self syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &self) == nil {
			u.ClientCPU = time.Duration(self.Utime.Nano() + self.Stime.Nano())
		}
		u.Written = written(dir)
		return u
	}
}
