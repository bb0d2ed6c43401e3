package gateway

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/leader"
	"github.com/comanda-mq/comanda/internal/liveness"
	"github.com/comanda-mq/comanda/internal/message"
)

// desk is a gateway with a queue in group 2, and a worker with a session.
type desk struct {
	*Gateway
	a       *attachment
	waiting chan *leader.Call
	change  func(catalog.Command) // of the catalog, which is learned at once
}

type waitingGroup struct {
	Group
	d *desk
}

func (w waitingGroup) Wait(c *leader.Call) { w.d.waiting <- c }

func newDesk(t *testing.T) *desk {
	d := &desk{waiting: make(chan *leader.Call, 99)}
	d.Gateway = New(Options{
		Auth: auth.AllowAll{}, Clock: clock.System(), Logger: slog.New(slog.DiscardHandler), NodeID: func() uint64 { return 1 },
		Leader: func(uint64) (Group, error) { return waitingGroup{d: d}, nil },
	})
	m, rows := catalog.New(), memory{}
	index := uint64(0)
	d.change = func(c catalog.Command) {
		index++
		if r := m.Apply(rows, index, catalog.AppendEntry(nil, []entryCommand{{Head: c.Encode()}}))[0].(catalog.Result); r.Err != nil {
			t.Fatal(r.Err)
		}
		d.Learn(m.View(), nil)
	}
	d.change(catalog.Command{Found: &catalog.Found{ClusterID: "c", Node: catalog.Node{ID: 1, Name: "a", StoreID: 1}, Groups: 1}})
	d.change(catalog.Command{CreateQueue: &catalog.CreateQueue{Name: "q", Shards: 1}})
	d.change(catalog.Command{OpenSession: &catalog.OpenSession{Worker: "w", Incarnation: 7, Node: 1}})
	a, err := d.OpenSession(t.Context(), message.SessionOptions{Worker: "w", Incarnation: 7, Attachment: 1, TTL: catalog.DefaultTTL})
	if err != nil {
		t.Fatal(err)
	}
	d.a = a.(*attachment)
	d.sessions.bundle(time.Now())
	return d
}

type entryCommand struct {
	Head   []byte
	Bodies [][]byte
}

// A worker whose beats are missing gets nothing new until it is heard again: who
// waits for it is called off, and waits again by itself.
func TestSuspectsGetNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go d.Beats(ctx, func(context.Context, []liveness.Report) ([]liveness.Report, error) { return nil, nil })
		go func() {
			_, err := d.Receive(ctx, "q", message.ReceiveOptions{Max: 1, Wait: time.Minute, Worker: "w", Session: d.a.Session()})
			ended <- err
		}()
		synctest.Wait()
		waited := func(when string, want int) {
			t.Helper()
			if synctest.Wait(); len(d.waiting) != want {
				t.Errorf("%s: %d calls have waited, want %d", when, len(d.waiting), want)
			}
		}
		for range 5 {
			time.Sleep(2 * time.Second)
			d.a.Beat(1)
		}
		time.Sleep(4900 * time.Millisecond)
		d.a.Beat(2)
		waited("after one missed beat", 1)
		time.Sleep(5300 * time.Millisecond)
		if got, err := d.Receive(ctx, "q", message.ReceiveOptions{Max: 1, Worker: "w", Session: d.a.Session()}); len(got) > 0 || err != nil {
			t.Errorf("a suspect asks: %v, %v", got, err)
		}
		waited("two beats are missing", 1)
		d.a.Beat(3)
		waited("it is heard again", 2)
		cancel()
		<-ended
		synctest.Wait()
	})
}

// A worker that is drained gets nothing more, however well it is heard: who waits for it
// is called off, and waits for nothing to the end. So it is for its next stream.
func TestDrainedWorkersGetNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		ask := func(wait time.Duration) (took time.Duration) {
			began := time.Now()
			got, err := d.Receive(t.Context(), "q", message.ReceiveOptions{Max: 1, Wait: wait, Worker: "w", Session: d.a.Session()})
			if len(got) > 0 || err != nil {
				t.Errorf("it got %v, %v", got, err)
			}
			return time.Since(began)
		}
		ended := make(chan time.Duration)
		go func() { ended <- ask(4 * time.Second) }()
		synctest.Wait()
		call := <-d.waiting
		select {
		case <-d.a.Draining():
			t.Error("it is told to drain")
		default:
		}
		d.change(catalog.Command{DrainWorker: &catalog.DrainWorker{Worker: "w"}})
		<-d.a.Draining()
		synctest.Wait()
		if got, _ := call.Collect(t.Context()); len(got) > 0 {
			t.Errorf("its call collects %v", got)
		}
		d.a.Beat(1)
		if took := <-ended; took != 4*time.Second {
			t.Errorf("it waited for %s, want 4s", took)
		}
		ask(0)
		next, err := d.OpenSession(t.Context(), message.SessionOptions{Worker: "w", Incarnation: 7, Attachment: 2, TTL: catalog.DefaultTTL})
		if err != nil {
			t.Fatal(err)
		}
		<-next.Draining()
		ask(time.Second)
		if n := len(d.waiting); n > 0 {
			t.Errorf("%d calls waited for it after it was drained", n)
		}
	})
}

// A beat that was lost on its way to the monitor goes with the next bundle: else the
// end of the worker's stream before, which is kept, would be the last that it hears.
func TestLostBundlesComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		older := d.a
		b, err := d.OpenSession(t.Context(), message.SessionOptions{Worker: "w", Incarnation: 7, Attachment: 2, TTL: catalog.DefaultTTL})
		if err != nil {
			t.Fatal(err)
		}
		older.Close(false)
		b.Beat(1)
		all := d.sessions.bundle(time.Now())
		d.sessions.keep(all)
		again := d.sessions.bundle(time.Now())
		report := func(attachment uint64, e liveness.Event) liveness.Report {
			return liveness.Report{Session: 1, Incarnation: 7, Attachment: attachment, Event: e}
		}
		if want := []liveness.Report{report(1, liveness.Lost), report(2, liveness.Beat)}; !slices.Equal(again, want) {
			t.Errorf("after %v was lost: %v", all, again)
		}
		if more := d.sessions.bundle(time.Now()); len(more) > 0 {
			t.Errorf("and then %v", more)
		}
	})
}

// A refusal of what a session held says why the session ended.
func TestFencedSaysWhy(t *testing.T) {
	d := newDesk(t)
	ss := []message.Settlement{{Token: message.Token{Session: 1}}}
	results := []message.SettleResult{{Err: message.Errorf(message.Fenced, "it has ended")}}
	if d.explain(ss, results); results[0].Err.Text != "it has ended" {
		t.Errorf("of a session that lives: %v", results[0].Err)
	}
	d.change(catalog.Command{EndSession: &catalog.EndSession{ID: 1, Incarnation: 7, Why: "silent for 10s"}})
	if d.explain(ss, results); results[0].Err.Text != `it has ended (session 1 of worker "w": silent for 10s)` {
		t.Errorf("of one that has ended: %v", results[0].Err)
	}
}

// memory are the catalog's rows.
type memory map[string][]byte

func (m memory) Get(_ uint64, key []byte) ([]byte, bool) { v, ok := m[string(key)]; return v, ok }
func (m memory) Set(_ uint64, key, value []byte)         { m[string(key)] = slices.Clone(value) }
func (m memory) Delete(_ uint64, key []byte)             { delete(m, string(key)) }

func (m memory) Scan(_ uint64, lo, hi []byte, visit func(key, value []byte) bool) {
	for k, v := range m {
		if k >= string(lo) && k < string(hi) && !visit([]byte(k), v) {
			return
		}
	}
}
