//go:build !race

// Package allocs counts what a message costs in allocations and compares with
// what it cost when somebody last looked: 10 % more fails. Counts do not depend
// on how busy the machine is, so they can be compared where times can't. The
// race detector adds allocations of its own, so the package is empty under it
// and has a command of its own:
//
//	go test ./test/allocs            # -update writes the file anew
package allocs

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/node"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/state"
)

var update = flag.Bool("update", false, "write the file anew")

const (
	file  = "testdata/allocations.txt"
	entry = 64 // messages
	runs  = 50 // entries in one measurement
)

// perMessage is the smallest of five measurements of f, which handles one entry
// of messages.
func perMessage(f func()) float64 {
	f() // warm up
	best := 0.0
	for i := range 5 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range runs {
			f()
		}
		runtime.ReadMemStats(&after)
		if n := float64(after.Mallocs-before.Mallocs) / (runs * entry); i == 0 || n < best {
			best = n
		}
	}
	return best
}

func TestAllocations(t *testing.T) {
	got := map[string]float64{
		"apply: send, lease and ack": applyEntry(t),
		"send through a whole node":  sendPath(t),
	}
	if *update {
		var b bytes.Buffer
		for _, name := range slices.Sorted(maps.Keys(got)) {
			fmt.Fprintf(&b, "%8.2f %s\n", got[name], name)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var limit float64
		if _, err := fmt.Sscan(string(line), &limit); err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		name := string(bytes.TrimSpace(line[9:]))
		t.Logf("%s: %.2f allocations a message, %.2f in the file", name, got[name], limit)
		if got[name] > limit*1.1 {
			t.Errorf("%s: %.2f allocations a message, more than 10 %% above the %.2f in %s: find out why, or write it anew with -update and say why in the commit", name, got[name], limit, file)
		}
	}
}

// applyEntry is the state machine and its rows alone: an entry of sends, one of
// leases, one of acks.
func applyEntry(t *testing.T) float64 {
	store, err := state.Open(state.Options{FS: vfs.NewMem(), Dir: "rows", StoreID: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
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
	return perMessage(func() {
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
	})
}

// sendPath is a send of 64 messages from the gateway through the log to the
// rows and back.
func sendPath(t *testing.T) float64 {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Config{FS: vfs.NewMem(), DataDir: "data", Listen: "127.0.0.1:0", DiskReserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Stop(ctx) }()
	g := n.Gateway()
	if _, _, err := g.CreateQueue(ctx, "q", message.Settings{}, 1); err != nil {
		t.Fatal(err)
	}
	msgs := make([]message.New, entry)
	for i := range msgs {
		msgs[i].Body = make([]byte, 1024)
	}
	return perMessage(func() {
		if _, err := g.Send(ctx, "q", msgs); err != nil {
			t.Fatal(err)
		}
	})
}

// whole are rows of a group that spins nothing off.
type whole struct{ *state.Batch }

func (whole) SpinOff(uint64, map[uint64]uint64, []uint64) (func(key, value []byte), *message.Error) {
	panic("nothing is spun off here")
}
