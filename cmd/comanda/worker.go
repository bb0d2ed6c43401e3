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
	return noun("worker", "Look at workers", newWorkerList(a))
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
				os := objectsOf(r.GetWorkers())
				if p.format == "table" {
					for i, w := range r.GetWorkers() {
						os[i].set("queues", strings.Join(w.GetQueues(), ", "))
						os[i] = append(os[i], field{"last_beat", lastBeat(w)})
					}
				}
				if err := p.many(os, "id", "state", "queues", "slots", "holds", "last_beat", "node", "reason"); err != nil {
					return err
				}
				if groups := r.GetUnreached(); len(groups) > 0 {
					cmd.PrintErrf("What they hold in groups %s is not counted: nobody who leads them can be asked now.\n", strings.Trim(fmt.Sprint(groups), "[]"))
				}
				return sayMore(cmd, r.GetNextPage())
			})
		},
	}
	cmd.Flags().IntVar(&limit, "max", 0, "at most so many: 1 to 1000 (default 100)")
	cmd.Flags().StringVar(&page, "page", "", "go on from where a list before ended")
	return cmd
}

// lastBeat says how long ago a worker was heard; nothing if it is dead.
func lastBeat(w *comandav1.Worker) string {
	if w.GetState() == "dead" {
		return ""
	}
	return (time.Duration(w.GetLastBeatMs()) * time.Millisecond).String() + " ago"
}
