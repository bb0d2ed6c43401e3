package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newQueueRedrive(a *app) *cobra.Command {
	var o client.RedriveQueueOptions
	var wait bool
	var timeout time.Duration
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
	f.StringVar(&o.Reason, "reason", "", "those that died so: nacked, rejected, expired, worker_lost or lapsed")
	f.Var((*agoFlag)(&o.DeadSince), "dead-since", "those that died then or later: a time, or how long ago")
	f.Var((*agoFlag)(&o.DeadUntil), "dead-until", "those that died before: a time, or how long ago")
	f.StringToStringVar(&o.Attributes, "attr", nil, "those with an attribute `NAME=TEXT`; may be given again")
	f.Lookup("attr").DefValue = "" // else the help shows []
	f.IntVar(&o.Rate, "rate", 0, "revive so many a second; 0: as fast as it goes")
	f.BoolVar(&o.ResetAttempts, "reset-attempts", false, "count attempts from 0 again")
	f.StringVar(&o.To, "to", "", "the queue that they are to live in, under their ids (default: where they are)")
	f.BoolVar(&o.DryRun, "dry-run", false, "count only")
	f.BoolVar(&wait, "wait", false, "wait until it is done")
	f.DurationVar(&timeout, "timeout", moveWithin, "with --wait: wait so long; the redrive itself goes on")
	return cmd
}

// agoFlag is a time in a flag that has passed: RFC 3339, or a duration before now.
type agoFlag time.Time

func (t *agoFlag) Set(text string) error {
	if d, err := time.ParseDuration(text); err == nil {
		*t = agoFlag(time.Now().Add(-d.Abs()))
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return fmt.Errorf("%q is neither a time, as 2026-01-31T18:00:00Z, nor how long ago, as 90m", text)
	}
	*t = agoFlag(at)
	return nil
}

func (t *agoFlag) String() string { return (*timeFlag)(t).String() }

func (*agoFlag) Type() string { return "time" }
