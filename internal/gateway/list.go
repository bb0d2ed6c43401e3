package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// place is where a list stopped. It names no group: the row is where its cell is,
// whatever was split or moved meanwhile.
type place struct {
	Queue string `json:"q,omitempty"` // only in a list of every queue
	Cell  int    `json:"c"`
	Key   []byte `json:"k,omitempty"`
}

// pageBytes ends a page of a list before the next group: each gives about as much
// at the most.
const pageBytes = 4 << 20

func size(ms []message.Shown) (n int) {
	for i := range ms {
		n += message.MessageOverhead + len(ms[i].Key) + len(ms[i].Type) + len(ms[i].Tenant) + len(ms[i].LastError)
		for _, a := range ms[i].Attributes {
			n += len(a.Name) + len(a.Value)
		}
	}
	return n
}

// List lists messages of a queue, or of message.AllQueues. It changes nothing.
func (g *Gateway) List(ctx context.Context, name string, o message.ListOptions) (message.Listed, error) {
	all := name == message.AllQueues
	if all {
		name = ""
	}
	if err := g.authorize(ctx, auth.Read, name); err != nil {
		return message.Listed{}, err
	}
	if err := o.Check(); err != nil {
		return message.Listed{}, err
	}
	from, err := readPage(o.Page)
	if err != nil {
		return message.Listed{}, err
	}
	if o.State == 0 && o.Key == "" {
		o.State = message.Ready
	}
	l := &list{gateway: g, options: o, from: from, every: all}
	if all {
		err = l.everyQueue(ctx)
	} else {
		err = l.oneQueue(ctx, name)
	}
	return l.out, err
}

// list is a list under way.
type list struct {
	gateway *Gateway
	options message.ListOptions
	from    place
	every   bool // queue
	out     message.Listed
}

// full says that the page ends here.
func (l *list) full() bool {
	return len(l.out.Messages) >= l.options.Max || l.out.Plan.Rows >= message.MaxExamined || size(l.out.Messages) >= pageBytes
}

func (l *list) oneQueue(ctx context.Context, name string) error {
	q, err := l.gateway.queue(ctx, name)
	if err == nil {
		err = l.queue(ctx, q)
	}
	return err
}

// everyQueue goes through the queues by name.
func (l *list) everyQueue(ctx context.Context) error {
	v := l.gateway.newest.Load()
	qs := v.Queues(l.from.Queue, message.MaxListedQueues+1)
	if q, ok := v.Queue(l.from.Queue); ok {
		qs = append([]*catalog.Queue{q}, qs...)
	} else {
		l.from = place{} // it was deleted: the next one begins at its begin
	}
	for i, q := range qs {
		if i > 0 && (l.full() || i >= message.MaxListedQueues) {
			l.out.NextPage = writePage(place{Queue: q.Name})
			return nil
		}
		if err := l.queue(ctx, q); err != nil || l.out.NextPage != "" {
			return err
		}
		l.from = place{}
	}
	return nil
}

// queue goes through the cells of one queue, wherever they are by now.
func (l *list) queue(ctx context.Context, q *catalog.Queue) error {
	l.out.Plan.Queues++
	cell, cursor, last := l.from.Cell, l.from.Key, message.Cells-1
	if l.options.Key != "" { // only one can have any
		of := q.Hash(l.options.Key).Point().Cell()
		if cell > of {
			return nil
		}
		if cell < of {
			cell, cursor = of, nil
		}
		last = of
	}
	for begun := false; cell <= last; begun = true {
		if begun && l.full() {
			l.stop(q, cell, nil)
			return nil
		}
		next, more, err := l.run(ctx, &q, cell, cursor, last)
		if err != nil {
			return err
		}
		if more {
			l.stop(q, next.Cell, next.Key)
			return nil
		}
		cell, cursor = next.Cell, nil
	}
	return nil
}

func (l *list) stop(q *catalog.Queue, cell int, key []byte) {
	p := place{Cell: cell, Key: key}
	if l.every {
		p.Queue = q.Name
	}
	l.out.NextPage = writePage(p)
}

// run reads the cells from one on that lie in the same group. next is the cell
// behind them or, with more, where it stopped.
func (l *list) run(ctx context.Context, q **catalog.Queue, cell int, cursor []byte, last int) (next queue.Cursor, more bool, err error) {
	g, o := l.gateway, &l.options
	ask := queue.ListQuery{
		Queue: (*q).Number, State: o.State, From: queue.Cursor{Cell: cell, Key: cursor}, Limit: o.Max - len(l.out.Messages),
		Key: o.Key, Type: o.Type, Tenant: o.Tenant, Since: wallOf(o.Since), Until: wallOf(o.Until), Rows: message.MaxExamined - l.out.Plan.Rows,
	}
	if o.Key != "" {
		ask.Hash = (*q).Hash(o.Key)
	}
	var a queue.Answer
	err = g.routed(ctx, func() error {
		if newer, ok := g.newest.Load().QueueNumber((*q).Number); ok {
			*q = newer
		}
		group := (*q).Shard(cell).Group
		cells := uint32(0)
		for next.Cell = cell; next.Cell <= last && (*q).Shard(next.Cell).Group == group; next.Cell++ {
			cells |= 1 << next.Cell
		}
		var fresh message.Freshness
		a, fresh, err = g.read(ctx, group, queue.Query{List: &ask, Cells: cells}, o.Stale)
		if err == nil {
			l.out.Freshness = older(l.out.Freshness, fresh)
		}
		return err
	})
	if err != nil {
		return next, false, err
	}
	l.out.Plan.Index, l.out.Plan.Rows, l.out.Plan.Reads = ask.Index(), l.out.Plan.Rows+a.Rows, l.out.Plan.Reads+1
	for _, d := range a.Messages {
		l.out.Messages = append(l.out.Messages, shown(*q, d))
	}
	if a.More {
		next = a.Next
	}
	return next, a.More, nil
}

func wallOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func readPage(s string) (p place, err error) {
	if s == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || p.Cell < 0 || p.Cell >= message.Cells || len(p.Key) > 64 || writePage(p) != s {
		return p, errPage
	}
	return p, nil
}

var errPage = message.Errorf(message.InvalidArgument, "page is not one that a list gave: use next_page as it came")

func writePage(p place) string {
	b, _ := json.Marshal(p) //nolint:errchkjson // numbers and bytes always encode
	return base64.RawURLEncoding.EncodeToString(b)
}
