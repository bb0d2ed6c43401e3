package comandatest_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/comandatest"
)

func failed[T any](_ T, err error) error { return err }

// Each method of the SDK refuses what can't be meant, with a code that says whose
// mistake it is.
func TestEveryMethodRefuses(t *testing.T) {
	const (
		invalid, large, noQueue = client.CodeInvalidArgument, client.CodeTooLarge, client.CodeQueueNotFound
		huge                    = 1<<32 + 1 // one, if it is cut
		bad                     = "\xff"
		unsent                  = "00000010-0000-8000-8000-000000000001"
	)
	long := strings.Repeat("x", 300)
	s, ctx := comandatest.New(t), t.Context()
	if _, err := s.CreateQueue(ctx, "q", client.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	stale := func() string {
		if _, err := s.Send(ctx, "q", client.Message{}); err != nil {
			t.Fatal(err)
		}
		ds, err := s.Receive(ctx, "q", client.ReceiveOptions{})
		if err != nil || len(ds) != 1 {
			t.Fatal(ds, err)
		}
		if err := ds[0].Release(ctx, time.Hour); err != nil {
			t.Fatal(err)
		}
		return ds[0].Token()
	}()
	redrive := func(queue string, o client.RedriveQueueOptions) error {
		_, _, err := s.RedriveQueue(ctx, queue, o)
		return err
	}
	rows := []struct {
		method string
		err    error
		code   client.Code
	}{
		{"CreateQueue", failed(s.CreateQueue(ctx, "or ders", client.QueueOptions{})), invalid},
		{"CreateQueue", failed(s.CreateQueue(ctx, bad, client.QueueOptions{})), invalid},
		{"CreateQueue", failed(s.CreateQueue(ctx, "new", client.QueueOptions{Shards: -1})), invalid},
		{"CreateQueue", failed(s.CreateQueue(ctx, "new", client.QueueOptions{Shards: huge})), invalid},
		{"CreateQueue", failed(s.CreateQueue(ctx, "q", client.QueueOptions{Settings: &client.QueueSettings{MaxAttempts: 7}})), client.CodeQueueExists},
		{"UpdateQueue", failed(s.UpdateQueue(ctx, "none", client.QueueUpdate{})), noQueue},
		{"UpdateQueue", failed(s.UpdateQueue(ctx, "q", client.QueueUpdate{Settings: &client.QueueSettings{MaxAttempts: -1}, DryRun: true})), invalid},
		{"UpdateQueue", failed(s.UpdateQueue(ctx, "q", client.QueueUpdate{Settings: &client.QueueSettings{MaxAttempts: 7}, Version: 77})), client.CodeConflict},
		{"Queue", failed(s.Queue(ctx, "none")), noQueue},
		{"Queue", failed(s.Queue(ctx, bad)), invalid},
		{"Queue", failed(s.Queue(ctx, "q", client.Stale(time.Hour))), invalid},
		{"Queues", failed(s.Queues(ctx, huge, "")), invalid},
		{"Queues", failed(s.Queues(ctx, 0, "x/y")), invalid},
		{"DeleteQueue", s.DeleteQueue(ctx, "none"), noQueue},
		{"Purge", s.Purge(ctx, "none"), noQueue},
		{"Pause", s.Pause(ctx, "none"), noQueue},
		{"Resume", s.Resume(ctx, "none"), noQueue},
		{"PausePart", s.PausePart(ctx, "q", client.Part{Key: "k", Tenant: "t"}), invalid},
		{"PausePart", s.PausePart(ctx, "q", client.Part{Key: long}), large},
		{"ResumePart", s.ResumePart(ctx, "q", client.Part{Key: "k", Tenant: "t"}), invalid},
		{"Locate", failed(s.Locate(ctx, "q", "")), invalid},
		{"Locate", failed(s.Locate(ctx, "q", bad)), invalid},
		{"Owners", failed(s.Owners(ctx, "none")), noQueue},
		{"Shards", failed(s.Shards(ctx, "none", 0, "")), noQueue},
		{"Shards", failed(s.Shards(ctx, "", -1, "")), invalid},
		{"Workers", failed(s.Workers(ctx, huge, "")), invalid},
		{"Workers", failed(s.Workers(ctx, 0, "x/y")), invalid},
		{"SplitShard", failed(s.SplitShard(ctx, "q", "0.0")), client.CodeNotFound},
		{"MoveShard", failed(s.MoveShard(ctx, "q", "0", "nobody")), client.CodeNotFound},
		{"Operations", failed(s.Operations(ctx, 0, "x")), invalid},
		{"Operation", failed(s.Operation(ctx, 7)), client.CodeNotFound},
		{"CancelOperation", failed(s.CancelOperation(ctx, 7, "")), client.CodeNotFound},
		{"PauseOperation", failed(s.PauseOperation(ctx, 7, "")), client.CodeNotFound},
		{"ResumeOperation", failed(s.ResumeOperation(ctx, 7, "")), client.CodeNotFound},
		{"DrainNode", failed(s.DrainNode(ctx, "nobody", false)), client.CodeNotFound},
		{"DrainWorker", failed(s.DrainWorker(ctx, "nobody")), client.CodeNotFound},
		{"DrainWorker", failed(s.DrainWorker(ctx, long)), large},
		{"RemoveNode", s.RemoveNode(ctx, "nobody", false), client.CodeNotFound},
		{"Show", failed(s.Show(ctx, "x", 0)), invalid},
		{"Show", failed(s.Show(ctx, unsent, 0)), client.CodeMessageNotFound},
		{"Show", failed(s.Show(ctx, bad, 0)), invalid},
		{"Wait", failed(s.Wait(ctx, "x")), invalid},
		{"Wait", failed(s.Wait(ctx, unsent)), client.CodeMessageNotFound},
		{"List", failed(s.List(ctx, "none", client.ListOptions{})), noQueue},
		{"List", failed(s.List(ctx, "q", client.ListOptions{State: "lost"})), invalid},
		{"List", failed(s.List(ctx, "q", client.ListOptions{Max: huge})), invalid},
		{"List", failed(s.List(ctx, "q", client.ListOptions{Page: "x"})), invalid},
		{"List", failed(s.List(ctx, "q", client.ListOptions{Until: s.Now().AddDate(20_000, 0, 0)})), invalid},
		{"Cancel", failed(s.Cancel(ctx, nil, client.CancelOptions{})), invalid},
		{"Cancel", failed(s.Cancel(ctx, []string{"x"}, client.CancelOptions{})), invalid},
		{"Cancel", failed(s.Cancel(ctx, []string{unsent}, client.CancelOptions{Grace: time.Second})), invalid},
		{"RedriveQueue", redrive("none", client.RedriveQueueOptions{}), noQueue},
		{"RedriveQueue", redrive("q", client.RedriveQueueOptions{Reason: "bored"}), invalid},
		{"RedriveQueue", redrive("q", client.RedriveQueueOptions{Rate: 1 - huge}), invalid},
		{"RedriveQueue", redrive("q", client.RedriveQueueOptions{DeadUntil: s.Now().AddDate(20_000, 0, 0)}), invalid},
		{"RedriveQueue", redrive("q", client.RedriveQueueOptions{To: "none"}), noQueue},
		{"Redrive", failed(s.Redrive(ctx, nil, false)), invalid},
		{"Redrive", failed(s.Redrive(ctx, []string{bad}, false)), invalid},
		{"Receive", failed(s.Receive(ctx, "none", client.ReceiveOptions{})), noQueue},
		{"Receive", failed(s.Receive(ctx, "q", client.ReceiveOptions{Max: huge})), invalid},
		{"Receive", failed(s.Receive(ctx, "q", client.ReceiveOptions{MaxPerKey: 101})), invalid},
		{"Receive", failed(s.Receive(ctx, "q", client.ReceiveOptions{Wait: -1})), invalid},
		{"Receive", failed(s.Receive(ctx, "q", client.ReceiveOptions{Lease: 13 * time.Hour})), invalid},
		{"Receive", failed(s.Receive(ctx, "q", client.ReceiveOptions{Worker: long})), large},
		{"Send", failed(s.Send(ctx, "none", client.Message{})), noQueue},
		{"Send", failed(s.Send(ctx, bad, client.Message{})), invalid},
		{"Send", failed(s.Send(ctx, "q", client.Message{Key: bad})), invalid},
		{"Send", failed(s.Send(ctx, "q", client.Message{Key: long})), large},
		{"Send", failed(s.Send(ctx, "q", client.Message{Body: make([]byte, 17<<20)})), large},
		{"Send", failed(s.Send(ctx, "q", client.Message{Priority: huge})), invalid},
		{"Send", failed(s.Send(ctx, "q", client.Message{Delay: -1})), invalid},
		{"Send", failed(s.Send(ctx, "q", client.Message{DeliverAt: s.Now().AddDate(20_000, 0, 0)})), invalid},
		{"Send", failed(s.Send(ctx, "q", client.Message{Attributes: map[string]*client.Attribute{"a": nil}})), invalid},
		{"Send", failed(s.Send(ctx, "q", client.Message{Attributes: map[string]*client.Attribute{"a": client.Number("many")}})), invalid},
		{"Send", failed(s.Send(ctx, "q", client.Message{Retry: &client.Retry{MaxAttempts: -1}})), invalid},
		{"SendBatch", failed(s.SendBatch(ctx, "q", []client.Message{{}, {Existing: true}})), invalid},
		{"SendAtomic", failed(s.SendAtomic(ctx, "q", nil)), invalid},
		{"SendAtomic", failed(s.SendAtomic(ctx, "q", []client.Message{{}, {Priority: -1}})), invalid},
		{"Settle", failed(s.Settle(ctx, []client.Settlement{{Token: stale}})), invalid},
		{"Settle", failed(s.Settle(ctx, []client.Settlement{{Token: stale, Action: client.ActionAck, Error: "e"}})), invalid},
		{"Ack", s.Ack(ctx, "x"), invalid},
		{"Ack", s.Ack(ctx, bad), invalid},
		{"Ack", s.Ack(ctx, stale), client.CodeFenced},
		{"AckAndSend", failed(s.AckAndSend(ctx, stale, client.FollowUp{Queue: "none"})), noQueue},
		{"AckAndSend", failed(s.AckAndSend(ctx, stale, client.FollowUp{Queue: bad})), invalid},
		{"AckAndSend", failed(s.AckAndSend(ctx, stale, client.FollowUp{Queue: "q", Message: client.Message{Key: bad}})), invalid},
		{"AckAndSend", failed(s.AckAndSend(ctx, stale, client.FollowUp{Queue: "q", Message: client.Message{DedupID: "d"}})), invalid},
		{"AckAndSend", failed(s.AckAndSend(ctx, stale, make([]client.FollowUp, 17)...)), invalid},
		{"AckAndSend", failed(s.AckAndSend(ctx, stale, client.FollowUp{Queue: "q"})), client.CodeFenced},
		{"Nack", s.Nack(ctx, stale, "", -1), invalid},
		{"Nack", s.Nack(ctx, stale, "", 0), client.CodeFenced},
		{"Reject", s.Reject(ctx, stale, ""), client.CodeFenced},
		{"Release", s.Release(ctx, stale, -1), invalid},
		{"Release", s.Release(ctx, stale, 0), client.CodeFenced},
		{"Extend", s.Extend(ctx, stale, time.Millisecond), invalid},
		{"Extend", s.Extend(ctx, stale, time.Hour), client.CodeFenced},
	}
	refuses := map[string]bool{"Close": true, "Nodes": true, "Server": true} // nothing can be wrong with them
	for i, x := range rows {
		refuses[x.method] = true
		if client.CodeOf(x.err) != x.code {
			t.Errorf("row %d, %s: %v, want %s", i, x.method, x.err, x.code)
		}
	}
	methods := reflect.TypeFor[*client.Client]()
	for i := range methods.NumMethod() {
		if name := methods.Method(i).Name; !refuses[name] {
			t.Errorf("Client.%s: nothing is refused: add what can't be meant", name)
		}
	}
}
