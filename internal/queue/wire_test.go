package queue_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

func everyCommand() map[string]queue.Command {
	configure := queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{Backoff: message.Backoff{Kind: message.BackoffList, List: []time.Duration{time.Second}}}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}
	configure.Pauses, configure.Hashes = []message.Pause{{Key: "k", By: "ann", At: 9}}, []uint64{7}
	send := queue.Send{Queue: 1, Messages: []queue.Sent{
		{Hash: hashOf("k"), New: message.New{Body: []byte("body"), Key: "k", Type: "t", Delay: time.Second, Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeString, Value: []byte("v")}}}},
		{Cell: 1, New: message.New{Body: bytes.Repeat([]byte("b"), 300)}},
		{Cell: 2, TenantHash: 7, New: message.New{Priority: 9, DedupID: "d", Tenant: "t", Key: "k", UniqueKey: "u", OnConflict: message.ConflictExisting, DeliverAt: time.UnixMilli(77), Expires: time.UnixMilli(78), Retry: &message.Retry{MaxAttempts: 2, Backoff: message.Backoff{Kind: message.BackoffList, List: []time.Duration{time.Second, time.Minute}}}}},
	}}
	lease := queue.Lease{Queue: 1, Worker: "w", Session: queue.Session{ID: 7, Incarnation: 8, CatalogVersion: 9}, Length: time.Second, MaxBytes: 100, Items: []queue.Ref{{Cell: 1, Seq: 2}}, Floors: []queue.Floor{{Cell: 1, Seq: 2, Index: 3}}}
	several := lease
	several.PerKey, several.Extra = 3, 2
	id := message.NewID(1, message.CellPoint(1), 2)
	settle := queue.Settle{Settlements: []message.Settlement{{Token: message.Token{ID: id, Fence: 3, Session: 7}, Action: message.Nack, Error: "boom", HasDelay: true, Delay: time.Second}}}
	ack := message.Settlement{Token: message.Token{ID: id, Fence: 3, Session: 7}, Action: message.Ack}
	followUps := []queue.FollowUp{
		{To: queue.Target{Queue: 2, Secret: message.Secret{7}}, Sent: send.Messages[0]},
		{To: queue.Target{Queue: 1}, Sent: queue.Sent{Cell: 1, New: message.New{Body: []byte("b"), Expires: time.UnixMilli(78)}}},
	}
	refs := []queue.LeaseRef{{Cell: 1, Seq: 2, Fence: 3}}
	return map[string]queue.Command{
		"configure":      configure.Command(),
		"send":           send.Command(),
		"lease":          lease.Command(),
		"lease several":  several.Command(),
		"settle":         settle.Command(),
		"settle send":    (&queue.Settle{Settlements: []message.Settlement{settle.Settlements[0], ack}, FollowUps: [][]queue.FollowUp{nil, followUps}}).Command(),
		"expire":         (&queue.Expire{Queue: 1, Leases: refs}).Command(),
		"release leases": (&queue.ReleaseLeases{Queue: 1, Leases: refs}).Command(),
		"wake":           (&queue.Wake{Queue: 1, Timers: []queue.TimerRef{{Due: 1001, Seq: 1}, {Cell: 15, Kind: queue.TimerWindow, Due: 1002, Seq: 2}}}).Command(),
		"redrive":        (&queue.Redrive{IDs: []message.ID{id}, ResetAttempts: true}).Command(),
		"redrive some":   (&queue.RedriveSome{Queue: 1, Cell: 1, Operation: 7, Through: 2, ResetAttempts: true, Messages: []queue.DeadRef{{Seq: 2, Counter: 1}}}).Command(),
		"deliver":        (&queue.Deliver{To: queue.Line{Queue: 1, Cell: 1}, From: queue.Line{Queue: 2, Cell: 3}, Floor: 1, Parcels: []queue.Parcel{{Seq: 1, Head: queue.Head{Foreign: id, SentAt: 5}, Body: []byte("b"), History: []queue.Attempt{{Outcome: queue.Nacked, Number: 1}}}}}).Command(),
		"deliver new":    (&queue.Deliver{To: queue.Line{Queue: 1, Cell: 1}, From: queue.Line{Queue: 2, Cell: 3}, Floor: 1, Parcels: []queue.Parcel{{Seq: 1, Head: queue.Head{Foreign: id, SentAt: 5, Due: 1000, Expires: 78}, Body: []byte("b")}}}).Command(),
		"delivered":      (&queue.Delivered{From: queue.Line{Queue: 1, Cell: 1}, To: queue.Line{Queue: 2, Cell: 3}, Results: []queue.DeliveredResult{{Seq: 1}, {Seq: 2, Err: message.Errorf(message.TooLarge, "too large")}}}).Command(),
		"redrive to":     (&queue.RedriveSome{Queue: 1, Cell: 1, Operation: 7, Through: 2, To: queue.Target{Queue: 2, Secret: message.Secret{7}}, Messages: []queue.DeadRef{{Seq: 2, Counter: 1}}}).Command(),
		"drop":           (&queue.Drop{Queue: 2}).Command(),
		"expire session": (&queue.ExpireSession{Session: queue.Session{ID: 7, Incarnation: 8, CatalogVersion: 10}}).Command(),
		"forget":         (&queue.Forget{Sessions: 10, Nodes: []uint64{3}}).Command(),
		"split":          (&queue.Split{Queue: 1, To: 15, Epoch: 1, At: 4}).Command(),
		"spin off":       (&queue.SpinOff{Queue: 1, To: 15, Epoch: 1, Group: 7, Replicas: []queue.ReplicaPair{{Here: 1, There: 1}}}).Command(),
		"tick":           queue.Tick(),
		"send atomic":    (&queue.Send{Queue: 1, Messages: send.Messages, Atomic: true}).Command(),
		"numbered":       send.Command().WithLane(queue.Lane{Node: 1, Boot: 2, Seq: 3, Floor: 1}),
	}
}

// TestCommandsTravel also shows that a cut or padded command is refused: in the
// log it would stop every replica.
func TestCommandsTravel(t *testing.T) {
	for name, c := range everyCommand() {
		b := queue.AppendCommand(nil, c)
		got, err := queue.DecodeCommand(b)
		if err != nil || !bytes.Equal(got.Head, c.Head) || len(got.Bodies) != len(c.Bodies) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c)
		}
		for i := range got.Bodies {
			if !bytes.Equal(got.Bodies[i], c.Bodies[i]) {
				t.Errorf("%s: body %d is %q", name, i, got.Bodies[i])
			}
		}
		for n := range b {
			if _, err := queue.DecodeCommand(b[:n]); err == nil {
				t.Errorf("%s: its first %d of %d bytes are taken for a command", name, n, len(b))
			}
		}
		for what, bad := range map[string]queue.Command{
			"a longer head":      {Head: append(bytes.Clone(c.Head), 0), Bodies: c.Bodies},
			"a shorter head":     {Head: c.Head[:len(c.Head)-1], Bodies: c.Bodies},
			"a body too many":    {Head: c.Head, Bodies: append(c.Bodies[:len(c.Bodies):len(c.Bodies)], nil)},
			"an unknown type":    {Head: append([]byte{200}, c.Head[1:]...), Bodies: c.Bodies},
			"an unknown lane":    {Head: append([]byte{c.Head[0], 9}, c.Head[2:]...), Bodies: c.Bodies},
			"nothing but a type": {Head: c.Head[:1]},
		} {
			if _, err := queue.DecodeCommand(queue.AppendCommand(nil, bad)); err == nil {
				t.Errorf("%s with %s is taken for a command", name, what)
			}
		}
	}
}

// TestQueueNumbers: a number that no catalog gives would make rows among the
// group's own, or ids that are another queue's.
func TestQueueNumbers(t *testing.T) {
	for number, ok := range map[uint32]bool{0: false, 1: true, message.MaxQueueNumber: true, message.MaxQueueNumber + 1: false} {
		c := (&queue.Configure{Queue: number, Version: 1, Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command()
		if _, err := queue.DecodeCommand(queue.AppendCommand(nil, c)); (err == nil) != ok {
			t.Errorf("queue number %d: %v", number, err)
		}
	}
}

func everyResult() []any {
	head := queue.Head{Seq: 5, Key: "k", Hash: hashOf("k"), Type: "t", Tenant: "a", TenantHash: 7, SentAt: 6, Due: 7, DueWall: 8, Expires: 9, Dedup: &queue.Mark{Name: "d", Hash: hashOf("d")}, Unique: &queue.Mark{Name: "u", Hash: hashOf("u")}, Priority: 3, BodySize: 4, Retry: &message.Retry{Backoff: message.Backoff{Kind: message.BackoffFixed, Initial: time.Second}}, Attributes: []message.Attribute{{Name: "a", Kind: message.AttributeNumber, Value: []byte("1")}}}
	large := bytes.Repeat([]byte("x"), 5000)
	id := message.NewID(1, message.CellPoint(1), 5)
	refused := message.Errorf(message.Fenced, "the lease has ended")
	return []any{
		nil,
		[]message.SendResult{{ID: id}, {Err: refused}},
		[]message.SendResult{{ID: id}, {Err: refused}, {ID: id, Existing: true}},
		queue.LeaseResult{Err: message.Errorf(message.SessionEnded, "ended")},
		queue.LeaseResult{Looked: 3, Leased: []queue.Leased{
			{ID: id, Ref: queue.Ref{Cell: 1, Priority: 3, Seq: 5, Counter: 2}, Fence: 9, Attempts: 1, Deliveries: 2, Deadline: 30, Head: head, Body: []byte("body")},
			{ID: id, Ref: queue.Ref{Cell: 2, Seq: 6}, Fence: 10, Deliveries: 1, Head: queue.Head{Seq: 6, SentAt: 6, BodySize: len(large)}, Body: large},
			{ID: id, Ref: queue.Ref{Cell: 2, Seq: 7}, Fence: 11, Deliveries: 1, Head: queue.Head{Seq: 7, SentAt: 6, At: 10, DueWall: 10}, Body: []byte{}},
		}},
		[]message.SettleResult{{AlreadyDone: true, State: message.Finished}, {State: message.Leased}, {State: message.Ready, Err: refused}},
		[]message.SettleResult{{State: message.Finished, FollowUps: []message.ID{id, id}}, {State: message.Leased, Err: refused}},
		[]queue.RedriveResult{nil, refused},
		queue.Progress{After: 1, Redriven: 2, Skipped: 3},
		queue.Progress{Err: refused},
		message.Errorf(message.Conflict, "it was split"),
	}
}

func TestResultsTravel(t *testing.T) {
	for _, want := range everyResult() {
		b := queue.AppendResult(nil, want)
		got, err := queue.DecodeResult(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		for n := range b {
			if _, err := queue.DecodeResult(b[:n]); err == nil {
				t.Errorf("the first %d of %d bytes of %T are taken for a result", n, len(b), want)
			}
		}
	}
}

// TestQueries asks by value what the functions answer.
func TestQueries(t *testing.T) {
	w := newWorld()
	w.apply((&queue.Configure{Queue: 1, Version: 1, Settings: message.Settings{}.WithDefaults(), Shards: []queue.Bounds{{To: 15, Path: "0"}}}).Command())
	send := queue.Send{Queue: 1}
	for _, body := range []string{"a", "b", "c"} {
		send.Messages = append(send.Messages, queue.Sent{Hash: hashOf("k"), New: message.New{Key: "k", Body: []byte(body), Attributes: []message.Attribute{{Name: "n", Kind: message.AttributeBytes, Value: []byte{0, 0xff}}}}})
	}
	send.Messages = append(send.Messages, queue.Sent{New: message.New{Delay: time.Minute}})
	sent := w.apply(send.Command())[0].([]message.SendResult)
	ask := func(q queue.Query) queue.Answer {
		t.Helper()
		decoded, err := queue.DecodeQuery(q.Encode())
		if err != nil || !reflect.DeepEqual(decoded, q) {
			t.Fatalf("the query %+v came as %+v: %v", q, decoded, err)
		}
		want := decoded.Run(w.rows)
		got, err := queue.DecodeAnswer(want.Encode())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("the answer %+v came as %+v: %v", want, got, err)
		}
		return got
	}
	if m := ask(queue.Query{Show: &sent[1].ID}).Message; m == nil || string(m.Body) != "b" || m.Blocker == nil || m.Blocker.ID != sent[0].ID {
		t.Errorf("show answers %+v", m)
	}
	if m := ask(queue.Query{Show: &sent[3].ID}).Message; m == nil || m.State != message.Scheduled || m.DueWall == 0 {
		t.Errorf("show of a scheduled message answers %+v", m)
	}
	unknown := message.NewID(1, message.CellPoint(1), 77)
	if m := ask(queue.Query{Show: &unknown}).Message; m != nil {
		t.Errorf("show of an unknown message answers %+v", m)
	}
	if q := ask(queue.Query{Queue: 1}).Queue; q == nil || q.Counts().Ready != 3 || len(q.Shards) != 1 || q.Settings.MaxWorkerDeaths != 3 {
		t.Errorf("the queue is %+v", q)
	}
	if q := ask(queue.Query{Queue: 2}).Queue; q != nil {
		t.Errorf("a queue that is not there is %+v", q)
	}
	list := &queue.ListQuery{Queue: 1, State: message.Ready, Limit: 2}
	first := ask(queue.Query{List: list})
	if len(first.Messages) != 2 || !first.More {
		t.Fatalf("the first page is %+v", first)
	}
	list.From = first.Next
	if a := ask(queue.Query{List: &queue.ListQuery{Queue: 1, State: 99, Limit: 2}}); len(a.Messages) > 0 || a.More {
		t.Errorf("messages of an unknown state: %+v", a)
	}
	if rest := ask(queue.Query{List: list}); len(rest.Messages) != 1 || rest.More || rest.Messages[0].ID != sent[2].ID {
		t.Errorf("the second page is %+v", rest)
	}
}

func TestQueriesOfOtherVersions(t *testing.T) {
	for _, bad := range []string{``, `{`, `[]`, `{"count":1}`, `{"list":{"queue":1,"from":{"Cell":-1}}}`, `{"list":{"queue":1,"from":{"Cell":16}}}`, `{"dead":{"queue":1,"cell":16}}`} {
		if q, err := queue.DecodeQuery([]byte(bad)); err == nil {
			t.Errorf("%s is taken for the query %+v", bad, q)
		}
	}
	if a, err := queue.DecodeAnswer([]byte(`{"sum":1}`)); err == nil || !strings.Contains(err.Error(), "sum") {
		t.Errorf("an answer with an unknown field is taken for %+v: %v", a, err)
	}
}

// FuzzCommand: what DecodeCommand lets through can't stop a replica.
func FuzzCommand(f *testing.F) {
	every := everyCommand()
	for _, c := range every {
		f.Add(queue.AppendCommand(nil, c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := queue.DecodeCommand(b)
		if err != nil {
			return
		}
		w := newWorld()
		w.apply(every["configure"])
		w.apply(every["send"], every["lease"])
		before := queue.AppendResult(nil, w.apply(c)[0])
		if _, err := queue.DecodeResult(before); err != nil {
			t.Fatalf("its result does not read: %v", err)
		}
		w.apply(c, every["send"])
		w.m = queue.New()
		w.apply(c, every["numbered"])
	})
}

func FuzzResult(f *testing.F) {
	for _, r := range everyResult() {
		f.Add(queue.AppendResult(nil, r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := queue.DecodeResult(b)
		if err != nil {
			return
		}
		// There is one way to write each result, whatever else can be read.
		b = queue.AppendResult(nil, r)
		again, err := queue.DecodeResult(b)
		if err != nil || !bytes.Equal(queue.AppendResult(nil, again), b) {
			t.Fatalf("%+v, %v; want %+v", again, err, r)
		}
	})
}

// FuzzQuery: what DecodeQuery lets through is answered, with no more rows than it may
// look at and with nothing that its filter does not let through.
func FuzzQuery(f *testing.F) {
	w := newWorld()
	every := everyCommand()
	w.apply(every["configure"], every["send"], every["lease"], every["settle"], every["deliver"])
	id := message.NewID(1, message.CellPoint(1), 2)
	times := queue.ListQuery{Queue: 1, State: message.Dead, Limit: 3, Type: "t", Tenant: "t", Since: 1, Until: 1 << 60, Rows: 2}
	reasons := message.DeadFilter{Type: "t", Key: "k", Reason: "nacked", Since: time.UnixMilli(1).UTC(), Until: time.UnixMilli(1 << 40).UTC(), Attributes: map[string]string{"a": "v"}}
	for _, q := range []queue.Query{
		{Queue: 1},
		{Show: &id},
		{Show: &id, At: &queue.Line{Queue: 1, Cell: 2}},
		{List: &queue.ListQuery{Queue: 1, State: message.Ready, Limit: 3}},
		{List: &times},
		{List: &queue.ListQuery{Queue: 1, Limit: 3, Key: "k", Hash: hashOf("k")}},
		{Dead: &queue.DeadQuery{Queue: 1, Cell: 1}},
		{Dead: &queue.DeadQuery{Queue: 1, Cell: 1, Operation: 7, Through: 9, Limit: 3, Filter: reasons}},
	} {
		f.Add(q.Encode())
	}
	for s := message.Scheduled; s <= message.Cancelled; s++ {
		list := &queue.ListQuery{Queue: 1, State: s, Limit: 1}
		a := (&queue.Query{List: list}).Run(w.rows)
		list.From = a.Next
		f.Add((&queue.Query{List: list, Cells: 1<<message.Cells - 1}).Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := queue.DecodeQuery(b); err == nil {
			a := q.Run(w.rows)
			if _, err := queue.DecodeAnswer(a.Encode()); err != nil {
				t.Fatal(err)
			}
			checkListed(t, &q, &a)
		}
		if a, err := queue.DecodeAnswer(b); err == nil && !json.Valid(a.Encode()) {
			t.Fatal("an answer does not encode")
		}
	})
}

// checkListed compares what a list gave with what it was asked for.
func checkListed(t *testing.T, q *queue.Query, a *queue.Answer) {
	t.Helper()
	l := q.List
	if l == nil || q.Show != nil {
		return
	}
	if a.Rows > message.MaxExamined || len(a.Messages) > a.Rows || l.Rows > 0 && a.Rows > l.Rows {
		t.Errorf("%+v looked at %d rows for %d messages", l, a.Rows, len(a.Messages))
	}
	for _, d := range a.Messages {
		if l.State != 0 && d.State != l.State || l.Key != "" && d.Key != l.Key || l.Type != "" && d.Type != l.Type ||
			l.Tenant != "" && d.Tenant != l.Tenant || d.SentAt < l.Since || l.Until != 0 && d.SentAt >= l.Until {
			t.Errorf("%+v gave %+v", l, d)
		}
	}
}
