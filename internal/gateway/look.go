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
func (g *Gateway) Show(ctx context.Context, id message.ID, wait time.Duration) (message.Shown, message.Freshness, error) {
	q, ok := g.queueNumber(id.Queue())
	if !ok {
		if err := g.authorize(ctx, auth.Read, ""); err != nil {
			return message.Shown{}, message.Freshness{}, err
		}
		return message.Shown{}, message.Freshness{}, message.Errorf(message.MessageNotFound, "message %s is of a queue that does not exist here", id)
	}
	if err := g.authorize(ctx, auth.Read, q.Name); err != nil {
		return message.Shown{}, message.Freshness{}, err
	}
	if wait > 0 {
		return message.Shown{}, message.Freshness{}, message.Errorf(message.Unimplemented, "waiting for a message's end is not built yet: ask without wait")
	}
	gr, err := g.group(q.Shard(id.Point().Cell()).Group)
	if err != nil {
		return message.Shown{}, message.Freshness{}, err
	}
	var out message.Shown
	err = gr.Read(ctx, func(rows queue.Reader) error {
		d, ok := queue.Show(rows, id)
		if !ok {
			return message.Errorf(message.MessageNotFound, "message %s is not known: it never was, or it finished too long ago (keep_finished)", id)
		}
		out = shown(q, d)
		out.Timeline = timeline(d)
		return nil
	})
	return out, g.freshness(), err
}

// place is where a list stopped.
type place struct {
	Group uint64 `json:"g"`
	Cell  int    `json:"c"`
	Key   []byte `json:"k"`
}

// List lists messages of one state. It changes nothing.
func (g *Gateway) List(ctx context.Context, name string, o message.ListOptions) (message.Listed, error) {
	if err := g.authorize(ctx, auth.Read, name); err != nil {
		return message.Listed{}, err
	}
	if o.Max < 1 || o.Max > message.MaxBatch {
		return message.Listed{}, message.Errorf(message.InvalidArgument, "max is %d: want 1 to %d", o.Max, message.MaxBatch)
	}
	q, err := g.queue(name)
	if err != nil {
		return message.Listed{}, err
	}
	from, err := readPage(o.Page)
	if err != nil {
		return message.Listed{}, err
	}
	out := message.Listed{Freshness: g.freshness()}
	groups := groupsOf(q)
	start := max(slices.Index(groups, from.Group), 0)
	for _, id := range groups[start:] {
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
	gr, err := g.group(id)
	if err != nil {
		return next, false, err
	}
	err = gr.Read(ctx, func(rows queue.Reader) error {
		info, _ := queue.Queue(rows, q.Number)
		var ds []*queue.Detail
		ds, next, more = queue.List(rows, &info, o.State, from, o.Max-len(out.Messages))
		for _, d := range ds {
			out.Messages = append(out.Messages, shown(q, d))
		}
		return nil
	})
	return next, more || (err == nil && len(out.Messages) >= o.Max), err
}

func groupsOf(q *catalog.Queue) (ids []uint64) {
	for i := range q.Shards {
		if id := q.Shards[i].Group; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
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
