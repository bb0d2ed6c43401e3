package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
)

// maxTop is how many queues a look at them has: each is asked for by itself.
const maxTop = 100

var moreQueues = fmt.Sprintf("There are more queues: --max, up to %d", maxTop)

func newTop(a *app) *cobra.Command {
	var looks looks
	var t top
	cmd := &cobra.Command{
		Use: "top", Short: "Show the queues again and again: rates, what is ready, leased and dead, the oldest age", Args: args(cobra.NoArgs),
		Long: "Show the queues by name, again and again, until it is interrupted. A terminal is drawn anew each time;\n" +
			"elsewhere the tables follow one another. Rates are those since the look before.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if t.limit < 1 || t.limit > maxTop {
				return usageError(fmt.Errorf("--max is %d: want 1 to %d", t.limit, maxTop))
			}
			return a.call(cmd, func(c *client.Client, p printer) error {
				out := p.out
				if p.format == "json" {
					p.format = "jsonl"
				}
				return looks.repeat(cmd.Context(), func(bool) error {
					queues, more, err := t.look(cmd.Context(), c)
					if err != nil {
						return err
					}
					var screen bytes.Buffer // drawn at once, or it flickers
					p.out = &screen
					if err := p.many(queues, "name", "sent_per_s", "delivered_per_s", "finished_per_s", "failed_per_s", "ready", "leased", "dead", "oldest_age", "receivers"); err != nil {
						return err
					}
					if p.format == "table" {
						if more {
							fmt.Fprintln(&screen, moreQueues)
						}
						fmt.Fprintln(&screen)
					} else if more {
						cmd.PrintErrln(moreQueues)
					}
					if p.format == "table" && terminal(out) {
						_, err = fmt.Fprintf(out, "\x1b[H\x1b[2J%s  every %s\n\n%s", time.Now().Format(time.TimeOnly), looks.every, screen.Bytes())
					} else {
						_, err = out.Write(screen.Bytes())
					}
					return err
				})
			})
		},
	}
	looks.add(cmd)
	cmd.Flags().IntVar(&t.limit, "max", 40, "at most so many queues: 1 to 100")
	return cmd
}

// top is what was seen of the queues when they were looked at last.
type top struct {
	limit    int
	watchers map[string]*watcher // by name
}

// look looks at the first queues by name; more: there are others.
func (t *top) look(ctx context.Context, c *client.Client) (queues []object, more bool, err error) {
	list, err := c.Queues(ctx, t.limit, "")
	if err != nil {
		return nil, false, err
	}
	watchers := map[string]*watcher{}
	for _, q := range list.GetQueues() {
		name := q.GetName()
		r, err := c.Queue(ctx, name)
		if client.CodeOf(err) == client.CodeQueueNotFound {
			continue // deleted since
		}
		if err != nil { // of its groups alone, maybe: the others are shown
			queues = append(queues, object{{"name", name}, {"error", err.Error()}})
			continue
		}
		if watchers[name] = t.watchers[name]; watchers[name] == nil {
			watchers[name] = &watcher{}
		}
		queues = append(queues, watchers[name].watched(r.GetQueue()))
	}
	t.watchers = watchers
	return queues, list.GetNextPage() != "", nil
}

// terminal says whether somebody looks at what is written.
func terminal(out any) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
