package node

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// reasons makes reasons come true on a cluster, and notes them in words.
type reasons struct {
	t  *testing.T
	w  *workload
	to strings.Builder
}

var changing = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`replica set \d+`), "replica set N"},
}

func (r *reasons) note(when, reason string) {
	for _, c := range changing {
		reason = c.is.ReplaceAllString(reason, c.as)
	}
	fmt.Fprintf(&r.to, "%s\n    %s\n", when, reason)
}

// of notes the reason of a message.
func (r *reasons) of(when string, id message.ID) {
	r.t.Helper()
	s, _, err := r.w.g.Show(r.t.Context(), id, message.ReadOptions{}, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.note(when, s.Reason)
}

// soon is of, when what the catalog says has come to the message's group.
func (r *reasons) soon(when string, id message.ID, word string) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, _, err := r.w.g.Show(r.t.Context(), id, message.ReadOptions{}, 0)
		if err != nil || time.Now().After(end) {
			r.t.Fatal(when, s.Reason, err)
		}
		if strings.Contains(s.Reason, word) {
			r.note(when, s.Reason)
			return
		}
	}
}

// once is of, for what is so for a moment only: of one message after the other, until it
// is seen.
func (r *reasons) once(when, word string, next func() message.ID) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		s, _, err := r.w.g.Show(r.t.Context(), next(), message.ReadOptions{}, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.Contains(s.Reason, word) {
			r.note(when, s.Reason)
			return
		}
	}
	r.t.Fatalf("no message was seen when %s", when)
}

// queue makes a queue with messages in it.
func (r *reasons) queue(name string, s message.Settings, msgs ...message.New) (ids []message.ID) {
	r.t.Helper()
	r.w.create(name, 1, s)
	rs, err := r.w.g.Send(r.t.Context(), name, msgs)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, x := range rs {
		if x.Err != nil {
			r.t.Fatal(x.Err)
		}
		ids = append(ids, x.ID)
	}
	return ids
}

// pause pauses a queue or a part of it.
func (r *reasons) pause(queue string, of message.Pause) {
	r.t.Helper()
	if err := r.w.g.PauseQueue(r.t.Context(), queue, true, of); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reasons) take(queue string) message.Delivery {
	r.t.Helper()
	ds, err := r.w.g.Receive(r.t.Context(), queue, message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Lease: time.Hour, Worker: "oven-1"})
	if err != nil || len(ds) != 1 {
		r.t.Fatal(ds, err)
	}
	return ds[0]
}

// bereaved makes a message whose only worker died with it.
func (r *reasons) bereaved(queue string) message.ID {
	r.t.Helper()
	ids := r.queue(queue, message.Settings{MaxWorkerDeaths: 1}, message.New{})
	worker, err := r.w.g.OpenSession(r.t.Context(), message.SessionOptions{Worker: "oven-2", Incarnation: 1, Attachment: 1, TTL: 5 * time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	ds, err := r.w.g.Receive(r.t.Context(), queue, message.ReceiveOptions{Max: 1, Wait: 20 * time.Second, Worker: "oven-2", Session: worker.Session()})
	if err != nil || len(ds) != 1 {
		r.t.Fatal(ds, err)
	}
	worker.Close(false)
	return ids[0]
}

// TestReasons makes each reason of 'message show' come true. The list of them in
// docs/semantics.md is its output.
func TestReasons(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	ctx := t.Context()
	r := &reasons{t: t, w: &workload{t: t, g: ms[0].Gateway()}}
	later := message.Settlement{Action: message.Nack, HasDelay: true, Delay: time.Hour}

	r.w.create("deserted", 1, message.Settings{})
	if ds, err := r.w.g.Receive(ctx, "deserted", message.ReceiveOptions{Max: 1, Lease: time.Hour, Worker: "oven-1"}); err != nil || len(ds) != 0 {
		t.Fatal(ds, err)
	}

	r.of("sent with a delay", r.queue("delayed", message.Settings{}, message.New{Delay: time.Hour})[0])
	r.of("sent with deliver_at", r.queue("timed", message.Settings{}, message.New{DeliverAt: time.Now().Add(time.Hour)})[0])

	ids := r.queue("keyed", message.Settings{}, message.New{Key: "table-7"}, message.New{Key: "table-7"})
	r.of("an earlier message of its key waits as well", ids[1])
	first := r.take("keyed")
	r.of("an earlier message of its key is leased", ids[1])
	r.w.settle(ctx, first, later)
	r.of("its last attempt failed", ids[0])
	r.of("an earlier message of its key waits for its next attempt", ids[1])

	ids = r.queue("returned", message.Settings{}, message.New{})
	r.w.settle(ctx, r.take("returned"), message.Settlement{Action: message.Nack, HasDelay: true})
	r.w.settle(ctx, r.take("returned"), message.Settlement{Action: message.Release, HasDelay: true, Delay: time.Hour})
	r.of("its worker released it with a delay", ids[0])

	ids = r.queue("paused", message.Settings{}, message.New{})
	left := func(ids []message.ID, d message.Delivery) message.ID {
		return ids[1-slices.Index(ids, d.ID)]
	}
	r.pause("paused", message.Pause{By: "ann"})
	r.of("its queue is paused", ids[0])
	ids = r.queue("parts", message.Settings{}, message.New{Key: "table-7"}, message.New{Tenant: "north"})
	r.pause("parts", message.Pause{Key: "table-7", By: "ann"})
	r.soon("its key is paused", ids[0], "paused")
	r.pause("parts", message.Pause{Tenant: "north", By: "ann"})
	r.soon("its tenant is paused", ids[1], "paused")
	ids = r.queue("turns", message.Settings{}, message.New{Tenant: "north"}, message.New{Tenant: "north"}, message.New{Tenant: "south"}, message.New{Tenant: "south"})
	r.take("turns")
	r.of("other tenants have their turn before it", ids[1])

	ids = r.queue("mixed", message.Settings{}, message.New{}, message.New{}, message.New{Tenant: "south"}, message.New{Tenant: "south"})
	r.take("mixed")
	r.of("it has no tenant, and tenants have their turn before it", ids[1])

	ids = r.queue("narrow", message.Settings{MaxInFlight: 1}, message.New{}, message.New{})
	r.of("max_in_flight is reached", left(ids, r.take("narrow")))
	ids = r.queue("slow", message.Settings{Rate: message.Rate{Count: 1, Per: time.Hour}}, message.New{}, message.New{})
	r.of("the rate is reached", left(ids, r.take("slow")))
	ids = r.queue("slow-keys", message.Settings{RatePerKey: message.Rate{Count: 1, Per: time.Hour}}, message.New{Key: "table-7"}, message.New{Key: "table-7"})
	r.w.settle(ctx, r.take("slow-keys"), message.Settlement{Action: message.Ack})
	r.of("the rate of its key is reached", ids[1])
	ids = r.queue("single", message.Settings{Assign: message.AssignSingle}, message.New{}, message.New{})
	r.of("another worker is the one that gets the queue's messages (assign single)", left(ids, r.take("single")))

	r.of("nobody has received from its queue", r.queue("lonely", message.Settings{}, message.New{})[0])
	ids = r.queue("busy", message.Settings{}, message.New{}, message.New{})
	leased := r.take("busy")
	r.of("all workers hold messages and do not ask for more", left(ids, leased))
	if _, err := r.w.g.Cancel(ctx, []message.ID{leased.ID}, message.CancelOptions{}); err != nil {
		t.Fatal(err)
	}
	r.of("it is leased, and to be cancelled", leased.ID)

	ids = r.queue("rejected", message.Settings{}, message.New{})
	r.w.settle(ctx, r.take("rejected"), message.Settlement{Action: message.Reject})
	r.of("its worker rejected it", ids[0])
	ids = r.queue("failed", message.Settings{MaxAttempts: 1}, message.New{})
	r.w.settle(ctx, r.take("failed"), message.Settlement{Action: message.Nack})
	r.of("it failed as often as it may", ids[0])
	r.soon("its workers died as often as they may (max_worker_deaths)", r.bereaved("bereaved"), "worker_lost")
	ids = r.queue("stale", message.Settings{OnExpired: message.ExpiredDead}, message.New{Expires: time.Now().Add(time.Second)})
	r.soon("it expired, and its queue keeps what does (on_expired dead)", ids[0], "expired")
	r.w.create("gone", 1, message.Settings{})
	ids = r.queue("orphaned", message.Settings{DeadLetterTo: "gone"}, message.New{})
	if err := r.w.g.DeleteQueue(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	r.w.settle(ctx, r.take("orphaned"), message.Settlement{Action: message.Reject})
	r.soon("its queue's dead_letter_to refused it for good", ids[0], "stays")
	r.w.create("parting", 1, message.Settings{})
	far, _ := apartFrom(t, r.w.g, "parting")
	r.once("it was sent with an ack, and has not arrived in its queue yet", "on its way", func() message.ID {
		r.w.send(ctx, "parting", 1, message.New{})
		token, err := r.w.g.OpenToken(r.take("parting").Token)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := r.w.g.Settle(ctx, []message.Settlement{{Token: token, Action: message.Ack, FollowUps: []message.FollowUp{{Queue: far}}}})
		if err != nil || rs[0].Err != nil {
			t.Fatal(rs, err)
		}
		return rs[0].FollowUps[0]
	})
	if _, err := r.w.g.UpdateQueue(ctx, "parting", message.Settings{DeadLetterTo: far}, 0, false); err != nil {
		t.Fatal(err)
	}
	r.once("it is dead, and has not arrived in its queue's dead_letter_to yet", "on its way", func() message.ID {
		id := r.w.send(ctx, "parting", 1, message.New{})[0]
		r.w.settle(ctx, r.take("parting"), message.Settlement{Action: message.Reject})
		return id
	})
	r.soon("nobody has received from its queue for 10 s", r.w.send(ctx, "deserted", 1, message.New{})[0], "no worker is connected")

	ms[1].stop()
	ms[2].stop()
	_, _, err := r.w.g.Show(ctx, ids[0], message.ReadOptions{}, 0)
	if message.CodeOf(err) != message.Unavailable {
		t.Errorf("without a majority: %v", err)
	}
	r.note("most nodes of its replica set are away (UNAVAILABLE)", strings.TrimPrefix(fmt.Sprint(err), "UNAVAILABLE: "))

	text, err := os.ReadFile("../../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, documented, _ := strings.Cut(string(text), "<!-- reasons -->\n```\n")
	documented, _, _ = strings.Cut(documented, "```")
	if documented != r.to.String() {
		t.Errorf("docs/semantics.md lists other reasons than there are:\n%s", r.to.String())
	}
}

// What the gateway can say of a message that is not running stands in the document, also
// what TestReasons does not make come true.
func TestEveryReasonIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "### Why a message is not running")
	section, _, _ = strings.Cut(section, "\n### ")
	section = strings.Join(strings.Fields(section), " ")
	said := 0
	for file, functions := range map[string][]string{"explain.go": {"reason", "inTurn"}, "receivers.go": {"unserved", "leaderless"}} {
		f, err := parser.ParseFile(token.NewFileSet(), "../gateway/"+file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !slices.Contains(functions, fn.Name.Name) {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || strings.Count(lit.Value, " ") < 3 { // "rejected by its worker" has three
					return true
				}
				words, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				said++
				form := regexp.MustCompile(`%[sdq]`).ReplaceAllString(regexp.QuoteMeta(words), `.+`)
				if !regexp.MustCompile(form).MatchString(section) {
					t.Errorf("docs/semantics.md does not have %q", words)
				}
				return true
			})
		}
	}
	if said < 20 {
		t.Errorf("only %d reasons were found", said)
	}
}
