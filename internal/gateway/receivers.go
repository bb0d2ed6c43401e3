package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// receivers asks the leaders of the queue's groups who receives from it.
func (g *Gateway) receivers(ctx context.Context, q *catalog.Queue) (all message.Receivers, err error) {
	r := g.retry(ctx)
	for _, id := range groupsOf(q) {
		here, err := g.receiversOnce(ctx, id, q.Number)
		for err != nil && movable(err) && r.again() {
			here, err = g.receiversOnce(ctx, id, q.Number)
		}
		if err != nil {
			return all, err
		}
		all.Waiting = max(all.Waiting, here.Waiting) // each waits at all of them
		all.Busy = max(all.Busy, here.Busy)          // at least so many
		if here.Last.After(all.Last) {
			all.Last = here.Last
		}
	}
	return all, nil
}

func (g *Gateway) receiversOnce(ctx context.Context, group uint64, number uint32) (message.Receivers, error) {
	gr, err := g.o.Leader(group)
	if err != nil {
		return message.Receivers{}, err
	}
	return gr.Receivers(ctx, number)
}

// quiet is how long nobody asked for messages when no worker is said to be there.
const quiet = 10 * time.Second

// unserved says why nobody takes a message that could go out; empty: somebody is
// about to, or it is not known.
func (g *Gateway) unserved(ctx context.Context, q *catalog.Queue, group uint64) string {
	who, err := g.receiversOnce(ctx, group, q.Number)
	switch {
	case err != nil || who.Waiting > 0:
		return ""
	case who.Busy == 1:
		return "ready: the queue's one worker is busy"
	case who.Busy > 1:
		return fmt.Sprintf("ready: the queue's %d workers are busy", who.Busy)
	case who.Last.IsZero():
		return "no worker is connected: nobody receives from queue " + q.Name
	case g.o.Clock.Now().Sub(who.Last) > quiet:
		return fmt.Sprintf("no worker is connected: nobody receives from queue %s, the last one did at %s", q.Name, stamp(who.Last.UnixMilli()))
	}
	return ""
}

// leaderless adds to the error of a read that its group has no majority, if that
// is so.
func (g *Gateway) leaderless(ctx context.Context, group uint64, err error) error {
	if message.CodeOf(err) != message.Unavailable || ctx.Err() != nil {
		return err
	}
	st, ok := g.o.Status(ctx, group)
	if !ok || st.Leader != 0 {
		return err
	}
	_, nodes := g.members(ctx, group)
	slices.Sort(nodes)
	return message.Errorf(message.Unavailable, "replica set %d is without a majority: nobody leads it, so its messages can be neither read nor handed out until more of its nodes are back (%s)", group, strings.Join(nodes, ", "))
}
