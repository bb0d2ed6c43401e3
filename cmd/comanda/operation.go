package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

const (
	moveWithin    = 10 * time.Minute       // unless --timeout says otherwise
	operationLook = 200 * time.Millisecond // between two looks at an operation
)

func newShardMove(a *app) *cobra.Command {
	var node string
	var wait bool
	timeout := moveWithin
	cmd := &cobra.Command{
		Use:     "move QUEUE/PATH --to NODE",
		Short:   "Move a shard to a node, which then leads it, while it is used",
		Example: "  comanda shard move orders/0.1 --to node-4 --wait",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			queue, path, err := splitShardID(given[0])
			if err != nil {
				return err
			}
			if node == "" {
				return usageError(errors.New("--to NODE is missing: see 'comanda node list'"))
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				o, err := c.MoveShard(cmd.Context(), queue, path, node)
				if err == nil && wait {
					o, err = ended(cmd.Context(), c, o, time.After(timeout), func(o *comandav1.Operation) {
						cmd.PrintErrf("operation %d waits %s\n", o.GetId(), o.GetWaits())
					})
				}
				if err != nil {
					return err
				}
				return p.one(operationObject(o, p), "id")
			})
		},
	}
	cmd.Flags().StringVar(&node, "to", "", "the node's name")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	cmd.Flags().Var((*spanFlag)(&timeout), "timeout", "with --wait: wait so long; the move itself goes on")
	return cmd
}

// ended waits until an operation has ended, or until end, and tells of each thing
// that it waits for. Unless it is done, the error says why.
func ended(ctx context.Context, c *client.Client, o *comandav1.Operation, end <-chan time.Time, tell func(*comandav1.Operation)) (*comandav1.Operation, error) {
	look := time.NewTicker(operationLook)
	defer look.Stop()
	told := ""
	for {
		switch o.GetState() {
		case "done":
			return o, nil
		case "failed":
			return nil, &client.Error{Code: client.Code(o.GetError().GetCode()), Message: o.GetError().GetMessage()}
		case "cancelled":
			return nil, fmt.Errorf("operation %d was cancelled", o.GetId())
		}
		if o.GetState() == "paused" {
			return nil, fmt.Errorf("operation %d is paused: let it go on with 'comanda operation resume %d'", o.GetId(), o.GetId())
		}
		if o.GetWaits() != "" && o.GetWaits() != told {
			told = o.GetWaits()
			tell(o)
		}
		select {
		case <-look.C:
		case <-end:
			return nil, fmt.Errorf("operation %d (%s) still waits %s; it goes on: look with 'comanda operation show %d', or end it with 'comanda operation cancel %d'", o.GetId(), o.GetTitle(), o.GetWaits(), o.GetId(), o.GetId())
		}
		now, err := c.Operation(ctx, o.GetId())
		if err != nil {
			return nil, err
		}
		o = now
	}
}

// operationObject is an operation; a person sees counts and a rate only where something
// is counted.
func operationObject(o *comandav1.Operation, p printer) object {
	all := objectOf(o)
	if p.format != "table" || o.GetKind() == "redrive" {
		return all
	}
	return slices.DeleteFunc(all, func(f field) bool { return slices.Contains([]string{"chosen", "redriven", "skipped", "rate"}, f.name) })
}

func newOperation(a *app) *cobra.Command {
	return noun("operation", "Look at long jobs of the cluster, stop them for a while, and cancel them", newOperationList(a),
		newOperationChange(a, "pause", "Stop an operation between two steps", (*client.Client).PauseOperation),
		newOperationChange(a, "resume", "Let a paused operation go on", (*client.Client).ResumeOperation),
		newOperationOne(a, "show", "Show what an operation does, and for what it waits", (*client.Client).Operation),
		newOperationChange(a, "cancel", "Let an operation end where it stands; what it has reached stays", (*client.Client).CancelOperation))
}

// newOperationChange is a verb about one operation that tells who asked.
func newOperationChange(a *app, verb, short string, ask func(*client.Client, context.Context, uint64, string) (*comandav1.Operation, error)) *cobra.Command {
	by := hostPID()
	cmd := newOperationOne(a, verb, short, func(c *client.Client, ctx context.Context, id uint64) (*comandav1.Operation, error) {
		return ask(c, ctx, id, by)
	})
	cmd.Flags().StringVar(&by, "by", by, "who asks: 'operation show' tells")
	return cmd
}

func newOperationList(a *app) *cobra.Command {
	var page string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List the operations that are under way, and the last that have ended", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.Operations(cmd.Context(), limit, page)
				if err != nil {
					return err
				}
				if err := p.many(objectsOf(r.GetOperations()), "id", "title", "state", "step", "waits", "error.message", "changed_at"); err != nil {
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

// newOperationOne is a verb about one operation.
func newOperationOne(a *app, verb, short string, ask func(*client.Client, context.Context, uint64) (*comandav1.Operation, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			id, err := strconv.ParseUint(given[0], 10, 64)
			if err != nil {
				return usageError(fmt.Errorf("%q is no operation's number: see 'comanda operation list'", given[0]))
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				o, err := ask(c, cmd.Context(), id)
				if err != nil {
					return err
				}
				return p.one(operationObject(o, p), "id")
			})
		},
	}
}
