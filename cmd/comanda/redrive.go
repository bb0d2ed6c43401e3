package main

import (
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newQueueRedrive(a *app) *cobra.Command {
	o := client.RedriveQueueOptions{By: hostPID()}
	var wait bool
	timeout := moveWithin
	cmd := a.queueVerb("redrive QUEUE", "Revive the dead messages of a queue that a filter chooses", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		count, op, err := c.RedriveQueue(cmd.Context(), queue, o)
		if err != nil {
			return err
		}
		if op == nil {
			return p.one(object{{"count", count}}, "count")
		}
		if wait {
			cmd.PrintErrf("operation %d revives %d messages\n", op.GetId(), count)
			op, err = ended(cmd.Context(), c, op, time.After(timeout), func(o *comandav1.Operation) {
				cmd.PrintErrf("operation %d waits %s\n", o.GetId(), o.GetWaits())
			})
			if err != nil {
				return err
			}
		}
		return p.one(append(object{{"count", count}}, objectOf(op)...), "id")
	})
	cmd.Long = "Count the dead messages of a queue that all the flags choose, and revive them where they are, each once, in an operation:\n" +
		"it goes on when servers stop, and 'comanda operation show|pause|resume|cancel ID' is about it. --dry-run only counts."
	cmd.Example = "  comanda queue redrive orders --type bake --dead-since 2h --dry-run\n  comanda queue redrive orders --reason worker_lost --rate 50 --wait"
	f := cmd.Flags()
	f.StringVar(&o.Type, "type", "", "those of this type")
	f.StringVar(&o.Key, "key", "", "those with this key")
	f.StringVar(&o.Tenant, "tenant", "", "those of this tenant")
	f.StringVar(&o.Reason, "reason", "", "those that died so: nacked, rejected, expired, worker_lost, lapsed or undelivered (follow-ups of acks)")
	f.Var((*pastFlag)(&o.DeadSince), "dead-since", "those that died then or later: a time, or how long ago")
	f.Var((*pastFlag)(&o.DeadUntil), "dead-until", "those that died before: a time, or how long ago")
	f.StringToStringVar(&o.Attributes, "attr", nil, "those with an attribute `NAME=TEXT`; may be given again")
	f.Lookup("attr").DefValue = "" // else the help shows []
	f.IntVar(&o.Rate, "rate", 0, "revive so many a second; 0: as fast as it goes")
	f.BoolVar(&o.ResetAttempts, "reset-attempts", false, "count attempts from 0 again")
	f.StringVar(&o.To, "to", "", "the queue that they are to live in, under their ids (default: where they are)")
	f.StringVar(&o.By, "by", o.By, "who revives them: 'operation show' tells")
	f.BoolVar(&o.DryRun, "dry-run", false, "count only")
	f.BoolVar(&wait, "wait", false, "wait until it is done")
	f.Var((*spanFlag)(&timeout), "timeout", "with --wait: wait so long; the redrive itself goes on")
	return cmd
}
