package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

func newQueueWatch(a *app) *cobra.Command {
	var every time.Duration
	var rounds int
	cmd := a.queueVerb("watch QUEUE", "Show counts, the oldest age and rates again and again, until it is interrupted", func(cmd *cobra.Command, c *client.Client, p printer, queue string) error {
		if every < 100*time.Millisecond {
			return usageError(fmt.Errorf("--every %s: want 100ms or more", every))
		}
		if rounds < 0 {
			return usageError(fmt.Errorf("--count is %d: want 1 or more", rounds))
		}
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		var last *comandav1.Queue
		var lastAt time.Time
		for i := 0; ; i++ {
			r, err := c.Queue(cmd.Context(), queue)
			if err != nil {
				return err
			}
			now := time.Now()
			if err := p.look(watched(last, r.GetQueue(), now.Sub(lastAt)), i == 0); err != nil {
				return err
			}
			last, lastAt = r.GetQueue(), now
			if i+1 == rounds {
				return nil
			}
			select {
			case <-ticks.C:
			case <-cmd.Context().Done():
				return nil
			}
		}
	})
	cmd.Example = "  comanda queue watch orders\n  comanda queue watch orders -o jsonl --every 10s >> orders.jsonl"
	cmd.Flags().DurationVar(&every, "every", time.Second, "how often")
	cmd.Flags().IntVar(&rounds, "count", 0, "so often and no more (default: until it is interrupted)")
	return cmd
}

// watched is a look at a queue, with rates since the one before. Rates are missing
// in the first, and seconds_to_drain where nothing gets less.
func watched(last, q *comandav1.Queue, since time.Duration) object {
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
