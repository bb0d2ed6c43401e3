package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
)

// settleVerb is a command that settles the lease of its token as s says.
func (a *app) settleVerb(use, short string, s *client.Settlement) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				s.Token = given[0]
				results, err := c.Settle(cmd.Context(), []client.Settlement{*s})
				if err != nil {
					return err
				}
				r := results[0]
				return p.one(object{{"state", r.State}, {"already_done", r.AlreadyDone}}, "state")
			})
		},
	}
}

func newMessageAck(a *app) *cobra.Command {
	return a.settleVerb("ack TOKEN", "Say that a message is done", &client.Settlement{Action: client.ActionAck})
}

func newMessageNack(a *app) *cobra.Command {
	s := &client.Settlement{Action: client.ActionNack}
	cmd := a.settleVerb("nack TOKEN", "Say that the attempt failed: the message is tried again", s)
	cmd.Flags().StringVar(&s.Error, "error", "", "what went wrong, for the message's history")
	cmd.Flags().DurationVar(&s.Delay, "delay", 0, "instead of the queue's backoff")
	return cmd
}

func newMessageReject(a *app) *cobra.Command {
	s := &client.Settlement{Action: client.ActionReject}
	cmd := a.settleVerb("reject TOKEN", "Say that a message can't be handled: it is dead at once", s)
	cmd.Flags().StringVar(&s.Error, "error", "", "what is wrong with it, for the message's history")
	return cmd
}

func newMessageRelease(a *app) *cobra.Command {
	s := &client.Settlement{Action: client.ActionRelease}
	cmd := a.settleVerb("release TOKEN", "Give a message back without counting an attempt", s)
	cmd.Flags().DurationVar(&s.Delay, "delay", 0, "before it is ready again")
	return cmd
}

func newMessageExtend(a *app) *cobra.Command {
	s := &client.Settlement{Action: client.ActionExtend}
	cmd := a.settleVerb("extend TOKEN", "Make a lease end later", s)
	cmd.Flags().DurationVar(&s.Lease, "lease", 30*time.Second, "its length from now: 1s to 12h")
	return cmd
}
