package client

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// QueueSettings of a queue; a field that is not set has its default.
type QueueSettings = comandav1.QueueSettings

// QueueOptions say how to create a queue.
type QueueOptions struct {
	Settings *QueueSettings // nil: all defaults
	Shards   int            // 1–16; default 1
}

// CreateQueue creates a queue. Creating it again with the same settings changes
// nothing; with others it is refused with ErrQueueExists.
func (c *Client) CreateQueue(ctx context.Context, queue string, o QueueOptions) (*comandav1.CreateQueueResponse, error) {
	return c.queues.CreateQueue(ctx, &comandav1.CreateQueueRequest{Queue: queue, Settings: o.Settings, Shards: narrow(o.Shards)})
}

// QueueUpdate says what UpdateQueue changes.
type QueueUpdate struct {
	Settings *QueueSettings // all of them: a field that is not set gets its default
	// Version that the queue must still have, else CodeConflict; 0: whatever it has.
	Version uint64
	// DryRun checks everything and tells what the queue would be.
	DryRun bool
}

// UpdateQueue gives a queue other settings and returns it.
func (c *Client) UpdateQueue(ctx context.Context, queue string, u QueueUpdate) (*comandav1.Queue, error) {
	r, err := c.queues.UpdateQueue(ctx, &comandav1.UpdateQueueRequest{Queue: queue, Settings: u.Settings, Version: u.Version, DryRun: u.DryRun})
	return r.GetQueue(), err
}

// ReadOption says what a read is content with.
type ReadOption func(*readOptions)

type readOptions struct{ stale time.Duration }

// Stale lets any replica answer, with what is at most so old (up to 60 s); one
// that can't keep that refuses with CodeUnavailable. Without it an answer holds all
// that was confirmed before the call. The answer says who gave it and how old it is.
func Stale(d time.Duration) ReadOption { return func(o *readOptions) { o.stale = d } }

// stale is what options say of it; nil: nothing.
func stale(opts []ReadOption) *durationpb.Duration {
	var o readOptions
	for _, opt := range opts {
		opt(&o)
	}
	return optional(o.stale)
}

// Queue tells a queue's settings and counts and, unless it may be stale, who
// receives from it.
func (c *Client) Queue(ctx context.Context, queue string, opts ...ReadOption) (*comandav1.GetQueueResponse, error) {
	return c.queues.GetQueue(ctx, &comandav1.GetQueueRequest{Queue: queue, Stale: stale(opts)})
}

// Queues lists queues by name: up to limit (default 100, at most 1,000), from the
// page that the answer before named as its next; "" is the first.
func (c *Client) Queues(ctx context.Context, limit int, page string, opts ...ReadOption) (*comandav1.ListQueuesResponse, error) {
	return c.queues.ListQueues(ctx, &comandav1.ListQueuesRequest{Max: narrow(limit), Page: page, Stale: stale(opts)})
}

// DeleteQueue deletes a queue and every message in it.
func (c *Client) DeleteQueue(ctx context.Context, queue string) error {
	_, err := c.queues.DeleteQueue(ctx, &comandav1.DeleteQueueRequest{Queue: queue})
	return err
}

// Purge deletes every message of a queue, whatever its state; the queue stays.
func (c *Client) Purge(ctx context.Context, queue string) error {
	_, err := c.queues.PurgeQueue(ctx, &comandav1.PurgeQueueRequest{Queue: queue})
	return err
}

// Part names one key or one tenant of a queue, or the queue as a whole.
type Part struct {
	Key, Tenant string // one of them; neither: the queue
	By          string // who pauses it; default: this client's address
}

// Pause stops handing out a queue's messages; sends and settles go on.
func (c *Client) Pause(ctx context.Context, queue string) error {
	return c.PausePart(ctx, queue, Part{})
}

// Resume ends a pause. The pauses of parts stay.
func (c *Client) Resume(ctx context.Context, queue string) error {
	return c.ResumePart(ctx, queue, Part{})
}

// PausePart stops handing out the messages of a key or a tenant, or of the queue by
// somebody who is named.
func (c *Client) PausePart(ctx context.Context, queue string, p Part) error {
	_, err := c.queues.PauseQueue(ctx, &comandav1.PauseQueueRequest{Queue: queue, Key: p.Key, Tenant: p.Tenant, By: p.By})
	return err
}

// ResumePart ends the pause of a key or a tenant.
func (c *Client) ResumePart(ctx context.Context, queue string, p Part) error {
	_, err := c.queues.ResumeQueue(ctx, &comandav1.ResumeQueueRequest{Queue: queue, Key: p.Key, Tenant: p.Tenant})
	return err
}

// Locate tells which shard, group and nodes a key belongs to.
func (c *Client) Locate(ctx context.Context, queue, key string) (*comandav1.LocateKeyResponse, error) {
	return c.queues.LocateKey(ctx, &comandav1.LocateKeyRequest{Queue: queue, Key: key})
}

// Owners tells for each shard of a queue which nodes have it, and which workers its
// keys prefer.
func (c *Client) Owners(ctx context.Context, queue string) ([]*comandav1.ShardOwners, error) {
	r, err := c.queues.ListOwners(ctx, &comandav1.ListOwnersRequest{Queue: queue})
	return r.GetShards(), err
}

// Shards lists the shards of a queue or, if queue is empty, of up to limit queues
// (default 100, at most 1,000) from the page that the answer before named as its
// next; "" is the first.
func (c *Client) Shards(ctx context.Context, queue string, limit int, page string, opts ...ReadOption) (*comandav1.ListShardsResponse, error) {
	return c.cluster.ListShards(ctx, &comandav1.ListShardsRequest{Queue: queue, Max: narrow(limit), Page: page, Stale: stale(opts)})
}

// SplitShard makes two shards of the one with that path, while it is used, and
// returns them.
func (c *Client) SplitShard(ctx context.Context, queue, path string) (*comandav1.SplitShardResponse, error) {
	return c.cluster.SplitShard(ctx, &comandav1.SplitShardRequest{Queue: queue, Shard: path})
}

// MoveShard begins to move the shard with that path to a node, which is to hold and
// to lead it, while it is used. It does not wait: Operation tells how far it is.
func (c *Client) MoveShard(ctx context.Context, queue, path, node string) (*comandav1.Operation, error) {
	r, err := c.cluster.MoveShard(ctx, &comandav1.MoveShardRequest{Queue: queue, Shard: path, Node: node})
	return r.GetOperation(), err
}

// Operations lists the operations that are under way and the last that have ended,
// the newest first: up to limit (default 100, at most 1,000), from the page that the
// answer before named as its next; "" is the first.
func (c *Client) Operations(ctx context.Context, limit int, page string) (*comandav1.ListOperationsResponse, error) {
	return c.cluster.ListOperations(ctx, &comandav1.ListOperationsRequest{Max: narrow(limit), Page: page})
}

// Operation tells of an operation.
func (c *Client) Operation(ctx context.Context, id uint64) (*comandav1.Operation, error) {
	r, err := c.cluster.GetOperation(ctx, &comandav1.GetOperationRequest{Id: id})
	return r.GetOperation(), err
}

// CancelOperation asks that an operation stops between two steps; what it has
// reached stands. by is who asks; "": the address that the call comes from. Once more
// changes nothing; one that is done or has failed is refused with CodeEnded.
func (c *Client) CancelOperation(ctx context.Context, id uint64, by string) (*comandav1.Operation, error) {
	r, err := c.cluster.CancelOperation(ctx, &comandav1.CancelOperationRequest{Id: id, By: by})
	return r.GetOperation(), err
}

// Nodes lists the cluster's nodes by id, as the server that answers knows them.
func (c *Client) Nodes(ctx context.Context) ([]*comandav1.Node, error) {
	r, err := c.cluster.ListNodes(ctx, &comandav1.ListNodesRequest{})
	return r.GetNodes(), err
}

// DrainNode asks that a node holds nothing or, with undo, takes that back. It does
// not wait: Nodes tells how far it is.
func (c *Client) DrainNode(ctx context.Context, name string, undo bool) (*comandav1.Node, error) {
	r, err := c.cluster.DrainNode(ctx, &comandav1.DrainNodeRequest{Node: name, Undo: undo})
	return r.GetNode(), err
}

// RemoveNode takes a node out of the cluster for good. Where a group would have no
// majority left it is refused with CodeConflict. With acceptOneDisk, groups for whose
// voter there is no other node go on with one voter.
func (c *Client) RemoveNode(ctx context.Context, name string, acceptOneDisk bool) error {
	_, err := c.cluster.RemoveNode(ctx, &comandav1.RemoveNodeRequest{Node: name, AcceptOneDisk: acceptOneDisk})
	return err
}

// Workers lists the sessions of workers, the newest first, those that have ended for
// 10 minutes more: up to limit (default 100, at most 1,000), from the page that the
// answer before named as its next; "" is the first.
func (c *Client) Workers(ctx context.Context, limit int, page string) (*comandav1.ListWorkersResponse, error) {
	return c.cluster.ListWorkers(ctx, &comandav1.ListWorkersRequest{Max: narrow(limit), Page: page})
}

// DrainWorker asks a worker to finish what it holds and has it get nothing more: all
// sessions that its name has now. Its Run then returns nil. It does not wait: Workers tells
// how far it is. A repeat changes nothing; it is CodeNotFound if nobody of that name
// works or has lately. It answers with the sessions of the name, the newest first.
func (c *Client) DrainWorker(ctx context.Context, name string) (*comandav1.DrainWorkerResponse, error) {
	return c.cluster.DrainWorker(ctx, &comandav1.DrainWorkerRequest{Worker: name})
}

// Server tells what the server is and how it fares.
func (c *Client) Server(ctx context.Context) (*comandav1.GetServerResponse, error) {
	return c.cluster.GetServer(ctx, &comandav1.GetServerRequest{})
}

// Show tells where a message is, what happened to it, and why it is not running
// now. With a wait (up to 60 s) it answers when the message has ended, or else
// after that time with what it is then; Wait goes on for longer.
func (c *Client) Show(ctx context.Context, id string, wait time.Duration, opts ...ReadOption) (*comandav1.ShowMessageResponse, error) {
	return c.messages.ShowMessage(ctx, &comandav1.ShowMessageRequest{Id: id, Wait: optional(wait), Stale: stale(opts)})
}

// waitFor is how long one call of Wait waits.
const waitFor = time.Minute

// Wait returns a message when it has ended: it is finished, dead, cancelled or
// expired. It goes on while a server is away or a shard moves, until ctx ends: then the
// error is ctx's, and says as well if nobody could be asked at last.
func (c *Client) Wait(ctx context.Context, id string) (*comandav1.Message, error) {
	var away error
	for {
		var r *comandav1.ShowMessageResponse
		err := again(ctx, func() (err error) {
			r, err = c.Show(ctx, id, waitFor)
			return err
		})
		if err == nil || untouched(err) {
			away = err
		}
		switch {
		case ctx.Err() != nil && away != nil:
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), away)
		case ctx.Err() != nil:
			return r.GetMessage(), context.Cause(ctx)
		case err == nil && Ended(r.GetMessage().GetState()):
			return r.GetMessage(), nil
		case err != nil && !untouched(err):
			return nil, err
		}
	}
}

// Ended says that a message in that state is done with, for good or until it is
// redriven.
func Ended(state string) bool {
	switch state {
	case "finished", "dead", "cancelled", "expired":
		return true
	default:
		return false
	}
}

// AllQueues is the queue to name for a list of every queue.
const AllQueues = "*"

// ListOptions say which messages to list.
type ListOptions struct {
	// State is ready, scheduled, leased, dead, finished, expired or cancelled;
	// default ready or, with a key, all that have not ended.
	State  string
	Key    string    // "": any, and messages without one
	Type   string    // "": any
	Tenant string    // "": any
	Since  time.Time // sent then or later; zero: at any time
	Until  time.Time // sent before then; zero: at any time
	Max    int       // 1–1,000; default 100
	Page   string    // the next page that the answer before named; "" is the first
	// Stale lets any replica answer with what is at most so old, as the option of
	// that name does.
	Stale time.Duration
}

// List lists messages of a queue, or of AllQueues. It changes nothing. An answer
// ends after 10,000 rows, which its plan counts: it may have fewer messages than
// asked for, or none, and a next page.
func (c *Client) List(ctx context.Context, queue string, o ListOptions) (*comandav1.ListMessagesResponse, error) {
	return c.messages.ListMessages(ctx, &comandav1.ListMessagesRequest{
		Queue: queue, State: o.State, Key: o.Key, Type: o.Type, Tenant: o.Tenant, Since: timestamp(o.Since), Until: timestamp(o.Until),
		Max: narrow(o.Max), Page: o.Page, Stale: optional(o.Stale),
	})
}

// CancelOptions say what becomes of messages that are leased.
type CancelOptions struct {
	Force bool          // their leases end, if their workers do not give them back
	Grace time.Duration // with Force: how long the workers have; up to 1 h
}

// CancelResult tells what became of one message that was to be cancelled.
type CancelResult struct {
	ID    string
	State string // cancelled, or leased: its worker has been asked; with Err: what it is, if known
	Err   error
}

// Cancel ends messages (1–1,000) that nobody wants done any more. Those that wait
// end at once; the workers of those that are leased are told, and what they give
// back ends unless they ack. err is the first failure among the results.
func (c *Client) Cancel(ctx context.Context, ids []string, o CancelOptions) (results []CancelResult, err error) {
	resp, err := c.messages.CancelMessages(ctx, &comandav1.CancelMessagesRequest{Ids: ids, Force: o.Force, Grace: optional(o.Grace)})
	if err != nil {
		return nil, err
	}
	for _, r := range resp.GetResults() {
		failed := itemError(r.GetError())
		if err == nil {
			err = failed
		}
		results = append(results, CancelResult{ID: r.GetId(), State: stateName(r.GetState()), Err: failed})
	}
	return results, err
}

// PauseOperation stops an operation between two steps; ResumeOperation lets it go on.
// by is who asks; "": the address that the call comes from. Once more changes nothing;
// one that has ended, or is being cancelled, is refused with CodeEnded.
func (c *Client) PauseOperation(ctx context.Context, id uint64, by string) (*comandav1.Operation, error) {
	r, err := c.cluster.PauseOperation(ctx, &comandav1.PauseOperationRequest{Id: id, By: by})
	return r.GetOperation(), err
}

// ResumeOperation lets a paused operation go on, and refuses as PauseOperation does.
func (c *Client) ResumeOperation(ctx context.Context, id uint64, by string) (*comandav1.Operation, error) {
	r, err := c.cluster.ResumeOperation(ctx, &comandav1.ResumeOperationRequest{Id: id, By: by})
	return r.GetOperation(), err
}

// RedriveQueueOptions choose dead messages of a queue; the zero value chooses all of
// them.
type RedriveQueueOptions struct {
	Type, Key, Tenant string
	// Reason is how the last attempt ended: nacked, rejected, expired, worker_lost, or
	// lapsed (the message's own expires); undelivered is a follow-up of an ack that its
	// queue refused.
	Reason string
	// When the message died: from DeadSince on, and before DeadUntil.
	DeadSince, DeadUntil time.Time
	Attributes           map[string]string // each with this text as its value
	Rate                 int               // messages a second; 0: as fast as it goes
	ResetAttempts        bool
	To                   string // queue that they are to live in, with attempts at 0; "": where they are
	By                   string // who revives them; "": the address that the call comes from
	DryRun               bool   // count only
}

// RedriveQueue counts the dead messages of a queue that are chosen, and begins the
// operation that revives them where they are, each once. It does not wait: Operation
// tells how far it is; nil: nothing is begun, for it was a dry run or there is
// nothing to do.
func (c *Client) RedriveQueue(ctx context.Context, queue string, o RedriveQueueOptions) (count int64, operation *comandav1.Operation, err error) {
	f := &comandav1.DeadFilter{
		Type: o.Type, Key: o.Key, Tenant: o.Tenant, Reason: o.Reason, Attributes: o.Attributes, DeadSince: timestamp(o.DeadSince), DeadUntil: timestamp(o.DeadUntil),
	}
	r, err := c.queues.RedriveQueue(ctx, &comandav1.RedriveQueueRequest{
		Queue: queue, Filter: f, Rate: narrow(o.Rate), ResetAttempts: o.ResetAttempts, DryRun: o.DryRun, To: o.To, By: o.By,
	})
	return r.GetCount(), r.GetOperation(), err
}

// RedriveResult tells what became of one message that was to be redriven.
type RedriveResult struct {
	ID  string
	Err error
}

// Redrive revives dead messages (1–1,000) where they are, if asked with their
// attempts at 0 again. err is the first failure among the results.
func (c *Client) Redrive(ctx context.Context, ids []string, resetAttempts bool) (results []RedriveResult, err error) {
	resp, err := c.messages.RedriveMessages(ctx, &comandav1.RedriveMessagesRequest{Ids: ids, ResetAttempts: resetAttempts})
	if err != nil {
		return nil, err
	}
	for _, r := range resp.GetResults() {
		failed := itemError(r.GetError())
		if err == nil {
			err = failed
		}
		results = append(results, RedriveResult{ID: r.GetId(), Err: failed})
	}
	return results, err
}
