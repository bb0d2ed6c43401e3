package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

const (
	drainWithin = 10 * time.Minute       // unless --timeout says otherwise
	drainLook   = 200 * time.Millisecond // between two looks at a node that drains
	groupVoters = 3                      // that a group has in a cluster of so many nodes
)

func newNode(a *app) *cobra.Command {
	return noun("node", "Look at the cluster's nodes, drain and remove them", newNodeList(a), newNodeDrain(a), newNodeRemove(a))
}

func newNodeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the nodes: how they fare, what they lead and hold, which replicas are behind", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				nodes, err := c.Nodes(cmd.Context())
				if err != nil {
					return err
				}
				os := objectsOf(nodes)
				if p.format == "table" {
					for i, n := range nodes {
						os[i].set("behind", behindWords(n))
					}
				}
				return p.many(os, "name", "id", "state", "draining", "leads", "replicas", "listen", "advertise", "version", "behind")
			})
		},
	}
}

func newNodeDrain(a *app) *cobra.Command {
	var undo bool
	timeout := drainWithin
	cmd := &cobra.Command{
		Use:   "drain NAME",
		Short: "Move all that a node leads and holds to others, and wait until it is done",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				n, err := c.DrainNode(cmd.Context(), given[0], undo)
				if err != nil {
					return err
				}
				if !undo {
					if n, err = drained(cmd.Context(), c, given[0], time.After(timeout), func(n *comandav1.Node) {
						cmd.PrintErrf("%s leads %d groups and holds %d replicas\n", n.GetName(), n.GetLeads(), n.GetReplicas())
					}); err != nil {
						return err
					}
				}
				return p.one(objectOf(n), "name")
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "take a drain back")
	cmd.Flags().Var((*spanFlag)(&timeout), "timeout", "wait so long; the drain itself goes on")
	return cmd
}

// drained waits until a node leads and holds nothing, or until end, and tells of
// each step.
func drained(ctx context.Context, c *client.Client, name string, end <-chan time.Time, tell func(*comandav1.Node)) (*comandav1.Node, error) {
	look := time.NewTicker(drainLook)
	defer look.Stop()
	var last *comandav1.Node
	others := 0
	for {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return nil, err
		}
		var n *comandav1.Node
		able := 0
		for _, x := range nodes {
			if x.GetName() == name {
				n = x
			} else if x.GetState() == "alive" && !x.GetDraining() {
				able++
			}
		}
		if n.GetDraining() { // else the server that was asked has not heard of it yet
			if n.GetLeads() != last.GetLeads() || n.GetReplicas() != last.GetReplicas() || last == nil {
				tell(n)
			}
			if n.GetLeads() == 0 && n.GetReplicas() == 0 {
				return n, nil
			}
			last, others = n, able
		}
		select {
		case <-look.C:
		case <-end:
			return nil, undrained(last, name, others)
		}
	}
}

// undrained says why a drain takes longer than somebody wanted to wait.
func undrained(n *comandav1.Node, name string, others int) error {
	why := fmt.Sprintf("node %s still leads %d groups and holds %d replicas; it goes on, look with 'comanda node list'", name, n.GetLeads(), n.GetReplicas())
	if n.GetReplicas() > 0 && others < groupVoters {
		why += fmt.Sprintf(": %d of the others can take something, and groups keep as many voters as they have, so let another node join, or take the drain back with --undo", others)
	}
	return fmt.Errorf("%s", why)
}

func newNodeRemove(a *app) *cobra.Command {
	var oneDisk bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a node out of the cluster for good; drain it first, unless it is lost",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				if err := c.RemoveNode(cmd.Context(), given[0], oneDisk); err != nil {
					return err
				}
				return p.one(object{{"name", given[0]}, {"removed", true}}, "name")
			})
		},
	}
	cmd.Flags().BoolVar(&oneDisk, "accept-one-disk", false, "groups for whose voter there is no other node go on with one voter: what they confirm then is on one disk")
	return cmd
}
