package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newQueueWatch(a *app) *cobra.Command {
	var looks looks
	cmd := a.queueVerb("watch QUEUE", "Show counts, the oldest age and rates again and again, until it is interrupted", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		var w watcher
		return looks.repeat(cmd.Context(), func(first bool) error {
			r, err := c.Queue(cmd.Context(), queue)
			if err != nil {
				return err
			}
			return p.look(w.watched(r.GetQueue()), first)
		})
	})
	cmd.Example = "  comanda queue watch orders\n  comanda queue watch orders -o jsonl --every 10s >> orders.jsonl"
	looks.add(cmd)
	return cmd
}

// looks say how often somebody looks.
type looks struct {
	every time.Duration
	count int
}

func (l *looks) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&l.every, "every", time.Second, "how often")
	cmd.Flags().IntVar(&l.count, "count", 0, "so often and no more (default: until it is interrupted)")
}

// repeat looks again and again, until it fails or ctx ends.
func (l *looks) repeat(ctx context.Context, look func(first bool) error) error {
	if l.every < 100*time.Millisecond {
		return usageError(fmt.Errorf("--every %s: want 100ms or more", l.every))
	}
	if l.count < 0 {
		return usageError(fmt.Errorf("--count is %d: want 1 or more", l.count))
	}
	ticks := time.NewTicker(l.every)
	defer ticks.Stop()
	for i := 0; ; i++ {
		if err := look(i == 0); err != nil || i+1 == l.count {
			return err
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// watcher remembers what a queue was like when it was looked at last.
type watcher struct {
	last *comandav1.Queue
	at   time.Time
}

// watched is a look at a queue, with rates since the one before. Rates are missing
// in the first, and seconds_to_drain where nothing gets less.
func (w *watcher) watched(q *comandav1.Queue) object {
	last, since := w.last, time.Since(w.at)
	w.last, w.at = q, time.Now()
	n := q.GetCounts()
	o := object{
		{"at", time.Now().UTC().Format(time.RFC3339)},
		{"name", q.GetName()},
		{"ready", n.GetReady()},
		{"scheduled", n.GetScheduled()},
		{"leased", n.GetLeased()},
		{"dead", n.GetDead()},
		{"oldest_age", q.GetOldestAge().AsDuration().Truncate(time.Millisecond).String()},
		{"receivers", q.GetReceivers()},
	}
	if last == nil || since <= 0 {
		return o
	}
	was, is := last.GetTotals(), q.GetTotals()
	rate := func(was, is int64) float64 { // a purge counts from 0 again
		return float64(int64(10*float64(max(is-was, 0))/since.Seconds()+0.5)) / 10
	}
	done := rate(was.GetFinished(), is.GetFinished())
	o = append(o, field{"sent_per_s", rate(was.GetSent(), is.GetSent())}, field{"delivered_per_s", rate(was.GetDelivered(), is.GetDelivered())},
		field{"finished_per_s", done}, field{"failed_per_s", rate(was.GetFailed(), is.GetFailed())})
	if less := done - rate(was.GetSent(), is.GetSent()); less > 0 {
		o = append(o, field{"seconds_to_drain", int64(float64(n.GetReady()+n.GetLeased())/less + 0.5)})
	}
	return o
}

// watchColumns are those of the table that watch prints, which grows by a line
// each time: what has passed stays to be seen.
var watchColumns = []string{"at", "ready", "scheduled", "leased", "dead", "oldest_age", "receivers", "sent_per_s", "delivered_per_s", "finished_per_s", "failed_per_s", "seconds_to_drain"}

// look prints one look, with the names of the columns if it is the first.
func (p printer) look(o object, first bool) error {
	if p.format != "table" {
		p.format = "jsonl"
		return p.one(o, "name")
	}
	line := func(text func(string) string) error {
		for i, c := range watchColumns {
			width := max(len(c), 9) + 2
			if i == len(watchColumns)-1 {
				width = 0
			}
			if _, err := fmt.Fprintf(p.out, "%-*s", width, text(c)); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(p.out)
		return err
	}
	if first {
		if err := line(func(c string) string { return c }); err != nil {
			return err
		}
	}
	return line(func(c string) string {
		text := cell(o.at(c))
		if at, err := time.Parse(time.RFC3339, text); c == "at" && err == nil {
			return at.Format(time.TimeOnly)
		}
		return text
	})
}
