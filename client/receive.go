package client

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// held is a leased message: what Delivery and RawJob have in common.
type held struct {
	d *comandav1.Delivery
}

// ID is the message's id.
func (h held) ID() string { return h.d.GetId() }

// Queue is the queue that it came from.
func (h held) Queue() string { return h.d.GetQueue() }

// Token settles the lease.
func (h held) Token() string { return h.d.GetToken() }

// Key is the message's key, empty if it has none.
func (h held) Key() string { return h.d.GetKey() }

// Type is the message's type, empty if it has none.
func (h held) Type() string { return h.d.GetType() }

// Tenant is whose share of the deliveries the message uses; empty: nobody's.
func (h held) Tenant() string { return h.d.GetTenant() }

// Body is the message's body; it belongs to the caller.
func (h held) Body() []byte { return h.d.GetBody() }

// Attributes are the message's attributes.
func (h held) Attributes() map[string]*Attribute { return h.d.GetAttributes() }

// Attempt is 1 for the first attempt: failed attempts + 1.
func (h held) Attempt() int { return int(h.d.GetAttempt()) }

// Deliveries counts the leases so far, this one with them.
func (h held) Deliveries() int { return int(h.d.GetDeliveries()) }

// Fence is a number that grows with every lease of the key's messages. Write it
// beside what the handler changes, and refuse a lower one.
func (h held) Fence() uint64 { return h.d.GetFence() }

// SentAt is when the message was stored.
func (h held) SentAt() time.Time { return h.d.GetSentAt().AsTime() }

// Lease is the length of the lease when it was given.
func (h held) Lease() time.Duration { return h.d.GetLease().AsDuration() }

// ReceiveOptions say how many messages to take and how.
type ReceiveOptions struct {
	Max int // 1–1,000; default 1
	// MaxPerKey is how many messages of one key may come at once: 1–100; default 1.
	// Handle them in their order, one after the other. One that is settled by anything
	// but an ack, or whose lease ends, takes the later ones of its key with it: they are
	// given back, and settling them fails with ErrFenced. To extend one is to extend
	// those behind it.
	MaxPerKey int
	Wait      time.Duration // for a first message: 0–60 s; default 0
	Lease     time.Duration // 1 s–12 h; default 30 s
	Worker    string        // name in histories; default: the peer's address
}

// Delivery is a leased message that was received, to be settled by its methods
// or by its token.
type Delivery struct {
	held
	client *Client
}

// Receive leases up to Max messages, at most MaxPerKey of a key. It waits for the
// first one as long as Wait says, and returns none, without an error, if none
// comes.
func (c *Client) Receive(ctx context.Context, queue string, o ReceiveOptions) ([]*Delivery, error) {
	resp, err := c.messages.Receive(ctx, &comandav1.ReceiveRequest{
		Queue: queue, Max: narrow(o.Max), MaxPerKey: narrow(o.MaxPerKey), Wait: optional(o.Wait), Lease: optional(o.Lease), Worker: o.Worker,
	})
	if err != nil {
		return nil, err
	}
	ds := make([]*Delivery, len(resp.GetMessages()))
	for i, d := range resp.GetMessages() {
		ds[i] = &Delivery{held: held{d}, client: c}
	}
	return ds, nil
}

// optional leaves a zero duration unset, which is the server's default.
func optional(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// Ack says that the message is done.
func (d *Delivery) Ack(ctx context.Context) error { return d.client.Ack(ctx, d.Token()) }

// AckAndSend says that the message is done and sends others in the same step; see
// Client.AckAndSend.
func (d *Delivery) AckAndSend(ctx context.Context, followUps ...FollowUp) (ids []string, err error) {
	return d.client.AckAndSend(ctx, d.Token(), followUps...)
}

// Nack says that the attempt failed with cause; see Client.Nack.
func (d *Delivery) Nack(ctx context.Context, cause string, delay time.Duration) error {
	return d.client.Nack(ctx, d.Token(), cause, delay)
}

// Reject says that the message can't be handled because of cause.
func (d *Delivery) Reject(ctx context.Context, cause string) error {
	return d.client.Reject(ctx, d.Token(), cause)
}

// Release gives the message back, after delay, without counting an attempt.
func (d *Delivery) Release(ctx context.Context, delay time.Duration) error {
	return d.client.Release(ctx, d.Token(), delay)
}

// Extend makes the lease end in lease from now.
func (d *Delivery) Extend(ctx context.Context, lease time.Duration) error {
	return d.client.Extend(ctx, d.Token(), lease)
}
