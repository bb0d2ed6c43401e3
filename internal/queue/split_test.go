package queue_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
	"github.com/comanda-mq/comanda/internal/state"
)

// picture is all that may not change when a shard is split.
type picture struct {
	Counts    message.Counts
	Messages  map[message.ID]queue.Detail
	Offers    []queue.Offer
	Timers    []queue.TimerRef
	Deadlines []queue.Deadline
}

func pictureOf(rows queue.Reader, ids []message.ID) picture {
	q, _ := queue.Queue(rows, 1)
	p := picture{Counts: q.Counts(), Messages: map[message.ID]queue.Detail{}}
	for _, id := range ids {
		if d, ok := queue.Show(rows, id); ok {
			d.Shard = ""
			p.Messages[id] = *d
		}
	}
	for n := range message.Cells {
		p.Offers = append(p.Offers, everyOffer(rows, n)...)
		p.Timers = append(p.Timers, everyTimer(rows, n)...)
		p.Deadlines = append(p.Deadlines, queue.Deadlines(rows, 1, n)...)
	}
	return p
}

// watched are rows that note what an entry writes, and refuse to scan.
type watched struct {
	*mapRows
	t       *testing.T
	written []string
}

func (w *watched) Set(space uint64, key, value []byte) {
	w.written = append(w.written, fmt.Sprintf("%d/%c", space, key[0]))
	w.mapRows.Set(space, key, value)
}

func (w *watched) Delete(space uint64, key []byte)       { w.t.Errorf("row %d/%q is deleted", space, key) }
func (w *watched) SingleDelete(space uint64, key []byte) { w.Delete(space, key) }
func (w *watched) Scan(space uint64, lo, _ []byte, _ func(k, v []byte) bool) {
	w.t.Errorf("rows are scanned from %d/%q", space, lo)
}

// TestSplit splits a shard that holds a message in every state, and shows that
// nothing but the shards' own rows is written (A8), that every message is as it
// was (I3), and that what was given before works after (I5).
func TestSplit(t *testing.T) {
	w := newWorld()
	settings := message.Settings{}.WithDefaults()
	shards := []queue.Bounds{{To: 15, Path: "0"}}
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: settings, Shards: shards}).Command())
	var ids []message.ID
	keys := []string{"", "", "", "", "", "", "k", "k", "l", "m"}
	for i, key := range keys {
		m := queue.Sent{Cell: i * 3 % message.Cells, Hash: hashOf(key), New: message.New{Key: key, Body: []byte{byte(i)}}}
		ids = append(ids, w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())[0].([]message.SendResult)[0].ID)
	}
	var tokens []message.Token
	lease := func(session queue.Session, refs ...queue.Ref) {
		for _, x := range w.apply((&queue.Lease{Queue: 1, Worker: "w", Session: session, Length: time.Minute, Items: refs, MaxBytes: 1 << 20}).Command())[0].(queue.LeaseResult).Leased {
			tokens = append(tokens, message.Token{ID: x.ID, Fence: x.Fence, Session: session.ID})
		}
	}
	settle := func(tok message.Token, a message.Action) message.SettleResult {
		return w.apply((&queue.Settle{Settlements: []message.Settlement{{Token: tok, Action: a, Lease: time.Minute}}}).Command())[0].([]message.SettleResult)[0]
	}
	offers := queue.Refs(pictureOf(w.rows, nil).Offers)
	lease(queue.Session{}, offers[:5]...)
	lease(queue.Session{ID: 7, Incarnation: 1, CatalogVersion: 1}, offers[5:]...)
	for i, a := range []message.Action{message.Ack, message.Nack, message.Reject, message.Release, message.Extend} {
		if r := settle(tokens[i], a); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	before := pictureOf(w.rows, ids)

	split := func(from, to, at int, epoch uint64) any {
		return w.apply((&queue.Split{Queue: 1, From: from, To: to, At: at, Epoch: epoch}).Command())[0]
	}
	rows := &watched{mapRows: w.rows, t: t}
	w.index++
	entry := queue.AppendEntry(nil, w.now, 1_000_000+w.now, []queue.Command{(&queue.Split{Queue: 1, To: 15, At: 8, Epoch: 1}).Command()})
	if r := w.m.Apply(rows, w.index, entry)[0]; r != nil {
		t.Fatal(r)
	}
	if want := []string{"0/s", "0/s", "0/g"}; !slices.Equal(rows.written, want) {
		t.Errorf("a split writes the rows %v, want %v", rows.written, want)
	}
	if e := w.m.Effects(); !slices.Equal(e, []queue.Effect{{Kind: queue.Configured, Queue: 1}}) {
		t.Errorf("a split has the effects %+v", e)
	}
	for _, r := range []any{split(0, 7, 1, 2), split(8, 15, 15, 2), split(1, 7, 2, 3)} {
		if r != nil {
			t.Fatal(r)
		}
	}
	if after := pictureOf(w.rows, ids); !reflect.DeepEqual(before, after) {
		t.Errorf("before: %+v\nafter:  %+v", before, after)
	}
	wantShards := []queue.Bounds{{Path: "0.0.0"}, {From: 1, To: 1, Path: "0.0.1.0"}, {From: 2, To: 7, Path: "0.0.1.1"}, {From: 8, To: 14, Path: "0.1.0"}, {From: 15, To: 15, Path: "0.1.1"}}
	epochs := []uint64{3, 4, 4, 3, 3}
	check := func(when string) {
		t.Helper()
		q, _ := queue.Queue(w.rows, 1)
		known, _ := w.m.Info(1)
		for i, s := range q.Shards {
			if k := known.Shards[i]; s.Bounds != wantShards[i] || s.Epoch != epochs[i] || k.Bounds != s.Bounds || k.Epoch != s.Epoch {
				t.Errorf("%s: shard %d is %+v in the rows and %+v in memory, want %+v with epoch %d", when, i, s, k, wantShards[i], epochs[i])
			}
		}
		if len(q.Shards) != len(wantShards) || len(known.Shards) != len(wantShards) {
			t.Errorf("%s: %d shards in the rows, %d in memory", when, len(q.Shards), len(known.Shards))
		}
	}
	check("after splits")

	// The catalog's copy may be older than the split: its settings count, its
	// shards don't.
	settings.MaxAttempts = 9
	w.apply((&queue.Configure{Queue: 1, Version: 2, Settings: settings, Shards: shards}).Command())
	if q, _ := queue.Queue(w.rows, 1); q.Settings.MaxAttempts != 9 {
		t.Errorf("the settings did not change: %+v", q.Settings)
	}
	check("configured again")
	w.m = queue.New()
	w.apply(queue.Tick())
	check("loaded again")

	for _, tok := range tokens[4:] {
		if r := settle(tok, message.Ack); r.Err != nil {
			t.Errorf("a token from before the split: %v", r.Err)
		}
	}
	// What is numbered now is higher than all that was: for each key, in each cell.
	for i, key := range keys {
		m := queue.Sent{Cell: ids[i].Point().Cell(), Hash: hashOf(key), New: message.New{Key: key}}
		id := w.apply((&queue.Send{Queue: 1, Messages: []queue.Sent{m}}).Command())[0].([]message.SendResult)[0].ID
		for _, old := range tokens {
			if old.ID.Point() == id.Point() && id.Seq() <= old.Fence {
				t.Errorf("key %q: message %d came after fence %d", key, id.Seq(), old.Fence)
			}
		}
	}
}

func TestSplitRefusals(t *testing.T) {
	w := newWorld()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 7, Path: "0"}, {From: 8, To: 8, Path: "1"}}}).Command())
	for _, c := range []struct {
		split queue.Split
		want  message.Code
	}{
		{queue.Split{Queue: 2, To: 7, At: 4, Epoch: 1}, message.WrongShard},
		{queue.Split{Queue: 1, From: 9, To: 15, At: 12, Epoch: 1}, message.WrongShard},
		{queue.Split{Queue: 1, To: 7, At: 4, Epoch: 2}, message.Conflict},
		{queue.Split{Queue: 1, To: 6, At: 4, Epoch: 1}, message.Conflict},
		{queue.Split{Queue: 1, From: 1, To: 7, At: 4, Epoch: 1}, message.Conflict},
		{queue.Split{Queue: 1, To: 7, At: 0, Epoch: 1}, message.InvalidArgument},
		{queue.Split{Queue: 1, To: 7, At: 8, Epoch: 1}, message.InvalidArgument},
		{queue.Split{Queue: 1, From: 8, To: 8, At: 8, Epoch: 1}, message.InvalidArgument},
	} {
		before := newMapRows()
		before.rows = cloneRows(w.rows.rows)
		err, _ := w.apply(c.split.Command())[0].(*message.Error)
		if err == nil || err.Code != c.want || !w.rows.equal(before) {
			t.Errorf("%+v: %v, want %s and no change", c.split, err, c.want)
		}
	}
}

var waiting = flag.Int("waiting", 1_000_000, "messages that wait in the shard that BenchmarkSplit splits")

// BenchmarkSplit measures how long a split is applied while many messages wait
// in the shard.
//
//	go test ./internal/queue -run NONE -bench Split -benchtime 1x
func BenchmarkSplit(b *testing.B) {
	store, err := state.Open(state.Options{FS: vfs.Default, Dir: b.TempDir()})
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
	apply := func(c queue.Command) any {
		index++
		rows := replica.Begin()
		out := m.Apply(batch{rows}, index, queue.AppendEntry(nil, int64(index), int64(index), []queue.Command{c}))
		rows.Commit(binary.BigEndian.AppendUint64(nil, index))
		return out[0]
	}
	apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: message.Cells - 1, Path: "0"}}}).Command())
	send := queue.Send{Queue: 1, Messages: make([]queue.Sent, 500)}
	for i := range send.Messages {
		send.Messages[i].Cell, send.Messages[i].Body = i%message.Cells, make([]byte, 100)
	}
	c := send.Command()
	for range *waiting / len(send.Messages) {
		apply(c)
	}
	splits := []queue.Split{{Queue: 1, To: 15, At: 8, Epoch: 1}, {Queue: 1, To: 7, At: 4, Epoch: 2}, {Queue: 1, From: 8, To: 15, At: 12, Epoch: 2}}
	longest := time.Duration(0)
	for i := range splits {
		start := time.Now()
		if r := apply(splits[i].Command()); r != nil {
			b.Fatal(r)
		}
		longest = max(longest, time.Since(start))
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "ms/longest-split")
	b.ReportMetric(0, "ns/op")
}
