package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/internal/load"
)

// newBench is 'comanda bench'.
func newBench(a *app) *cobra.Command {
	var o load.Options
	cmd := &cobra.Command{
		Use:   "bench [WORKLOAD…]",
		Short: "Put load on a server and measure",
		Long: `Put load on a server and measure. Each workload makes a queue of its own, checks that
every confirmed message arrives, and deletes the queue. Without names W1x64, W2 and W3 run.

  W1xN    N producers send one message at a time, each confirmed
  W2      producers and consumers at once; W2@2000 at 2,000 messages a second
  W3      a preloaded queue is drained
  W4xN    producers send in batches of N
  W6      a backlog: fill it, then send, and drain a part of it

W2free and W3free have handlers that do not wait until their ack is confirmed.`,
		Args: args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				names = []string{"W1x64", "W2", "W3"}
			}
			return a.bench(cmd, names, o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Size, "size", 1024, "bytes of a message's body")
	f.DurationVar(&o.Duration, "duration", 0, "of the measured phase (default 5s, of W2 15s)")
	f.IntVar(&o.Producers, "producers", 64, "producers, where the workload's name does not say")
	f.IntVar(&o.Consumers, "consumers", 64, "consumers")
	f.IntVar(&o.Preload, "preload", 0, "messages of W3 and W6 (default 200,000 and 10,000,000)")
	return cmd
}

func (a *app) bench(cmd *cobra.Command, names []string, o load.Options) error {
	var workloads []load.Workload
	for _, name := range names {
		w, err := load.Parse(name)
		if err == nil {
			err = o.Check(w)
		}
		if err != nil {
			return usageError(err)
		}
		workloads = append(workloads, w)
	}
	return a.call(cmd, func(_ *client.Client, p printer) error {
		var results []object
		o.Report = func(r load.Result) { results = append(results, benchResult(r)) }
		for i, w := range workloads {
			o.Queue = fmt.Sprintf("bench-%s-%d-%d", strings.ReplaceAll(w.Name, "@", "-"), os.Getpid(), i)
			if err := load.Run(cmd.Context(), load.Comanda{Addr: a.server}, w, o); err != nil {
				return err
			}
		}
		return p.many(results, "workload", "messages", "seconds", "per_second", "p50_ms", "p99_ms", "duplicates")
	})
}

func benchResult(r load.Result) object {
	millis := func(d time.Duration) float64 { return math.Round(float64(d)/1e4) / 100 }
	return object{
		{"workload", r.Workload},
		{"messages", r.Messages},
		{"sent", r.Sent},
		{"seconds", math.Round(r.Elapsed.Seconds()*100) / 100},
		{"per_second", math.Round(r.PerSecond)},
		{"p50_ms", millis(r.P50)},
		{"p99_ms", millis(r.P99)},
		{"duplicates", r.Duplicates},
	}
}
