package queue_test

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/state"
)

var (
	backlog = flag.Int("backlog", 100_000, "messages that BenchmarkBacklog stacks up")
	keyed   = flag.Int("keys", 0, "spread them over so many keys; 0: none")
	cells   = flag.Int("cells", 1, "spread unkeyed ones over so many cells, the next message in the next cell")
)

// BenchmarkBacklog measures the row layout alone, without log and network: it
// stacks up a backlog of 1 KiB messages in entries of 64 on a real disk, then
// leases and acks half of it, and counts messages per second, device bytes per
// payload byte and resident memory. Run it with -benchtime 1x.
//
//	go test ./internal/queue -run NONE -bench Backlog -benchtime 1x -backlog 10000000
func BenchmarkBacklog(b *testing.B) {
	const per, size = 64, 1024
	dir := b.TempDir()
	store, err := state.Open(state.Options{FS: vfs.Default, Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	handle := uint64(1)
	replica, err := store.OpenReplica(1, func() (uint64, error) { handle++; return handle, nil })
	if err != nil {
		b.Fatal(err)
	}
	m, index := queue.New(), uint64(0)
	apply := func(cmds ...queue.Command) []any {
		index++
		rows := replica.Begin()
		out := m.Apply(batch{rows}, index, queue.AppendEntry(nil, int64(index), int64(index), cmds))
		rows.Commit(binary.BigEndian.AppendUint64(nil, index))
		return out
	}
	apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: message.Cells - 1, Path: "0"}}}).Command())

	body := make([]byte, size)
	written, start := sectors(b), time.Now()
	for sent := 0; sent < *backlog; sent += per {
		c := queue.Send{Queue: 1, Messages: make([]queue.Sent, per)}
		for i := range c.Messages {
			x := &c.Messages[i]
			x.Cell = (sent + i) % *cells
			if *keyed > 0 {
				k := rand.IntN(*keyed)
				x.Key, x.Hash = strconv.Itoa(k), message.KeyHash{Hi: uint64(k) * 0x9E3779B97F4A7C15, Lo: uint64(k)}
			}
			for j := 0; j < size; j += 8 {
				binary.LittleEndian.PutUint64(body[j:], rand.Uint64())
			}
			x.Body = append([]byte(nil), body...)
		}
		apply(c.Command())
	}
	if err := store.Flush(); err != nil {
		b.Fatal(err)
	}
	payload := float64(*backlog) * size
	b.ReportMetric(float64(*backlog)/time.Since(start).Seconds(), "fill/s")
	b.ReportMetric(float64(sectors(b)-written)*512/payload, "fill-dev-B/B")
	b.ReportMetric(float64(resident(b)), "fill-MiB")

	written, start = sectors(b), time.Now()
	var after [message.Cells]*queue.Ref
	done, floors := 0, []queue.Floor(nil)
	for done < *backlog/2 {
		view := replica.View()
		var window []queue.Offer
		for n := range message.Cells {
			w := queue.Offers(view, 1, n, after[n], 1000)
			if len(w) > 0 {
				first := after[n] == nil
				after[n] = &w[len(w)-1].Ref
				if !first {
					window = append(window, w...)
					continue // heads of keys may have come up behind the window
				}
				floors = append(floors, queue.Floor{Cell: n, Priority: w[0].Priority, Seq: w[0].Seq, Index: index})
			}
			window = append(window, w...)
		}
		view.Close()
		if len(window) == 0 {
			if done == 0 {
				b.Fatal("nothing to drain")
			}
			clear(after[:]) // heads of keys that came up behind the window
			continue
		}
		for i := 0; i < len(window); i += per {
			l := queue.Lease{Queue: 1, Worker: "w", Length: time.Minute, MaxBytes: 1 << 30, Items: queue.Refs(window[i:min(i+per, len(window))]), Floors: floors}
			floors = nil
			got := apply(l.Command())[0].(queue.LeaseResult)
			var s queue.Settle
			for _, x := range got.Leased {
				s.Settlements = append(s.Settlements, message.Settlement{Token: message.Token{ID: x.ID, Fence: x.Fence}, Action: message.Ack})
			}
			for _, r := range apply(s.Command())[0].([]message.SettleResult) {
				if r.Err != nil {
					b.Fatal(r.Err)
				}
			}
			done += len(got.Leased)
		}
	}
	b.ReportMetric(float64(done)/time.Since(start).Seconds(), "drain/s")
	b.ReportMetric(float64(sectors(b)-written)*512/float64(done*size), "drain-dev-B/B")
	b.ReportMetric(float64(resident(b)), "drain-MiB")
	b.ReportMetric(0, "ns/op")
}

// sectors is how many sectors of 512 bytes all block devices have written.
func sectors(b *testing.B) (n uint64) {
	devices, err := os.ReadDir("/sys/block")
	if err != nil {
		b.Skip("needs Linux's /sys/block to count device bytes")
	}
	for _, d := range devices {
		stat, err := os.ReadFile("/sys/block/" + d.Name() + "/stat")
		if f := strings.Fields(string(stat)); err == nil && len(f) > 6 {
			v, _ := strconv.ParseUint(f[6], 10, 64)
			n += v
		}
	}
	return n
}

func resident(b *testing.B) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "VmRSS:" {
			kib, _ := strconv.Atoi(f[1])
			return kib >> 10
		}
	}
	return 0
}
