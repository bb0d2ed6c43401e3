//go:build !race

package cost

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/node"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/state"
)

// works are what is measured: each makes a function that handles one entry of
// messages.
var works = map[string]func(*testing.T) func(){
	"apply: send, lease and ack": applyEntry,
	"send through a whole node":  sendPath,
}

const entry = 64 // messages

// applyEntry is the state machine and its rows alone: an entry of sends, one of
// leases, one of acks.
func applyEntry(t *testing.T) func() {
	store, err := state.Open(state.Options{FS: vfs.NewMem(), Dir: "rows", StoreID: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	handle := uint64(1)
	replica, err := store.OpenReplica(1, func() (uint64, error) { handle++; return handle, nil })
	if err != nil {
		t.Fatal(err)
	}
	m, index := queue.New(), uint64(0)
	var buf []byte
	apply := func(c queue.Command) any {
		index++
		b := replica.Begin()
		buf = queue.AppendEntry(buf[:0], int64(index), int64(index), []queue.Command{c})
		out := m.Apply(whole{b}, index, buf)
		b.Commit(binary.BigEndian.AppendUint64(nil, index))
		return out[0]
	}
	apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: message.Cells - 1, Path: "0"}}}).Command())
	send := queue.Send{Queue: 1, Messages: make([]queue.Sent, entry)}
	for i := range send.Messages {
		send.Messages[i].Body = make([]byte, 1024)
	}
	return func() {
		lease := queue.Lease{Queue: 1, Worker: "w", Length: time.Minute, MaxBytes: 1 << 30}
		for _, r := range apply(send.Command()).([]message.SendResult) {
			lease.Items = append(lease.Items, queue.Ref{Seq: r.ID.Seq()})
		}
		var ack queue.Settle
		for _, x := range apply(lease.Command()).(queue.LeaseResult).Leased {
			ack.Settlements = append(ack.Settlements, message.Settlement{Token: message.Token{ID: x.ID, Fence: x.Fence}, Action: message.Ack})
		}
		if n := len(apply(ack.Command()).([]message.SettleResult)); n != entry {
			t.Fatalf("%d of %d were acked", n, entry)
		}
	}
}

// sendPath is a send of 64 messages from the gateway through the log to the
// rows and back.
func sendPath(t *testing.T) func() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Config{FS: vfs.NewMem(), DataDir: "data", Listen: "127.0.0.1:0", DiskReserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Stop(ctx) })
	g := n.Gateway()
	if _, _, err := g.CreateQueue(ctx, "q", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	msgs := make([]message.New, entry)
	for i := range msgs {
		msgs[i].Body = make([]byte, 1024)
	}
	return func() {
		if _, err := g.Send(ctx, "q", msgs); err != nil {
			t.Fatal(err)
		}
	}
}

// whole are rows of a group that spins nothing off.
type whole struct{ *state.Batch }

func (whole) SpinOff(uint64, map[uint64]uint64, []uint64) (func(key, value []byte), *message.Error) {
	panic("nothing is spun off here")
}
