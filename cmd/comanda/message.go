package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
)

func newMessage(a *app) *cobra.Command {
	send := newSend(a)
	return noun("message", "Send, receive, settle and look at messages",
		send, newMessageReceive(a), newMessageShow(a), newMessageWait(a), newMessageList(a), newMessageRedrive(a), newMessageCancel(a),
		newMessageAck(a), newMessageNack(a), newMessageReject(a), newMessageRelease(a), newMessageExtend(a))
}

func newMessageReceive(a *app) *cobra.Command {
	var o client.ReceiveOptions
	cmd := a.queueVerb("receive QUEUE", "Lease messages and print them with their tokens", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		ds, err := c.Receive(cmd.Context(), queue, o)
		if err != nil {
			return err
		}
		os := make([]object, len(ds))
		for i, d := range ds {
			os[i] = deliveryObject(d)
			if p.format == "table" {
				os[i] = os[i].readable(d.Body())
			}
		}
		return p.many(os, "id", "key", "attempt", "token", "body")
	})
	f := cmd.Flags()
	f.IntVar(&o.Max, "max", 1, "at most so many: 1 to 1000")
	f.IntVar(&o.MaxPerKey, "max-per-key", 1, "of these at most so many of one key, to be handled in order: 1 to 100")
	f.DurationVar(&o.Wait, "wait", 0, "for a first message: up to 60s")
	f.DurationVar(&o.Lease, "lease", 0, "length of the leases: 1s to 12h (default 30s)")
	f.StringVar(&o.Worker, "worker", hostPID(), "name in histories")
	return cmd
}

// deliveryObject has the names of the contract, and the body in base64 as there.
func deliveryObject(d *client.Delivery) object {
	attributes := map[string]any{}
	for name, a := range d.Attributes() {
		attributes[name] = attributeValue(a)
	}
	return object{
		{"id", d.ID()},
		{"queue", d.Queue()},
		{"token", d.Token()},
		{"key", d.Key()},
		{"type", d.Type()},
		{"tenant", d.Tenant()},
		{"attempt", d.Attempt()},
		{"deliveries", d.Deliveries()},
		{"fence", d.Fence()},
		{"sent_at", d.SentAt().Format(time.RFC3339Nano)},
		{"lease", d.Lease().String()},
		{"attributes", attributes},
		{"body", base64.StdEncoding.EncodeToString(d.Body())},
	}
}

func newMessageShow(a *app) *cobra.Command {
	var wait, stale time.Duration
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell where a message is, what happened to it, and why it is not running now",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.Show(cmd.Context(), given[0], wait, client.Stale(stale))
				if err != nil {
					return err
				}
				o := objectOf(r.GetMessage(), r.GetFreshness())
				if p.format == "table" {
					o = o.readable(r.GetMessage().GetBody())
				}
				return p.one(o, "id")
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "until it has ended: up to 60s")
	addStale(cmd, &stale)
	return cmd
}

func newMessageWait(a *app) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until a message has ended, and print it; exits with 1 unless it is finished",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				ctx := cmd.Context()
				if timeout > 0 {
					short, cancel := context.WithTimeout(ctx, timeout)
					defer cancel()
					ctx = short
				}
				m, err := c.Wait(ctx, given[0])
				if errors.Is(err, context.DeadlineExceeded) && exitCode(err) == exitFailed { // not that nobody could be asked
					return fmt.Errorf("message %s has not ended within %s: see why with 'comanda message show %s'", given[0], timeout, given[0])
				}
				if err != nil {
					return err
				}
				o := objectOf(m)
				if p.format == "table" {
					o = o.readable(m.GetBody())
				}
				if err := p.one(o, "state"); err != nil {
					return err
				}
				if m.GetState() != "finished" {
					return fmt.Errorf("message %s is %s: %s", m.GetId(), m.GetState(), cmp.Or(m.GetReason(), "it was not done"))
				}
				return nil
			})
		},
	}
	cmd.Flags().Var((*spanFlag)(&timeout), "timeout", "give up after this time (default: never)")
	return cmd
}

func newMessageList(a *app) *cobra.Command {
	var o client.ListOptions
	var every, plan bool
	cmd := &cobra.Command{
		Use:     "list QUEUE | list --all-queues",
		Short:   "List messages by state, key, type and time; it changes nothing",
		Example: "  comanda message list orders --state dead --since 1h\n  comanda message list --all-queues --key customer-7",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			queue := client.AllQueues
			switch {
			case every == (len(given) == 1):
				return usageError(errors.New("want: a QUEUE, or --all-queues"))
			case !every:
				queue = given[0]
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.List(cmd.Context(), queue, o)
				if err != nil {
					return err
				}
				if plan {
					return p.one(append(objectOf(r.GetPlan()), field{"messages", len(r.GetMessages())}, field{"next_page", r.GetNextPage()}), "index")
				}
				columns := []string{"id", "state", "key", "type", "attempts", "sent_at", "worker", "reason"}
				if every {
					columns = slices.Insert(columns, 1, "queue")
				}
				if err := p.many(objectsOf(r.GetMessages(), r.GetFreshness()), columns...); err != nil {
					return err
				}
				sayAge(cmd, p, o.Stale, r.GetFreshness())
				if !every && p.format == "table" && o.State == "" && o.Key == "" {
					sayOthers(cmd, c, queue, o.Stale)
				}
				if r.GetNextPage() != "" {
					cmd.PrintErrf("%d rows were looked at, %d are listed. There is more: --page %s\n", r.GetPlan().GetRows(), len(r.GetMessages()), r.GetNextPage())
				}
				return nil
			})
		},
	}
	addStale(cmd, &o.Stale)
	f := cmd.Flags()
	f.StringVar(&o.State, "state", "", "ready, scheduled, leased, dead, finished, expired or cancelled (default ready or, with --key, all that have not ended)")
	f.StringVar(&o.Key, "key", "", "only messages of this key")
	f.StringVar(&o.Type, "type", "", "only messages of this type; there is no index, so rows are looked at and left out")
	f.StringVar(&o.Tenant, "tenant", "", "only messages of this tenant; there is no index either")
	f.Var((*pastFlag)(&o.Since), "since", "sent then or later: a time as 2026-01-31T18:00:00Z, or how long ago as 90s")
	f.Var((*pastFlag)(&o.Until), "until", "sent before then: a time, or how long ago")
	f.BoolVar(&every, "all-queues", false, "of every queue")
	f.BoolVar(&plan, "plan", false, "print the index that it goes by and the rows that it looked at instead")
	f.IntVar(&o.Max, "max", 0, "at most so many: 1 to 1000 (default 100)")
	f.StringVar(&o.Page, "page", "", "go on from where a list before ended")
	return cmd
}

// sayOthers tells a person who was shown ready messages what else a queue has.
func sayOthers(cmd *cobra.Command, c *client.Client, queue string, stale time.Duration) {
	r, err := c.Queue(cmd.Context(), queue, client.Stale(stale))
	if err != nil {
		cmd.PrintErrf("These are the ready ones; what else the queue has is not known now: %v\n", err)
		return
	}
	others := r.GetQueue().GetCounts()
	others.Ready = 0
	if words := countWords(others); words != "" {
		cmd.PrintErrf("These are the ready ones. The queue also has %s: --state\n", words)
	}
}

// pastFlag is a time in a flag: RFC 3339, or a duration before now.
type pastFlag time.Time

func (t *pastFlag) Set(text string) error {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		*t = pastFlag(time.Now().Add(-d))
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("want a time as 2026-01-31T18:00:00Z, or how long ago as 90s")
	}
	*t = pastFlag(at)
	return nil
}

func (t *pastFlag) String() string { return (*timeFlag)(t).String() }

func (*pastFlag) Type() string { return "time" }

func newMessageCancel(a *app) *cobra.Command {
	var o client.CancelOptions
	cmd := &cobra.Command{
		Use: "cancel ID…", Short: "End messages that nobody wants done any more; workers that hold them are told", Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				results, failed := c.Cancel(cmd.Context(), given, o)
				if results == nil {
					return failed
				}
				os := make([]object, len(results))
				for i, r := range results {
					os[i] = object{{"id", r.ID}, {"state", r.State}}
					if r.Err != nil {
						os[i] = append(os[i], field{"error", r.Err.Error()})
					}
				}
				if err := p.many(os, "id", "state", "error"); err != nil {
					return err
				}
				return failed
			})
		},
	}
	cmd.Flags().BoolVar(&o.Force, "force", false, "end the lease of a worker that does not give the message back")
	cmd.Flags().DurationVar(&o.Grace, "grace", 0, "with --force: how long the worker has, up to 1h")
	return cmd
}

func newMessageRedrive(a *app) *cobra.Command {
	var reset bool
	cmd := &cobra.Command{
		Use: "redrive ID…", Short: "Revive dead messages where they are", Args: args(cobra.MinimumNArgs(1)),
		Long: "Revive the dead messages with these ids where they are, at once. For those that a filter chooses: 'comanda queue redrive QUEUE'.",
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				results, failed := c.Redrive(cmd.Context(), given, reset)
				if results == nil {
					return failed
				}
				os := make([]object, len(results))
				for i, r := range results {
					os[i] = object{{"id", r.ID}, {"redriven", r.Err == nil}}
					if r.Err != nil {
						os[i] = append(os[i], field{"error", r.Err.Error()})
					}
				}
				if err := p.many(os, "id", "redriven", "error"); err != nil {
					return err
				}
				return failed
			})
		},
	}
	cmd.Flags().BoolVar(&reset, "reset-attempts", false, "count attempts from 0 again")
	return cmd
}
