package gateway

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// takeOver is how long CreateQueue, UpdateQueue and PauseQueue wait until the groups have
// taken over what the catalog says.
const takeOver = 10 * time.Second

// CreateQueue creates a queue; created is false when it was there with the same
// settings.
func (g *Gateway) CreateQueue(ctx context.Context, name string, s message.Settings, shards int) (message.QueueInfo, bool, error) {
	if err := g.authorize(ctx, auth.Manage, name); err != nil {
		return message.QueueInfo{}, false, err
	}
	if err := message.CheckQueueName(name); err != nil {
		return message.QueueInfo{}, false, err
	}
	if err := s.Check(); err != nil {
		return message.QueueInfo{}, false, err
	}
	if err := g.mayFeed(ctx, s); err != nil {
		return message.QueueInfo{}, false, err
	}
	if shards < 1 || shards > message.Cells {
		return message.QueueInfo{}, false, message.Errorf(message.InvalidArgument, "shards is %d: want 1 to %d", shards, message.Cells)
	}
	r, err := g.change(ctx, catalog.Command{CreateQueue: &catalog.CreateQueue{Name: name, Settings: s, Shards: shards, Secret: newSecret()}})
	if err != nil {
		return message.QueueInfo{}, false, err
	}
	return queueInfo(r.Queue), r.Created, nil
}

// mayFeed refuses settings that let messages go to a queue to which the caller may
// not send.
func (g *Gateway) mayFeed(ctx context.Context, s message.Settings) error {
	if s.DeadLetterTo == "" {
		return nil
	}
	return g.authorize(ctx, auth.Send, s.DeadLetterTo)
}

// change proposes a change to the catalog and waits until its queue's groups
// have taken it over.
func (g *Gateway) change(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, takeOver)
	defer cancel()
	r, err := g.propagate(ctx, c)
	if err != nil {
		return r, err
	}
	if c.DeleteQueue != nil {
		return r, g.o.Refresh(ctx)
	}
	return r, g.configured(ctx, r.Queue)
}

// propagate proposes a change to the catalog until its leader has answered.
func (g *Gateway) propagate(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	retry := g.retry(ctx)
	r, err := g.o.Change(ctx, c)
	for err != nil && movable(err) && retry.again() {
		r, err = g.o.Change(ctx, c)
	}
	if err == nil && r.Err != nil {
		err = r.Err
	}
	return r, err
}

// configured waits until all of a queue is in groups that have its settings as they are
// in q, or later ones, or the queue was deleted meanwhile. A shard may have spun off
// with older ones, and the catalog not know it yet: so it is looked for by newer routes.
func (g *Gateway) configured(ctx context.Context, q *catalog.Queue) error {
	retry, route := g.retry(ctx), q
	for {
		group, err := g.unconfigured(ctx, route, q.Version)
		if group == 0 {
			return err
		}
		newest := g.newest.Load()
		if now, ok := newest.QueueNumber(q.Number); !ok && newest.Version >= q.Version {
			return message.NoQueue(q.Name) // deleted meanwhile
		} else if ok && now.Version > route.Version {
			route = now
		}
		if !retry.again() {
			return message.Errorf(message.Unavailable, "group %d has not taken over the settings of queue %s yet; it will", group, q.Name)
		}
	}
}

// unconfigured is the first group that has not got its part of a queue with settings
// of that version, or later ones, as far as can be told now; 0: all have.
func (g *Gateway) unconfigured(ctx context.Context, q *catalog.Queue, version uint64) (group uint64, err error) {
	for _, id := range groupsOf(q) {
		a, _, err := g.readOnce(ctx, id, &queue.Query{Queue: q.Number, Cells: cellsIn(q, id)}, 0)
		if err != nil && !repeatable(err) {
			return 0, err
		}
		if a.Queue == nil || a.Queue.Version < version {
			return id, nil
		}
	}
	return 0, nil
}

// DeleteQueue deletes a queue with every message in it.
func (g *Gateway) DeleteQueue(ctx context.Context, name string) error {
	if err := g.authorize(ctx, auth.Manage, name); err != nil {
		return err
	}
	if _, err := g.queue(ctx, name); err != nil {
		return err
	}
	_, err := g.change(ctx, catalog.Command{DeleteQueue: &catalog.DeleteQueue{Name: name}})
	return err
}

// UpdateQueue gives a queue other settings, if it has that version; 0: whatever
// it has. A dry run changes nothing and tells what the queue would be.
func (g *Gateway) UpdateQueue(ctx context.Context, name string, s message.Settings, version uint64, dryRun bool) (message.QueueInfo, error) {
	if err := g.authorize(ctx, auth.Manage, name); err != nil {
		return message.QueueInfo{}, err
	}
	if err := s.Check(); err != nil {
		return message.QueueInfo{}, err
	}
	if err := g.mayFeed(ctx, s); err != nil {
		return message.QueueInfo{}, err
	}
	q, err := g.queue(ctx, name)
	if err != nil {
		return message.QueueInfo{}, err
	}
	if dryRun {
		if err := q.Takes(s); err != nil {
			return message.QueueInfo{}, err
		}
		info := queueInfo(q)
		info.Settings = s.WithDefaults()
		return info, nil
	}
	r, err := g.change(ctx, catalog.Command{UpdateQueue: &catalog.UpdateQueue{Name: name, Settings: s, Version: version}})
	if err != nil {
		return message.QueueInfo{}, err
	}
	return queueInfo(r.Queue), nil
}

// PurgeQueue deletes every message of a queue. Its groups do it one after the
// other, each at once whatever it has. What one of them had given away before, and the
// catalog did not know of, is looked for by newer routes.
func (g *Gateway) PurgeQueue(ctx context.Context, name string) error {
	if err := g.authorize(ctx, auth.Manage, name); err != nil {
		return err
	}
	retry, purged := g.retry(ctx), map[uint64]bool{}
	for {
		q, err := g.queue(ctx, name)
		if err != nil {
			return err
		}
		c := queue.Purge{Queue: q.Number}
		for _, id := range groupsOf(q) {
			if purged[id] {
				continue
			}
			if _, err := g.propose(ctx, id, c.Command()); err != nil {
				return err
			}
			purged[id] = true
		}
		if _, _, err = g.readShardsOnce(ctx, q, message.ReadOptions{}); message.CodeOf(err) != message.WrongShard {
			return err
		}
		if !retry.again() {
			return message.Errorf(message.Unavailable, "a shard of queue %s is on its way to another group, the others are purged: purge the queue again", name)
		}
		g.refresh()
	}
}

// PauseQueue stops deliveries of a queue, or of a key or a tenant of it, or lets them
// go on. When is filled in here.
func (g *Gateway) PauseQueue(ctx context.Context, name string, paused bool, of message.Pause) error {
	if err := g.authorize(ctx, auth.Manage, name); err != nil {
		return err
	}
	if _, err := g.queue(ctx, name); err != nil {
		return err
	}
	if err := of.Check(); err != nil {
		return err
	}
	of.At = g.o.Clock.Now().UnixMilli()
	_, err := g.change(ctx, catalog.Command{PauseQueue: &catalog.PauseQueue{Name: name, Paused: paused, Of: of}})
	return err
}

// Queue tells of a queue, with its counts.
func (g *Gateway) Queue(ctx context.Context, name string, o message.ReadOptions) (message.QueueInfo, message.Freshness, error) {
	if err := g.authorize(ctx, auth.Read, name); err != nil {
		return message.QueueInfo{}, message.Freshness{}, err
	}
	q, err := g.queue(ctx, name)
	if err != nil {
		return message.QueueInfo{}, message.Freshness{}, err
	}
	info := queueInfo(q)
	if q.Pause != (message.Pause{}) {
		info.Pauses = append(info.Pauses, q.Pause)
	}
	info.Pauses = append(info.Pauses, q.Pauses...)
	fresh, err := g.readShards(ctx, q, o, func(_ *catalog.Shard, s queue.ShardInfo) {
		info.Counts.Add(s.Counts)
		info.Totals.Add(s.Totals)
		info.Leaving += s.Leaving
		if s.Oldest > 0 {
			info.OldestAge = max(info.OldestAge, g.o.Clock.Now().Sub(time.UnixMilli(s.Oldest)), time.Millisecond)
		}
	})
	if err == nil && o.Stale == 0 { // only leaders know, and a stale read needs none
		info.Receivers, err = g.receivers(ctx, q)
	}
	return info, fresh, err
}

// readShards visits the queue's shards as their groups have them.
func (g *Gateway) readShards(ctx context.Context, q *catalog.Queue, o message.ReadOptions, visit func(*catalog.Shard, queue.ShardInfo)) (fresh message.Freshness, err error) {
	var all []queue.ShardInfo
	err = g.routed(ctx, func() (err error) {
		if newer, ok := g.newest.Load().QueueNumber(q.Number); ok {
			q = newer
		}
		all, fresh, err = g.readShardsOnce(ctx, q, o)
		return err
	})
	for _, s := range all {
		visit(q.Shard(s.From), s)
	}
	return fresh, err
}

func (g *Gateway) readShardsOnce(ctx context.Context, q *catalog.Queue, o message.ReadOptions) (all []queue.ShardInfo, fresh message.Freshness, err error) {
	for _, id := range groupsOf(q) {
		a, f, err := g.read(ctx, id, queue.Query{Queue: q.Number, Cells: cellsIn(q, id)}, o.Stale)
		if err != nil {
			return nil, fresh, err
		}
		fresh = older(fresh, f)
		if a.Queue != nil { // else it is not there yet
			all = append(all, a.Queue.Shards...)
		}
	}
	return all, fresh, nil
}

// Queues lists queues by name, after page.
func (g *Gateway) Queues(ctx context.Context, limit int, page string, o message.ReadOptions) ([]message.QueueInfo, string, message.Freshness, error) {
	var none message.Freshness
	if err := g.authorize(ctx, auth.Observe, ""); err != nil {
		return nil, "", none, err
	}
	if err := checkLimit(limit); err != nil {
		return nil, "", none, err
	}
	qs, next, fresh, err := g.page(ctx, limit, page, o)
	if err != nil {
		return nil, "", none, err
	}
	out := make([]message.QueueInfo, len(qs))
	for i, q := range qs {
		out[i] = queueInfo(q)
	}
	return out, next, fresh, nil
}

func checkLimit(limit int) error {
	if limit < 1 || limit > message.MaxBatch {
		return message.Errorf(message.InvalidArgument, "max is %d: want 1 to %d", limit, message.MaxBatch)
	}
	return nil
}

// page is up to limit queues whose names come after the given one, in a catalog
// that is as new as the read wants it, and where the next page begins; empty at the
// end.
func (g *Gateway) page(ctx context.Context, limit int, after string, o message.ReadOptions) (qs []*catalog.Queue, next string, fresh message.Freshness, err error) {
	if after != "" && message.CheckQueueName(after) != nil {
		return nil, "", fresh, errPage
	}
	if fresh, err = g.freshen(ctx, o); err != nil {
		return nil, "", fresh, err
	}
	qs = g.newest.Load().Queues(after, limit+1)
	if len(qs) > limit {
		qs = qs[:limit]
		next = qs[limit-1].Name
	}
	return qs, next, fresh, nil
}

func queueInfo(q *catalog.Queue) message.QueueInfo {
	return message.QueueInfo{Name: q.Name, Version: q.Version, Settings: q.Settings.WithDefaults(), Paused: q.Paused, Shards: len(q.Shards)}
}

// Locate tells where the messages of a key are.
func (g *Gateway) Locate(ctx context.Context, name, key string) (message.Location, error) {
	if err := g.authorize(ctx, auth.Read, name); err != nil {
		return message.Location{}, err
	}
	if key == "" {
		return message.Location{}, message.Errorf(message.InvalidArgument, "name a key to locate")
	}
	if err := message.CheckKey(key); err != nil {
		return message.Location{}, err
	}
	q, err := g.queue(ctx, name)
	if err != nil {
		return message.Location{}, err
	}
	h := q.Hash(key)
	s := q.Shard(h.Point().Cell())
	leading, followers := g.members(ctx, s.Group)
	return message.Location{Hash: h.Hi, Shard: q.Name + "/" + s.Path, Group: s.Group, Leader: leading, Followers: followers}, nil
}

// Shards lists the shards of one queue or, with the empty name, of up to limit
// queues by name, after page.
func (g *Gateway) Shards(ctx context.Context, name string, limit int, page string, o message.ReadOptions) ([]message.ShardInfo, string, message.Freshness, error) {
	var none message.Freshness
	if err := g.authorize(ctx, auth.Read, name); err != nil {
		return nil, "", none, err
	}
	if err := checkLimit(limit); err != nil {
		return nil, "", none, err
	}
	var qs []*catalog.Queue
	var next string
	var fresh message.Freshness
	var err error
	if name == "" {
		qs, next, fresh, err = g.page(ctx, limit, page, o)
	} else {
		qs = make([]*catalog.Queue, 1)
		qs[0], err = g.queue(ctx, name)
	}
	if err != nil {
		return nil, "", none, err
	}
	var out []message.ShardInfo
	for _, q := range qs {
		f, err := g.readShards(ctx, q, o, func(s *catalog.Shard, info queue.ShardInfo) {
			leading, followers := g.members(ctx, s.Group)
			from, to := shardRange(info.From, info.To)
			out = append(out, message.ShardInfo{
				ID: q.Name + "/" + info.Path, Queue: q.Name, From: from, To: to, Group: s.Group,
				Leader: leading, Followers: followers, Counts: info.Counts,
			})
		})
		if err != nil {
			return nil, "", none, err
		}
		fresh = older(fresh, f)
	}
	return out, next, fresh, nil
}

// SplitShard makes two shards of the queue's shard with that path, at the boundary
// of cells that is nearest to the middle of its messages, and returns them.
// Nothing stops meanwhile.
func (g *Gateway) SplitShard(ctx context.Context, name, path string) ([]message.ShardInfo, error) {
	if err := g.authorize(ctx, auth.Manage, name); err != nil {
		return nil, err
	}
	q, s, err := g.shard(ctx, name, path)
	if err != nil {
		return nil, err
	}
	retry := g.retry(ctx)
	err = g.splitOnce(ctx, q, s)
	for err != nil && movable(err) && retry.again() {
		g.refresh()
		if q, s, err = g.shard(ctx, name, path); err != nil {
			return nil, err
		}
		err = g.splitOnce(ctx, q, s)
	}
	if err != nil {
		return nil, err
	}
	return g.children(ctx, q, path)
}

func (g *Gateway) splitOnce(ctx context.Context, q *catalog.Queue, s *catalog.Shard) error {
	a, _, err := g.read(ctx, s.Group, queue.Query{Queue: q.Number, Cells: cellsIn(q, s.Group)}, 0)
	if err != nil {
		return err
	}
	at := s.From + 1
	if a.Queue != nil {
		at = middle(a.Queue, s)
	}
	c := queue.Split{Queue: q.Number, From: s.From, To: s.To, Epoch: s.Epoch, At: at}
	result, err := g.propose(ctx, s.Group, c.Command())
	if refusal, ok := result.(*message.Error); ok && refusal != nil {
		err = refusal
	}
	return err
}

// middle is the cell before which a shard's messages are cut most evenly; of
// cells that are as good, the one nearest to the middle of the shard.
func middle(info *queue.Info, s *catalog.Shard) int {
	var cells []int64
	for i := range info.Shards {
		if x := &info.Shards[i]; x.From == s.From && x.To == s.To {
			cells = x.Cells
		}
	}
	var total int64
	for _, n := range cells {
		total += n
	}
	half := (s.From + s.To + 1) / 2
	best, before := half, int64(0)
	least := int64(math.MaxInt64)
	for i, n := range cells[:max(len(cells)-1, 0)] {
		before += n
		at, odds := s.From+i+1, max(2*before-total, total-2*before)
		if odds < least || (odds == least && max(at-half, half-at) < max(best-half, half-best)) {
			best, least = at, odds
		}
	}
	return best
}

// children waits until the catalog knows a split.
func (g *Gateway) children(ctx context.Context, q *catalog.Queue, path string) (out []message.ShardInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, takeOver)
	defer cancel()
	for r := g.retry(ctx); ; {
		now, err := g.queueNumber(ctx, q.Number)
		if err == nil && now == nil {
			err = message.NoQueue(q.Name)
		}
		if err != nil {
			return nil, err
		}
		if _, still := now.ShardPath(path); !still {
			all, _, _, err := g.Shards(ctx, q.Name, message.MaxBatch, "", message.ReadOptions{})
			for _, s := range all {
				if strings.HasPrefix(s.ID, q.Name+"/"+path+".") {
					out = append(out, s)
				}
			}
			return out, err
		}
		if !r.again() {
			return nil, message.Errorf(message.Unavailable, "shard %s/%s is split, and the catalog does not show it yet: look with 'comanda shard list --queue %s'", q.Name, path, q.Name)
		}
		g.refresh()
	}
}
