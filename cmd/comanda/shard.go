package main

import (
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/comanda-mq/comanda/client"
)

func newShard(a *app) *cobra.Command {
	var queue, page string
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List shards, their ranges, leaders and counts", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.Shards(cmd.Context(), queue, limit, page)
				if err != nil {
					return err
				}
				err = p.many(objectsOf(r.GetShards()), "id", "from", "to", "group", "leader",
					"counts.ready", "counts.scheduled", "counts.leased", "counts.dead", "counts.finished")
				if err != nil {
					return err
				}
				return sayMore(cmd, r.GetNextPage())
			})
		},
	}
	list.Flags().StringVar(&queue, "queue", "", "only this queue's")
	list.Flags().IntVar(&limit, "max", 0, "those of at most so many queues: 1 to 1000 (default 100)")
	list.Flags().StringVar(&page, "page", "", "go on from where a list before ended")
	return noun("shard", "Look at shards", list)
}

// objectsOf makes an object of each message.
func objectsOf[M proto.Message](ms []M) []object {
	os := make([]object, len(ms))
	for i, m := range ms {
		os[i] = objectOf(m)
	}
	return os
}

// sayMore tells how to go on with a list; not on standard output, which is for
// what was asked.
func sayMore(cmd *cobra.Command, next string) error {
	if next != "" {
		cmd.PrintErrf("There is more: --page %s\n", next)
	}
	return nil
}
