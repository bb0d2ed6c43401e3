package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// shown puts what the rows say of a message into words.
func shown(q *catalog.Queue, d *queue.Detail) message.Shown {
	s := message.Shown{
		ID: d.ID, Queue: q.Name, Shard: q.Name + "/" + d.Shard, State: d.State, Reason: reason(q, d),
		Key: d.Key, Type: d.Type, Tenant: d.Tenant, Attributes: d.Attributes, Body: d.Body, BodySize: d.BodySize,
		Attempts: d.Attempts, Deliveries: d.Deliveries, WorkerDeaths: d.Deaths,
		SentAt: time.UnixMilli(d.SentAt), Worker: d.Worker, Priority: int(d.Priority), Retry: d.Retry,
	}
	if d.State == message.Scheduled && d.DueWall > 0 {
		s.ReadyAt = time.UnixMilli(d.DueWall)
	}
	if d.Dedup != nil {
		s.DedupID = d.Dedup.Name
	}
	if d.Unique != nil {
		s.UniqueKey = d.Unique.Name
	}
	if d.Expires > 0 {
		s.Expires = time.UnixMilli(d.Expires)
	}
	for _, a := range d.History {
		if a.Error != "" {
			s.LastError = a.Error
		}
	}
	return s
}

// reason says why a message is not running now; nothing if it is, or is done.
func reason(q *catalog.Queue, d *queue.Detail) string {
	switch d.State {
	case message.Scheduled:
		why := "delayed"
		switch {
		case d.Leaving:
			return "sent with an ack, and on its way to its queue: it goes on when the group of that one can be reached"
		case len(d.History) == 0 && d.At > 0:
			return fmt.Sprintf("to be delivered at %s", stamp(d.At))
		case d.Last() == queue.Released:
			why = "given back by its worker"
		case d.Attempts > 0:
			why = fmt.Sprintf("waits after failed attempt %d", d.Attempts)
		}
		return fmt.Sprintf("%s, scheduled until about %s", why, stamp(d.DueWall))
	case message.Ready:
		switch {
		case d.Paused:
			return q.Pause.String()
		case d.Pause != nil:
			return d.Pause.String()
		case d.Blocker != nil && d.Blocker.State == message.Leased:
			return fmt.Sprintf("its key is held by message %s on worker %s", d.Blocker.ID, d.Blocker.Worker)
		case d.Blocker != nil && d.Blocker.State == message.Scheduled:
			return fmt.Sprintf("its key waits for message %s, which is scheduled until about %s", d.Blocker.ID, stamp(d.Blocker.DueWall))
		case d.Blocker != nil:
			return fmt.Sprintf("its key has an earlier message, %s, which is ready", d.Blocker.ID)
		}
		switch d.Limit {
		case "max_in_flight":
			return fmt.Sprintf("as many messages of the queue are leased as may be: %d (max_in_flight)", q.Settings.MaxInFlight)
		case "rate":
			return fmt.Sprintf("the queue hands out no more than %d messages in %s (rate)", q.Settings.Rate.Count, q.Settings.Rate.Per)
		case "rate_per_key":
			return fmt.Sprintf("the queue hands out no more than %d messages of a key in %s (rate_per_key)", q.Settings.RatePerKey.Count, q.Settings.RatePerKey.Per)
		}
		if d.InTurn {
			return inTurn(d)
		}
		if q.Settings.Assign == message.AssignSingle {
			return "ready: it waits for the one worker that gets the queue's messages; others stand by (assign single)"
		}
		return "ready: it waits for a worker to take it"
	case message.Dead:
		if d.Leaving {
			return "dead, and on its way to another queue: it goes on when the group of that one can be reached"
		}
		switch d.Last() {
		case queue.Rejected:
			return "rejected by its worker"
		case queue.WorkerLost:
			return fmt.Sprintf("worker_lost: dead after %d of its workers died", d.Deaths)
		case queue.Lapsed:
			return fmt.Sprintf("it expired at %s", stamp(d.Expires))
		case queue.Undelivered:
			return "dead: it was to go to another queue, and stays (" + d.History[len(d.History)-1].Error + ")"
		default:
		}
		return fmt.Sprintf("dead after %d failed attempts", d.Attempts)
	case message.Leased:
		if d.Cancelling {
			return "leased: its worker was asked to give it back, for it is to be cancelled"
		}
	case message.Finished, message.Expired, message.Cancelled:
	}
	return ""
}

// inTurn says whose turn a message waits for.
func inTurn(d *queue.Detail) string {
	if d.Tenant == "" {
		return "ready: messages without a tenant wait their turn, for tenants have messages of its priority ready as well"
	}
	return fmt.Sprintf("ready: its tenant %q waits its turn, for others have messages of its priority ready as well", d.Tenant)
}

func stamp(wall int64) string { return time.UnixMilli(wall).UTC().Format("2006-01-02T15:04:05.000Z") }

// timeline unrolls the history: sent, then each lease and how it ended. A message that was
// moved came to where the next move took it from or, with the last, to where it is: q.
// Other queues are named to those who may read them.
func (g *Gateway) timeline(ctx context.Context, q *catalog.Queue, d *queue.Detail) []message.Event {
	moved := -1 // the last event of that kind
	events := []message.Event{{At: time.UnixMilli(d.SentAt), Event: "sent"}}
	for _, a := range d.History {
		if a.LeasedAt > 0 {
			events = append(events, message.Event{At: time.UnixMilli(a.LeasedAt), Event: "leased", Worker: a.Worker, Attempt: a.Number})
		}
		e := message.Event{At: time.UnixMilli(a.EndedAt), Event: a.Outcome.String(), Worker: a.Worker, Attempt: a.Number, Error: a.Error}
		if a.Outcome == queue.Moved {
			if from, ok := g.newest.Load().QueueNumber(a.From); ok && g.authorize(ctx, auth.Read, from.Name) == nil {
				e.From = from.Name
			}
			if moved >= 0 {
				events[moved].To = e.From
			}
			e.To, moved = q.Name, len(events)
		}
		events = append(events, e)
	}
	switch d.State {
	case message.Leased:
		events = append(events, message.Event{At: time.UnixMilli(d.LeasedAt), Event: "leased", Worker: d.Worker, Attempt: d.Attempts + 1})
	case message.Dead:
		last := events[len(events)-1]
		events = append(events, message.Event{At: last.At, Event: "dead", Attempt: last.Attempt})
	case message.Scheduled, message.Ready, message.Finished, message.Expired, message.Cancelled:
	}
	return events
}
