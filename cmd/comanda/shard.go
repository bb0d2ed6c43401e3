package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newShard(a *app) *cobra.Command {
	return noun("shard", "Look at shards, split and move them", newShardList(a), newShardSplit(a), newShardMove(a))
}

func newShardList(a *app) *cobra.Command {
	var queue, page string
	var limit int
	var stale time.Duration
	var tree bool
	cmd := &cobra.Command{
		Use: "list", Short: "List shards, their ranges, leaders and counts", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(c *client.Client, p printer) error {
				if tree && p.format != "table" {
					return usageError(fmt.Errorf("--tree is drawn for people: leave out -o %s", p.format))
				}
				r, err := c.Shards(cmd.Context(), queue, limit, page, client.Stale(stale))
				if err != nil {
					return err
				}
				if tree {
					err = p.table(drawTrees(r.GetShards()))
				} else {
					err = printShards(p, r.GetShards(), r.GetFreshness())
				}
				if err != nil {
					return err
				}
				sayAge(cmd, p, stale, r.GetFreshness())
				return sayMore(cmd, r.GetNextPage())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&queue, "queue", "", "only this queue's")
	f.BoolVar(&tree, "tree", false, "draw how they came from one another by splits")
	f.IntVar(&limit, "max", 0, "those of at most so many queues: 1 to 1000 (default 100)")
	f.StringVar(&page, "page", "", "go on from where a list before ended")
	addStale(cmd, &stale)
	return cmd
}

func newShardSplit(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "split QUEUE/PATH",
		Short:   "Make two shards of one, in the middle of its messages, while it is used",
		Example: "  comanda shard split orders/0",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			queue, path, err := splitShardID(given[0])
			if err != nil {
				return err
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				r, err := c.SplitShard(cmd.Context(), queue, path)
				if err != nil {
					return err
				}
				return printShards(p, r.GetShards())
			})
		},
	}
}

// splitShardID takes QUEUE/PATH apart.
func splitShardID(id string) (queue, path string, err error) {
	queue, path, ok := strings.Cut(id, "/")
	if !ok {
		err = usageError(fmt.Errorf("%q names no shard: give QUEUE/PATH as 'comanda shard list' shows it", id))
	}
	return queue, path, err
}

func printShards(p printer, shards []*comandav1.Shard, each ...proto.Message) error {
	return p.many(objectsOf(shards, each...), "id", "from", "to", "group", "leader",
		"counts.ready", "counts.scheduled", "counts.leased", "counts.dead", "counts.finished")
}

// branch is a shard, or one that was split into those above it.
type branch struct {
	name   string
	shard  *comandav1.Shard
	splits []*branch
}

// towards finds or makes the branch for one step of a path.
func (b *branch) towards(name string) *branch {
	for _, s := range b.splits {
		if s.name == name {
			return s
		}
	}
	s := &branch{name: name}
	b.splits = append(b.splits, s)
	return s
}

// drawTrees are the rows of a table with a tree for each queue. The shards of a
// queue follow one another.
func drawTrees(shards []*comandav1.Shard) [][]string {
	rows := [][]string{{"SHARD", "FROM", "TO", "GROUP", "LEADER", "FOLLOWERS", "WAITING", "LEASED", "DEAD"}}
	width := len(rows[0])
	forest := &branch{}
	for _, s := range shards {
		at := forest.towards(s.GetQueue())
		path := strings.TrimPrefix(s.GetId(), s.GetQueue()+"/")
		name := ""
		for step := range strings.SplitSeq(path, ".") {
			name = strings.TrimPrefix(name+"."+step, ".")
			at = at.towards(name)
		}
		at.shard = s
	}
	for _, queue := range forest.splits {
		rows = append(rows, []string{queue.name})
		rows = draw(rows, "", queue.splits)
	}
	for i, row := range rows { // a line without cells would end the columns
		rows[i] = append(row, make([]string, width-len(row))...)
	}
	return rows
}

func draw(rows [][]string, indent string, branches []*branch) [][]string {
	for i, b := range branches {
		fork, below := "├─ ", "│  "
		if i == len(branches)-1 {
			fork, below = "└─ ", "   "
		}
		row := []string{indent + fork + b.name}
		if s := b.shard; s != nil {
			n := s.GetCounts()
			row = append(row, s.GetFrom(), s.GetTo(), fmt.Sprint(s.GetGroup()), s.GetLeader(), strings.Join(s.GetFollowers(), ","),
				fmt.Sprint(n.GetReady()+n.GetScheduled()), fmt.Sprint(n.GetLeased()), fmt.Sprint(n.GetDead()))
		}
		rows = draw(append(rows, row), indent+below, b.splits)
	}
	return rows
}

// objectsOf makes an object of each message, with the fields of what holds for
// each of them.
func objectsOf[M proto.Message](ms []M, each ...proto.Message) []object {
	os := make([]object, len(ms))
	for i, m := range ms {
		os[i] = append(objectOf(m), objectOf(each...)...)
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

func addStale(cmd *cobra.Command, d *time.Duration) {
	cmd.Flags().DurationVar(d, "stale", 0, "let any replica answer with what is at most so old: up to 60s (default: all that was confirmed)")
}

// sayAge tells a person who asked for it who gave a list, and how old it is; the
// other formats have it in each object.
func sayAge(cmd *cobra.Command, p printer, asked time.Duration, f *comandav1.Freshness) {
	if asked > 0 && p.format == "table" {
		cmd.PrintErrf("Served by %s (%s), at most %d ms old.\n", f.GetServedBy(), f.GetRole(), f.GetAgeMs())
	}
}
