package client

import (
	"context"
	"time"

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
	return c.queues.CreateQueue(ctx, &comandav1.CreateQueueRequest{Queue: queue, Settings: o.Settings, Shards: int32(o.Shards)})
}

// Queue tells a queue's settings and counts, and who receives from it.
func (c *Client) Queue(ctx context.Context, queue string) (*comandav1.GetQueueResponse, error) {
	return c.queues.GetQueue(ctx, &comandav1.GetQueueRequest{Queue: queue})
}

// Queues lists queues by name: up to limit (default 100, at most 1,000), from the
// page that the answer before named as its next; "" is the first.
func (c *Client) Queues(ctx context.Context, limit int, page string) (*comandav1.ListQueuesResponse, error) {
	return c.queues.ListQueues(ctx, &comandav1.ListQueuesRequest{Max: int32(limit), Page: page})
}

// DeleteQueue deletes a queue and every message in it.
func (c *Client) DeleteQueue(ctx context.Context, queue string) error {
	_, err := c.queues.DeleteQueue(ctx, &comandav1.DeleteQueueRequest{Queue: queue})
	return err
}

// Pause stops handing out a queue's messages; sends and settles go on.
func (c *Client) Pause(ctx context.Context, queue string) error {
	_, err := c.queues.PauseQueue(ctx, &comandav1.PauseQueueRequest{Queue: queue})
	return err
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, queue string) error {
	_, err := c.queues.ResumeQueue(ctx, &comandav1.ResumeQueueRequest{Queue: queue})
	return err
}

// Locate tells which shard, group and nodes a key belongs to.
func (c *Client) Locate(ctx context.Context, queue, key string) (*comandav1.LocateKeyResponse, error) {
	return c.queues.LocateKey(ctx, &comandav1.LocateKeyRequest{Queue: queue, Key: key})
}

// Shards lists the shards of a queue or, if queue is empty, of up to limit queues
// (default 100, at most 1,000) from the page that the answer before named as its
// next; "" is the first.
func (c *Client) Shards(ctx context.Context, queue string, limit int, page string) (*comandav1.ListShardsResponse, error) {
	return c.cluster.ListShards(ctx, &comandav1.ListShardsRequest{Queue: queue, Max: int32(limit), Page: page})
}

// Server tells what the server is and how it fares.
func (c *Client) Server(ctx context.Context) (*comandav1.GetServerResponse, error) {
	return c.cluster.GetServer(ctx, &comandav1.GetServerRequest{})
}

// Show tells where a message is, what happened to it, and why it is not running
// now. With a wait (up to 60 s) it answers when the message is finished or dead.
func (c *Client) Show(ctx context.Context, id string, wait time.Duration) (*comandav1.ShowMessageResponse, error) {
	return c.messages.ShowMessage(ctx, &comandav1.ShowMessageRequest{Id: id, Wait: optional(wait)})
}

// ListOptions say which messages to list.
type ListOptions struct {
	State string // ready (default), scheduled, leased, dead or finished
	Max   int    // 1–1,000; default 100
	Page  string // the next page that the answer before named; "" is the first
}

// List lists messages of one state. It changes nothing.
func (c *Client) List(ctx context.Context, queue string, o ListOptions) (*comandav1.ListMessagesResponse, error) {
	return c.messages.ListMessages(ctx, &comandav1.ListMessagesRequest{Queue: queue, State: o.State, Max: int32(o.Max), Page: o.Page})
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
