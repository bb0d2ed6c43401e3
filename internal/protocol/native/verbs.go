package native

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// Verbs are what this protocol asks for. They check limits, names and rights,
// so that every protocol gets the same answers. Their errors are *message.Error
// or errors of ctx; anything else is told to clients as INTERNAL. They may be
// called from many goroutines. Slices that they are given belong to them, bodies
// included; those that they return belong to the caller.
type Verbs interface {
	// Send answers with one result a message, in order.
	Send(ctx context.Context, queue string, msgs []message.New) ([]message.SendResult, error)
	// SendAtomic stores all or none of them.
	SendAtomic(ctx context.Context, queue string, msgs []message.New) ([]message.SendResult, error)
	// Receive waits for a first message up to o.Wait. When ctx ends it hands out
	// nothing.
	Receive(ctx context.Context, queue string, o message.ReceiveOptions) ([]message.Delivery, error)
	// OpenSession opens or takes up a worker's session for one stream.
	OpenSession(ctx context.Context, o message.SessionOptions) (message.Attachment, error)
	// Settle answers with one result a settlement, in order.
	Settle(ctx context.Context, s []message.Settlement) ([]message.SettleResult, error)
	// OpenToken reads a token's text and refuses what this cluster did not write.
	OpenToken(text string) (message.Token, error)

	// Show waits up to wait until the message is finished or dead.
	Show(ctx context.Context, id message.ID, o message.ReadOptions, wait time.Duration) (message.Shown, message.Freshness, error)
	List(ctx context.Context, queue string, o message.ListOptions) (message.Listed, error)
	// Cancel answers with one result an id, in order.
	Cancel(ctx context.Context, ids []message.ID, o message.CancelOptions) ([]message.SettleResult, error)
	// Redrive answers with one error or nil an id, in order.
	Redrive(ctx context.Context, ids []message.ID, reset bool) ([]*message.Error, error)

	CreateQueue(ctx context.Context, name string, s message.Settings, shards int) (info message.QueueInfo, created bool, err error)
	Queue(ctx context.Context, name string, o message.ReadOptions) (message.QueueInfo, message.Freshness, error)
	// Queues answers with at most n queues from page on, and the next page.
	Queues(ctx context.Context, n int, page string, o message.ReadOptions) ([]message.QueueInfo, string, message.Freshness, error)
	UpdateQueue(ctx context.Context, name string, s message.Settings, version uint64, dryRun bool) (message.QueueInfo, error)
	DeleteQueue(ctx context.Context, name string) error
	PurgeQueue(ctx context.Context, name string) error
	// RedriveQueue counts, and unless it is a dry run begins an operation.
	RedriveQueue(ctx context.Context, name string, r message.Redrive, by string, dryRun bool) (message.RedrivePlan, error)
	PauseQueue(ctx context.Context, name string, paused bool, of message.Pause) error
	Locate(ctx context.Context, queue, key string) (message.Location, error)
	Owners(ctx context.Context, queue string) ([]message.ShardOwners, error)

	// Shards answers for one queue or, if queue is empty, for at most n from page
	// on, and with the next page.
	Shards(ctx context.Context, queue string, n int, page string, o message.ReadOptions) ([]message.ShardInfo, string, message.Freshness, error)
	SplitShard(ctx context.Context, queue, path string) ([]message.ShardInfo, error)
	MoveShard(ctx context.Context, queue, path, node, by string) (message.OperationInfo, error)
	Server(ctx context.Context) (message.ServerInfo, error)

	// Operations answers with at most n operations from page on, the newest first,
	// and the next page.
	Operations(ctx context.Context, n int, page string) ([]message.OperationInfo, string, error)
	Operation(ctx context.Context, id uint64) (message.OperationInfo, error)
	CancelOperation(ctx context.Context, id uint64, by string) (message.OperationInfo, error)
	PauseOperation(ctx context.Context, id uint64, paused bool, by string) (message.OperationInfo, error)

	Nodes(ctx context.Context) ([]message.NodeInfo, error)
	DrainNode(ctx context.Context, name string, undo bool) (message.NodeInfo, error)
	RemoveNode(ctx context.Context, name string, acceptOneDisk bool) error

	// Workers answers with at most n sessions of workers from page on, the newest
	// first, and the next page.
	Workers(ctx context.Context, n int, page string) (message.ListedWorkers, error)
	// DrainWorker answers with the sessions of the worker's name, the newest first.
	DrainWorker(ctx context.Context, name string) (message.ListedWorkers, error)
}
