package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newWorker(a *app) *cobra.Command {
	return noun("worker", "Look at workers, and drain them", newWorkerList(a), newWorkerDrain(a))
}

func newWorkerList(a *app) *cobra.Command {
	var limit int
	var page string
	cmd := &cobra.Command{
		Use: "list", Short: "List the workers: how they fare, what they work and hold, when they were heard", Args: args(cobra.NoArgs),
		Long: "List the sessions of workers, the newest first; one that has ended stays for 10 minutes. Who receives without a\n" +
			"session, as 'comanda message receive' and REST do, is not among them.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.Workers(cmd.Context(), limit, page)
				if err != nil {
					return err
				}
				if err := printWorkers(cmd, p, r.GetWorkers(), r.GetUnreached()); err != nil {
					return err
				}
				return sayMore(cmd, r.GetNextPage())
			})
		},
	}
	cmd.Flags().IntVar(&limit, "max", 0, "at most so many: 1 to 1000 (default 100)")
	cmd.Flags().StringVar(&page, "page", "", "go on from where a list before ended")
	return cmd
}

func newWorkerDrain(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "drain WORKER", Short: "Have a worker finish what it holds, take nothing more, and end", Args: args(cobra.ExactArgs(1)),
		Long: "Have a worker finish what it holds, take nothing more, and end. All sessions that its name has now are told, and get\n" +
			"nothing more whether they heed it or not; a process that starts later under that name works. It does not wait:\n" +
			"'comanda worker list' tells what they still hold, and whether a worker that had not heard of it has opened another one:\n" +
			"then repeat it. Nothing counts as an attempt.",
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.DrainWorker(cmd.Context(), given[0])
				if err != nil {
					return err
				}
				return printWorkers(cmd, p, r.GetWorkers(), r.GetUnreached())
			})
		},
	}
}

func printWorkers(cmd *cobra.Command, p printer, workers []*comandav1.Worker, unreached []uint32) error {
	os := objectsOf(workers)
	if p.format == "table" {
		for i, w := range workers {
			os[i].set("queues", strings.Join(w.GetQueues(), ", "))
			os[i] = append(os[i], field{"last_beat", lastBeat(w)})
		}
	}
	if err := p.many(os, "id", "state", "queues", "slots", "holds", "last_beat", "node", "reason"); err != nil {
		return err
	}
	if len(unreached) > 0 {
		cmd.PrintErrf("What they hold in groups %s is not counted: nobody who leads them can be asked now.\n", strings.Trim(fmt.Sprint(unreached), "[]"))
	}
	return nil
}

// lastBeat says how long ago a worker was heard; nothing if it is dead.
func lastBeat(w *comandav1.Worker) string {
	if w.GetState() == "dead" {
		return ""
	}
	return (time.Duration(w.GetLastBeatMs()) * time.Millisecond).String() + " ago"
}
