package client

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

const (
	maxBody      = 16 << 20
	messageExtra = 64   // bytes that a message counts for besides its own
	maxQuiet     = 1024 // queues whose line is kept although nothing is in it
)

// Attribute is the value of an attribute: made by String, Number or Bytes.
type Attribute = comandav1.Attribute

// String makes an attribute of text.
func String(s string) *Attribute {
	return &Attribute{Value: &comandav1.Attribute_String_{String_: s}}
}

// Number makes an attribute of a decimal number, given as text so that no
// digit is lost: "12.50".
func Number(s string) *Attribute {
	return &Attribute{Value: &comandav1.Attribute_Number{Number: s}}
}

// Bytes makes an attribute of bytes.
func Bytes(b []byte) *Attribute {
	return &Attribute{Value: &comandav1.Attribute_Bytes{Bytes: b}}
}

// Message is a message to send.
type Message struct {
	Body []byte
	// Key: messages of one key run in order, one at a time. At most 256 bytes.
	Key string
	// Type names the handler. At most 128 bytes.
	Type string
	// Tenant: whose share of the deliveries it uses; within a priority, tenants take
	// turns. At most 256 bytes.
	Tenant string
	// Attributes: at most 32, names of 1–128 bytes, 64 KiB together.
	Attributes map[string]*Attribute
	// Delay is how long the message is not handed out. One with a key keeps its
	// place in the key's order: later ones wait for it.
	Delay time.Duration
	// DeliverAt, instead of a delay: not before this time, by the clock of the server
	// that leads the message's shard.
	DeliverAt time.Time
	// Expires is when the message is of no use any more. If nobody holds it then, it
	// ends as its queue's on_expired says. The zero time: never.
	Expires time.Time
	// DedupID: a message with that of an earlier one of its queue and key adds nothing
	// while the queue's dedup_window lasts; Send returns the first one's id, and
	// SendBatch says so (SendResult.Existing).
	DedupID string
	// UniqueKey: of the unfinished messages of a queue and key, one at most has it.
	// Another one is refused with CodeConflict or, with Existing, Send returns the id
	// of the one that has it. Without a key a message has a dedup id or a unique key,
	// not both.
	UniqueKey string
	Existing  bool
	// Priority, 0–9: higher ones go first. A message never overtakes an earlier one
	// of its key.
	Priority int
	// Retry, where it is not nil, goes before the queue's settings.
	Retry *Retry
}

// Retry says how one message is tried again; what is not set is as the queue's
// settings say.
type Retry = comandav1.Retry

func (m *Message) size() int {
	n := messageExtra + len(m.Body) + len(m.Key) + len(m.Type) + len(m.Tenant) + len(m.DedupID) + len(m.UniqueKey)
	for name, a := range m.Attributes {
		n += len(name) + len(a.GetString_()) + len(a.GetNumber()) + len(a.GetBytes()) + 16
	}
	for range m.Retry.GetBackoff().GetList() {
		n += 16
	}
	return n
}

// SendResult tells what became of one message of a batch: ID is set when the
// message is stored, Err when it is not, or when that is not known.
type SendResult struct {
	ID string
	// Existing: nothing was added, and ID is that of an earlier message with the same
	// dedup id, or of the one that has the unique key.
	Existing bool
	Err      error
}

func sendResult(r *comandav1.SendResult, err error) SendResult {
	return SendResult{ID: r.GetId(), Existing: r.GetExisting(), Err: err}
}

type sending = entry[comandav1.NewMessage, *comandav1.SendResult]

// line is what is sent to one queue.
type line struct {
	coalescer[comandav1.NewMessage, *comandav1.SendResult]
	sender *sender
}

// Send stores a message and returns its id: then it is on the disks of a
// majority. A call that fails with ErrUnknownOutcome may have stored it; after
// any other error, also the end of ctx, it is not stored. What surely was not
// stored because no server or leader was there is tried again, up to three times
// within 5 s. The message may be changed again when Send has returned.
func (c *Client) Send(ctx context.Context, queue string, m Message) (id string, err error) {
	e, err := c.sending(&m)
	if err != nil {
		return "", err
	}
	r, answered, err := c.line(queue).do(ctx, e)
	if answered {
		c.recycle(e)
	}
	return r.GetId(), err
}

// SendBatch stores messages, in order, and has a result for each. err is the
// first failure among the results. A batch of more than 1,000 messages or
// 16 MiB goes out in several calls.
func (c *Client) SendBatch(ctx context.Context, queue string, ms []Message) (results []SendResult, err error) {
	results = make([]SendResult, len(ms))
	entries := make([]*sending, len(ms))
	l := c.line(queue)
	for i := range ms {
		e, err := c.sending(&ms[i])
		if err == nil {
			err = l.add(ctx, e)
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		entries[i] = e
	}
	for i, e := range entries {
		if e != nil {
			r, answered, err := l.wait(ctx, e)
			if answered {
				c.recycle(e)
			}
			results[i] = sendResult(r, err)
		}
		if err == nil {
			err = results[i].Err
		}
	}
	return results, err
}

// SendAtomic stores all of the messages or none, in one call: they have to be in one
// shard, as those of one key are, and have 1 MiB together. It has a result for each.
// One that is not stored has an error of its own, or CodeBatchRefused if another one is
// the reason; err is the reason. A message that adds nothing, as its dedup id or unique
// key says, is as good as stored. A failed call is as a failed Send.
func (c *Client) SendAtomic(ctx context.Context, queue string, ms []Message) (results []SendResult, err error) {
	req := &comandav1.SendRequest{Queue: queue, Atomic: true}
	for i := range ms {
		e, err := c.sending(&ms[i])
		if err != nil {
			return nil, err
		}
		req.Messages = append(req.Messages, &e.in)
	}
	var resp *comandav1.SendResponse
	err = again(ctx, func() (err error) {
		resp, err = c.messages.Send(ctx, req)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(resp.GetResults()) != len(ms):
		return nil, &Error{Code: CodeUnknownOutcome, Message: fmt.Sprintf("the server answered %d of %d messages: look before you repeat them", len(resp.GetResults()), len(ms))}
	}
	results = make([]SendResult, len(ms))
	for i, r := range resp.GetResults() {
		results[i] = sendResult(r, itemError(r.GetError()))
		if failed := results[i].Err; failed != nil && (err == nil || CodeOf(err) == CodeBatchRefused) {
			err = failed
		}
	}
	return results, err
}

func (c *Client) sending(m *Message) (*sending, error) {
	if len(m.Body) > maxBody {
		return nil, &Error{Code: CodeTooLarge, Message: fmt.Sprintf("the body has %d bytes, the limit is %d: send a reference to it instead", len(m.Body), maxBody)}
	}
	if err := m.checkText(); err != nil { // it would fail the messages of others as well
		return nil, err
	}
	e := c.entries.Get().(*sending)
	e.size = m.size()
	m.fill(&e.in)
	return e, nil
}

// fill writes the message into an empty one of the contract.
func (m *Message) fill(in *comandav1.NewMessage) {
	in.Body, in.Key, in.Type, in.Tenant, in.Attributes = m.Body, m.Key, m.Type, m.Tenant, m.Attributes
	if m.Delay != 0 {
		in.Delay = durationpb.New(m.Delay)
	}
	in.DeliverAt, in.Expires = timestamp(m.DeliverAt), timestamp(m.Expires)
	in.DedupId, in.UniqueKey = m.DedupID, m.UniqueKey
	if m.Existing {
		in.OnConflict = comandav1.OnConflict_ON_CONFLICT_EXISTING
	}
	in.Priority, in.Retry = narrow(m.Priority), m.Retry
}

// checkText refuses text that can't be encoded.
func (m *Message) checkText() error {
	if err := checkText(m.Key, m.Type, m.Tenant, m.DedupID, m.UniqueKey); err != nil {
		return err
	}
	for name, a := range m.Attributes {
		if err := checkText(name, a.GetString_(), a.GetNumber()); err != nil {
			return err
		}
	}
	return nil
}

func checkText(texts ...string) error {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return invalidText(fmt.Errorf("%.100q", s))
		}
	}
	return nil
}

// narrow is n as the contract has room for it, or the nearest that there is room for:
// the server has a lower limit for each of its numbers, and refuses both alike.
func narrow(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }

// timestamp is nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// recycle keeps an answered entry for the next message. One that was not
// answered may still be in a call, so it is left to the garbage collector.
func (c *Client) recycle(e *sending) {
	e.flight = nil
	e.in.Reset()
	c.entries.Put(e)
}

// lines holds the line of each queue that is being sent to.
type lines struct {
	mu sync.RWMutex
	of map[string]*line
}

func (c *Client) line(queue string) *line {
	c.lines.mu.RLock()
	l := c.lines.of[queue]
	c.lines.mu.RUnlock()
	if l != nil {
		return l
	}
	c.lines.mu.Lock()
	defer c.lines.mu.Unlock()
	if l := c.lines.of[queue]; l != nil {
		return l
	}
	if len(c.lines.of) >= maxQuiet {
		// Whoever still holds one of these can go on with it: a second line of
		// the same queue costs a call, not an order.
		for q, l := range c.lines.of {
			if l.quiet() {
				delete(c.lines.of, q)
				c.idle.retire(l.sender)
			}
		}
	}
	s := newSender(c, queue)
	l = &line{coalescer: coalescer[comandav1.NewMessage, *comandav1.SendResult]{ctx: c.ctx, begin: s.begin}, sender: s}
	c.lines.of[queue] = l
	return l
}
