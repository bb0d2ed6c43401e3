package gateway

import (
	"context"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// Sends may take up three quarters of what a group holds of proposals: leases
// and settlements, which make room, always find some.
const (
	maxSending   = 48 << 20 // bytes
	maxSendCalls = 16_000
)

// Send stores messages and answers for each, in order. Messages of one key keep
// the order of the call, also when the route is out of date: a message is not
// carried anywhere while an earlier one of its group is unresolved.
func (g *Gateway) Send(ctx context.Context, name string, msgs []message.New) ([]message.SendResult, error) {
	return g.send(ctx, name, msgs, false)
}

// SendAtomic stores all of the messages or none, and answers for each, in order. They
// have to be in one shard. One that adds nothing, as its dedup id or unique key says, is
// as good as stored.
func (g *Gateway) SendAtomic(ctx context.Context, name string, msgs []message.New) ([]message.SendResult, error) {
	return g.send(ctx, name, msgs, true)
}

func (g *Gateway) send(ctx context.Context, name string, msgs []message.New, atomic bool) ([]message.SendResult, error) {
	if err := g.authorize(ctx, auth.Send, name); err != nil {
		return nil, err
	}
	q, err := g.queue(ctx, name)
	if err != nil {
		return nil, err
	}
	size, err := batchSize(msgs)
	if err != nil {
		return nil, err
	}
	if atomic && size > message.MaxEntryBytes && len(msgs) > 1 {
		return nil, message.Errorf(message.TooLarge, "the atomic batch has %d bytes, %d for each message counted, at most %d are allowed: send fewer messages at a time", size, message.MessageOverhead, message.MaxEntryBytes)
	}
	done, err := g.admit(size)
	if err != nil {
		return nil, err
	}
	defer done()

	s := sending{g: g, queue: q, results: make([]message.SendResult, len(msgs)), turn: g.turn.Add(1), atomic: atomic}
	s.items = make([]item, 0, len(msgs))
	for i := range msgs {
		if err := check(&msgs[i], q); err != nil {
			s.results[i].Err = err
		} else {
			s.items = append(s.items, s.place(i, msgs[i]))
		}
	}
	if atomic {
		if len(s.items) < len(msgs) {
			queue.RefuseBatch(s.results)
			return s.results, nil
		}
		if err := s.gather(); err != nil {
			return nil, err
		}
	}
	s.run(ctx)
	confirmed := 0
	for i := range s.results {
		if s.results[i].Err == nil {
			confirmed++
		}
	}
	g.o.Metrics.Queue(name).Sent(confirmed)
	return s.results, nil
}

// admit takes room for a send of so many bytes, until done is called.
func (g *Gateway) admit(size int64) (done func(), err error) {
	if err := g.o.Admit(); err != nil {
		return nil, err
	}
	calls, bytes := g.sendCalls.Add(1), g.sending.Add(size)
	done = func() { g.sendCalls.Add(-1); g.sending.Add(-size) }
	if calls > maxSendCalls || (bytes > maxSending && bytes > size) {
		done()
		return nil, message.Errorf(message.ResourceExhausted, "%d sends with %d bytes are under way, as many as this server takes at a time: try again", calls-1, bytes-size)
	}
	return done, nil
}

// batchSize checks the call as a whole.
func batchSize(msgs []message.New) (size int64, err error) {
	if len(msgs) == 0 || len(msgs) > message.MaxBatch {
		return 0, message.Errorf(message.InvalidArgument, "%d messages in one call: want 1 to %d", len(msgs), message.MaxBatch)
	}
	for i := range msgs {
		size += int64(msgs[i].Size())
	}
	if size > message.MaxBatchBytes+message.MessageOverhead*message.MaxBatch+message.MaxAttributeBytes {
		return 0, message.Errorf(message.TooLarge, "the call has %d bytes, at most %d are allowed: send fewer messages at a time", size, message.MaxBatchBytes)
	}
	return size, nil
}

func check(m *message.New, q *catalog.Queue) *message.Error {
	if len(m.Body) > q.Settings.MaxMessageBytes {
		return message.Errorf(message.TooLarge, "body has %d bytes, queue %s takes at most %d (max_message_bytes)", len(m.Body), q.Name, q.Settings.MaxMessageBytes)
	}
	if err := m.Check(); err != nil {
		return asError(err)
	}
	return nil
}

// item is a message on its way.
type item struct {
	at   int // in the call
	sent queue.Sent
	free bool // it may stand anywhere
}

// sending is one call of Send.
type sending struct {
	g       *Gateway
	queue   *catalog.Queue
	results []message.SendResult
	items   []item // unresolved, in order
	turn    uint32
	atomic  bool
}

// place finds a message's cell: that of its key or, without one, of its unique key
// or dedup id. All others go to one shard after the
// other, a call to each, and in it always to the same cell: neighbours stay
// neighbours.
func (s *sending) place(i int, m message.New) item {
	x := item{at: i, sent: queue.Sent{New: m}}
	if m.Tenant != "" {
		x.sent.TenantHash = s.queue.HashTenant(m.Tenant)
	}
	if m.Key != "" {
		x.sent.Hash = s.queue.Hash(m.Key)
		x.sent.Cell = x.sent.Hash.Point().Cell()
	}
	if m.DedupID != "" {
		x.sent.DedupHash = s.queue.HashIn(m.Key, m.DedupID)
	}
	if m.UniqueKey != "" {
		x.sent.UniqueHash = s.queue.HashIn(m.Key, m.UniqueKey)
	}
	switch {
	case m.Key != "":
		return x
	case m.UniqueKey != "":
		x.sent.Cell = x.sent.UniqueHash.Point().Cell()
		return x
	case m.DedupID != "":
		x.sent.Cell = x.sent.DedupHash.Point().Cell()
		return x
	}
	x.free = true
	x.sent.Cell = s.cellIn(&s.queue.Shards[int(s.turn)%len(s.queue.Shards)])
	return x
}

// cellIn is where in a shard this gateway puts messages that may stand anywhere.
func (s *sending) cellIn(sh *catalog.Shard) int {
	return sh.From + int(s.g.o.Boot%uint64(sh.To-sh.From+1))
}

// gather puts the messages of an atomic batch that may stand anywhere where the others
// are, and refuses a batch whose others are in different shards.
func (s *sending) gather() error {
	var first *item
	var at *catalog.Shard
	for i := range s.items {
		x := &s.items[i]
		if x.free {
			continue
		}
		sh := s.queue.Shard(x.sent.Cell)
		if first == nil {
			first, at = x, sh
		} else if sh.From != at.From {
			return message.Errorf(message.InvalidArgument, "an atomic batch is stored in one shard, and message %d is in %s of queue %s, message %d in %s: give them one key, or send them apart", first.at+1, at.Path, s.queue.Name, x.at+1, sh.Path)
		}
	}
	if first == nil {
		at = &s.queue.Shards[int(s.turn)%len(s.queue.Shards)]
	}
	for i := range s.items {
		if x := &s.items[i]; x.free {
			x.sent.Cell = s.cellIn(at)
		}
	}
	return nil
}

// run carries the items until each has an answer.
func (s *sending) run(ctx context.Context) {
	r := s.g.retry(ctx)
	for {
		last := s.round(ctx)
		if len(s.items) == 0 {
			return
		}
		if !r.again() {
			s.refuse(s.items, stuck(last))
			return
		}
		s.g.refresh()
		q, err := s.g.queueNumber(ctx, s.queue.Number)
		if err != nil {
			continue // again, until it is too late
		}
		if q == nil {
			s.refuse(s.items, message.NoQueue(s.queue.Name))
			return
		}
		s.queue = q
		if s.atomic {
			if err := s.gather(); err != nil { // it was split
				s.refuse(s.items, asError(err))
				return
			}
		}
	}
}

func (s *sending) refuse(items []item, err *message.Error) {
	for _, x := range items {
		s.results[x.at].Err = err
	}
}

// round carries every unresolved item once. Groups work at the same time; in
// one group a command follows the other. last is why items are left.
func (s *sending) round(ctx context.Context) (last *message.Error) {
	var parts []part
	for _, x := range s.items {
		id := s.queue.Shard(x.sent.Cell).Group
		i := 0
		for i < len(parts) && parts[i].group != id {
			i++
		}
		if i == len(parts) {
			parts = append(parts, part{group: id, items: make([]item, 0, len(s.items))})
		}
		parts[i].items = append(parts[i].items, x)
	}
	each(parts, func(p *part) { s.carry(ctx, p) })
	var rest []item
	for i := range parts {
		if len(parts[i].items) > 0 {
			rest, last = append(rest, parts[i].items...), parts[i].last
		}
	}
	s.items = rest
	return last
}

// part is what of a call goes to one group; what is left of items afterwards
// has to go elsewhere.
type part struct {
	group uint64
	items []item
	last  *message.Error
}

// carry sends a part in commands that fit an entry, one after the other. What
// becomes of one group's part says nothing of another's, so every answer is the
// items' own.
func (s *sending) carry(ctx context.Context, p *part) {
	for len(p.items) > 0 {
		n, bytes := 0, 0
		for n < len(p.items) && (n == 0 || s.atomic || bytes+p.items[n].sent.Size() <= message.MaxEntryBytes/2) {
			bytes += p.items[n].sent.Size()
			n++
		}
		c := queue.Send{Queue: s.queue.Number, Messages: make([]queue.Sent, n), Atomic: s.atomic}
		for i := range n {
			c.Messages[i] = p.items[i].sent
		}
		result, err := s.g.propose(ctx, p.group, c.Command())
		if err != nil {
			if movable(err) {
				p.last = asError(err)
				return
			}
			s.refuse(p.items[:n], asError(err))
			s.refuse(p.items[n:], message.Errorf(message.Unavailable, "not sent, because an earlier message of the call failed: %s", text(err)))
			p.items = nil
			return
		}
		moved := 0
		for i, r := range result.([]message.SendResult) {
			if r.Err != nil && r.Err.Code == message.WrongShard {
				p.items[moved], p.last = p.items[i], r.Err
				moved++
				continue
			}
			s.results[p.items[i].at] = r
		}
		if moved > 0 {
			// Those of the same point that follow must not overtake.
			p.items = append(p.items[:moved], p.items[n:]...)
			return
		}
		p.items = p.items[n:]
	}
}

func asError(err error) *message.Error {
	return message.Errorf(message.CodeOf(err), "%s", text(err))
}
