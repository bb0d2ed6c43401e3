package main

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/load"
)

// idleFor is how long an idle server is watched.
const idleFor = 5 * time.Second

// idle is W5: how long the server took to start, and what it takes while it has
// nothing to do, fresh and after W3.
func idle(ctx context.Context, s *system, v *server, o load.Options) error {
	o.Report(load.Result{Workload: "W5 start", Elapsed: v.took, Used: load.Usage{Resident: o.Meter().Resident}})
	if err := watch(ctx, o, "W5 idle, fresh"); err != nil {
		return err
	}
	w, err := load.Parse("W3")
	if err != nil {
		return err
	}
	quiet := o
	quiet.Report = nil
	if err := load.Run(ctx, s.load, w, quiet); err != nil {
		return err
	}
	return watch(ctx, o, "W5 idle, after W3")
}

func watch(ctx context.Context, o load.Options, name string) error {
	before, began := o.Meter(), time.Now()
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return ctx.Err()
	}
	after := o.Meter()
	o.Report(load.Result{
		Workload: name, Elapsed: time.Since(began),
		Used: load.Usage{ServerCPU: after.ServerCPU - before.ServerCPU, Resident: after.Resident},
	})
	return nil
}

// restart stops a server that holds a backlog and starts it again.
func restart(ctx context.Context, s *system, v *server, dir string, o load.Options) (*server, error) {
	if err := v.stop(); err != nil {
		return v, err
	}
	again, err := s.start(ctx, dir)
	if err != nil {
		return v, err
	}
	_, resident := again.usage()
	o.Report(load.Result{Workload: "W6 restart", Elapsed: again.took, Used: load.Usage{Resident: resident}})
	return again, nil
}
