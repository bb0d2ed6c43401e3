package replica

import (
	"context"
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/message"
)

// Rows are a replica's rows, in spaces, while an entry is applied.
type Rows interface {
	// Get returns a copy of a row's value, and whether the row is there.
	Get(space uint64, key []byte) ([]byte, bool)
	Has(space uint64, key []byte) bool
	// Scan visits rows from lo to before hi until visit says false; key and
	// value are valid only during the call.
	Scan(space uint64, lo, hi []byte, visit func(key, value []byte) bool)
	Set(space uint64, key, value []byte)
	Delete(space uint64, key []byte)
	// SingleDelete deletes a row that was set exactly once.
	SingleDelete(space uint64, key []byte)
	// Clear drops all rows of a space.
	Clear(space uint64)
	// SpinOff makes a new group of spaces of this one, which has them no more: on
	// every node that has a replica here, a replica of it, with the rows as they
	// are. replicas gives each voter and learner of this group, by its id, the id
	// of its child's replica. set writes the first rows of the new group's
	// GroupSpace. A refusal (CONFLICT: the configuration is another one, or is
	// changing) is the same on every replica, and changes nothing.
	SpinOff(group uint64, replicas map[uint64]uint64, spaces []uint64) (set func(key, value []byte), refusal *message.Error)
}

// Command is what one proposer wants applied. Its parts are the machine's own
// business; bodies are kept apart so that they are copied once, into the entry.
// It must not change until done is called.
type Command struct {
	Head   []byte
	Bodies [][]byte
}

func (c Command) size() int64 {
	n := len(c.Head)
	for _, b := range c.Bodies {
		n += len(b)
	}
	return int64(n)
}

// StateMachine is what a group replicates. Apply, Applied, Lead and Follow are called by
// the group's apply worker, Join by the host's loop at the same time.
type StateMachine interface {
	// Join appends to buf one entry that holds the commands in order, and stamps
	// what only a leader may know, such as the time. It keeps neither buf nor
	// cmds. It is called only while this replica leads, as far as it knows, and
	// the entry may still be lost, and the commands joined anew to another one.
	Join(buf []byte, cmds []Command) []byte
	// Apply applies an entry that Join made and returns one result for each
	// command, in order. It must be a pure function of the rows and the entry,
	// the same on every replica. It may keep the entry, and not change it.
	Apply(rows Rows, index uint64, entry []byte) []any
	// Applied is called after each Apply, when the entry's rows can be read by
	// views, and before its results are given.
	Applied()
	// Lead tells that this replica leads and that an entry of its term, and so
	// everything confirmed before, is applied here. No two calls without Follow
	// between them.
	Lead(term uint64)
	// Follow tells that it leads no more; also called when the host ends.
	Follow()
}

// Outgoing is a message to another replica of a group. The replica's id is in
// Message.To; the transport knows its node.
type Outgoing struct {
	Group   uint64
	Message *raftpb.Message
}

// Transport sends messages to other nodes.
type Transport interface {
	// Send never blocks and may lose any of them. It does not keep the slice and
	// does not change the messages: their entries are shared with the log and
	// the apply worker.
	Send(msgs []Outgoing)
	// SendSnapshot sends a MsgSnap and the rows in body, and returns when the
	// receiver's ReceiveSnapshot has: nil only if it returned nil. It is called on
	// a goroutine of its own, once at a time, and may block; it must return when
	// ctx has ended, and with an error when the connection is lost or stands
	// still. body is read as fast as it may be sent; it fails when ctx has ended, and must
	// not be read after the return.
	SendSnapshot(ctx context.Context, s Outgoing, body io.Reader) error
}
