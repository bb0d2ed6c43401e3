package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Show tells all that is known of a message.
func (g *Gateway) Show(ctx context.Context, id message.ID, o message.ReadOptions, wait time.Duration) (message.Shown, message.Freshness, error) {
	var none message.Freshness
	q, err := g.queueNumber(ctx, id.Queue())
	if q == nil {
		if err := g.authorize(ctx, auth.Read, ""); err != nil {
			return message.Shown{}, none, err
		}
		if err == nil {
			err = message.Errorf(message.MessageNotFound, "message %s is of a queue that does not exist here", id)
		}
		return message.Shown{}, none, err
	}
	if err := g.authorize(ctx, auth.Read, q.Name); err != nil {
		return message.Shown{}, none, err
	}
	if wait > 0 {
		return message.Shown{}, none, message.Errorf(message.Unimplemented, "waiting for a message's end is not built yet: ask without wait")
	}
	var a queue.Answer
	var fresh message.Freshness
	err = g.routed(ctx, func() (err error) {
		if q, err = g.queueNumber(ctx, id.Queue()); err == nil && q != nil {
			a, fresh, err = g.read(ctx, q.Shard(id.Point().Cell()).Group, queue.Query{Show: &id}, o.Stale)
		}
		return err
	})
	if err != nil {
		return message.Shown{}, fresh, err
	}
	if a.Message == nil {
		return message.Shown{}, fresh, message.Errorf(message.MessageNotFound, "message %s is not known: it never was, or it finished too long ago (keep_finished)", id)
	}
	out := shown(q, a.Message)
	out.Timeline = timeline(a.Message)
	return out, fresh, nil
}

// place is where a list stopped.
type place struct {
	Group uint64 `json:"g"`
	Cell  int    `json:"c"`
	Key   []byte `json:"k"`
}

// pageBytes ends a page of a list before the next group: each gives about as much
// at the most.
const pageBytes = 4 << 20

func size(ms []message.Shown) (n int) {
	for i := range ms {
		n += message.MessageOverhead + len(ms[i].Key) + len(ms[i].Type) + len(ms[i].LastError)
		for _, a := range ms[i].Attributes {
			n += len(a.Name) + len(a.Value)
		}
	}
	return n
}

// List lists messages of one state. It changes nothing.
func (g *Gateway) List(ctx context.Context, name string, o message.ListOptions) (message.Listed, error) {
	if err := g.authorize(ctx, auth.Read, name); err != nil {
		return message.Listed{}, err
	}
	if err := checkLimit(o.Max); err != nil {
		return message.Listed{}, err
	}
	from, err := readPage(o.Page)
	if err != nil {
		return message.Listed{}, err
	}
	var out message.Listed
	err = g.routed(ctx, func() error {
		q, err := g.queue(ctx, name)
		if err == nil {
			out, err = g.list(ctx, q, o, from)
		}
		return err
	})
	return out, err
}

func (g *Gateway) list(ctx context.Context, q *catalog.Queue, o message.ListOptions, from place) (out message.Listed, err error) {
	groups := groupsOf(q)
	start := max(slices.Index(groups, from.Group), 0)
	for i, id := range groups[start:] {
		if i > 0 && size(out.Messages) >= pageBytes {
			out.NextPage = writePage(place{Group: id})
			break
		}
		cursor := queue.Cursor{}
		if id == from.Group {
			cursor = queue.Cursor{Cell: from.Cell, Key: from.Key}
		}
		next, more, err := g.listGroup(ctx, q, id, o, cursor, &out)
		if err != nil {
			return message.Listed{}, err
		}
		if more {
			out.NextPage = writePage(place{id, next.Cell, next.Key})
			break
		}
	}
	return out, nil
}

func (g *Gateway) listGroup(ctx context.Context, q *catalog.Queue, id uint64, o message.ListOptions, from queue.Cursor, out *message.Listed) (next queue.Cursor, more bool, err error) {
	list := queue.ListQuery{Queue: q.Number, State: o.State, From: from, Limit: o.Max - len(out.Messages)}
	a, fresh, err := g.read(ctx, id, queue.Query{List: &list, Cells: cellsIn(q, id)}, o.Stale)
	if err != nil {
		return next, false, err
	}
	out.Freshness = older(out.Freshness, fresh)
	for _, d := range a.Messages {
		out.Messages = append(out.Messages, shown(q, d))
	}
	return a.Next, a.More || len(out.Messages) >= o.Max, nil
}

// older is how fresh an answer is that was made of two.
func older(a, b message.Freshness) message.Freshness {
	if a.ServedBy == "" || b.Age > a.Age || (b.Age == a.Age && b.Role == "follower") {
		return b
	}
	return a
}

func groupsOf(q *catalog.Queue) (ids []uint64) {
	for i := range q.Shards {
		if id := q.Shards[i].Group; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// cellsIn are the cells of a queue in a group, a bit each.
func cellsIn(q *catalog.Queue, group uint64) (cells uint32) {
	for i := range q.Shards {
		if s := &q.Shards[i]; s.Group == group {
			for n := s.From; n <= s.To; n++ {
				cells |= 1 << n
			}
		}
	}
	return cells
}

func readPage(s string) (p place, err error) {
	if s == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || p.Cell < 0 || p.Cell >= message.Cells || len(p.Key) > 64 {
		return p, message.Errorf(message.InvalidArgument, "page is not one that a list gave: use next_page as it came")
	}
	return p, nil
}

func writePage(p place) string {
	b, _ := json.Marshal(p) //nolint:errchkjson // numbers and bytes always encode
	return base64.RawURLEncoding.EncodeToString(b)
}
