package queue_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// FuzzEntry applies anything at all as an entry. What does not read stops the
// process by an error in words (A2); it may not be a fault of memory or index,
// and what does read may not break the rows (the map refuses a wrong
// SingleDelete).
func FuzzEntry(f *testing.F) {
	configure := queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}
	send := queue.Send{Queue: 1, Messages: []queue.Sent{
		{New: message.New{Body: []byte("body"), Key: "k", Type: "t", Delay: time.Second, Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeString, Value: []byte("v")}}}},
		{Cell: 1, New: message.New{Body: []byte("body")}},
	}}
	lease := queue.Lease{Queue: 1, Worker: "w", Length: time.Second, MaxBytes: 100, Items: []queue.Ref{{Cell: 1, Seq: 2}}, Floors: []queue.Floor{{Cell: 1, Seq: 2, Index: 3}}}
	id := message.NewID(1, message.CellPoint(1), 2)
	settle := queue.Settle{Settlements: []message.Settlement{{Token: message.Token{ID: id, Fence: 3}, Action: message.Nack}}}
	expire := queue.Expire{Queue: 1, Leases: []queue.LeaseRef{{Cell: 1, Seq: 2, Fence: 3}}}
	wake := queue.Wake{Queue: 1, Timers: []queue.TimerRef{{Cell: 0, Due: 1001, Seq: 1}}}
	redrive := queue.Redrive{IDs: []message.ID{id}}
	drop := queue.Drop{Queue: 1}
	for _, c := range everyCommand() {
		f.Add(queue.AppendEntry(nil, 1, 2, []queue.Command{c}))
	}
	for _, c := range []queue.Command{configure.Command(), send.Command(), lease.Command(), settle.Command(), expire.Command(), wake.Command(), redrive.Command(), drop.Command(), queue.Tick()} {
		f.Add(queue.AppendEntry(nil, 1, 2, []queue.Command{c}))
		f.Add(queue.AppendEntry(nil, 5000, 2, []queue.Command{configure.Command(), send.Command(), lease.Command(), settle.Command(), c}))
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			if _, ok := r.(error); !ok {
				t.Fatal(r)
			}
			if _, ok := r.(runtime.Error); ok {
				panic(r)
			}
		}()
		m, rows := queue.New(), newMapRows()
		m.Apply(rows, 1, queue.AppendEntry(nil, 1, 1, []queue.Command{configure.Command()}))
		m.Apply(rows, 2, entry)
		m.Apply(rows, 3, entry)
		for n := range message.Cells {
			queue.Offers(rows, 1, n, nil, 10)
			queue.Deadlines(rows, 1, n)
		}
	})
}

// FuzzRow describes anything at all as a row: the decoders may not fail.
func FuzzRow(f *testing.F) {
	for _, kind := range []byte("mdbslrtknxfogqwezOWFIJ") {
		f.Add(uint64(0), append([]byte{kind}, make([]byte, 24)...), []byte{1, 2, 3})
		f.Add(uint64(257), append([]byte{kind}, make([]byte, 24)...), make([]byte, 40))
	}
	f.Fuzz(func(t *testing.T, space uint64, key, value []byte) {
		if len(key) > 0 {
			queue.Describe(space, key, value)
		}
	})
}
