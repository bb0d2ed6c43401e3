package catalog

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

func open(worker string, incarnation uint64) Command {
	return Command{OpenSession: &OpenSession{Worker: worker, Incarnation: incarnation, Node: 1}}
}

func end(s *Session) Command {
	return Command{EndSession: &EndSession{ID: s.ID, Incarnation: s.Incarnation, Why: "goodbye"}}
}

// A session is opened once and ends once; what has ended never comes back, not
// even after it is forgotten.
func TestSession(t *testing.T) {
	w := newTown()
	s := w.do(open("kitchen", 5)).Session
	if s == nil || s.TTL != DefaultTTL || !w.m.View().Live(s.ID, 5) || w.m.View().Live(s.ID, 4) {
		t.Fatalf("%+v", s)
	}
	if again := w.do(open("kitchen", 5)); again.Created || again.Session != s {
		t.Fatalf("again: %+v", again)
	}
	w.refuse(t, message.InvalidArgument, Command{EndSession: &EndSession{ID: s.ID, Incarnation: 4}})
	w.do(end(s))
	if c := w.m.Changes(); len(c) != 1 || c[0].Session == nil || c[0].Session.Live() || c[0].Session.Why != "goodbye" {
		t.Fatalf("changes: %+v", c)
	}
	ended := w.index
	w.refuse(t, message.SessionEnded, open("kitchen", 5))
	before := w.m.View()
	if r := w.do(end(s)); r.Err != nil || w.m.View() != before {
		t.Fatalf("ended twice: %v", r.Err)
	}
	next := w.do(open("kitchen", 6)).Session
	w.do(Command{ForgetSessions: &ForgetSessions{UpTo: ended - 1}})
	if _, ok := w.m.View().Session(s.ID); !ok {
		t.Fatal("forgotten too early")
	}
	w.do(Command{ForgetSessions: &ForgetSessions{UpTo: ended}})
	if c := w.m.Changes(); len(c) != 1 || !c[0].Deleted || c[0].Session.ID != s.ID {
		t.Fatalf("changes: %+v", c)
	}
	if v := w.m.View(); v.Live(s.ID, 5) || !v.Live(next.ID, 6) || len(v.Worker("kitchen")) != 1 || next.ID == s.ID {
		t.Fatal("the wrong one was forgotten")
	}
}

// Two processes may bear one name; one that knows that its predecessors are dead
// says so.
func TestSessionReplaces(t *testing.T) {
	w := newTown()
	a, b := w.do(open("kitchen", 1)).Session, w.do(open("kitchen", 3)).Session
	c := open("kitchen", 2)
	c.OpenSession.Replace = true
	w.do(c)
	if v := w.m.View(); v.Live(a.ID, 1) || !v.Live(b.ID, 3) {
		t.Fatal("only lower incarnations are replaced")
	}
}

// All sessions that a worker's name has are told to drain, and a repeat changes
// nothing. What has ended stays as it ended, and what is opened later works.
func TestDrainWorker(t *testing.T) {
	w := newTown()
	w.refuse(t, message.NotFound, Command{DrainWorker: &DrainWorker{Worker: "kitchen"}})
	a, b := w.do(open("kitchen", 1)).Session, w.do(open("kitchen", 2)).Session
	gone, other := w.do(open("kitchen", 3)).Session, w.do(open("bakery", 1)).Session
	w.do(end(gone))
	drain := Command{DrainWorker: &DrainWorker{Worker: "kitchen"}}
	w.do(drain)
	if n := len(w.m.Changes()); n != 2 {
		t.Errorf("%d changes are told of, want 2", n)
	}
	before := w.m.View()
	if w.do(drain); w.m.View() != before {
		t.Error("a repeat changed something")
	}
	if s := w.do(open("kitchen", 2)).Session; !s.Draining {
		t.Error("its next stream does not find that it drains")
	}
	later := w.do(open("kitchen", 4)).Session
	loaded := New()
	loaded.Load(w.rows)
	for _, v := range []*View{w.m.View(), loaded.View()} {
		for s, want := range map[*Session]bool{a: true, b: true, gone: false, other: false, later: false} {
			if now, _ := v.Session(s.ID); now.Draining != want || now.Live() != (s != gone) {
				t.Errorf("%+v", now)
			}
		}
	}
}

func TestSessionsAreLimited(t *testing.T) {
	w := newTown()
	for _, c := range []OpenSession{{Incarnation: 1}, {Worker: "w"}, {Worker: "w", Incarnation: 1, TTL: MinTTL - 1}, {Worker: "w", Incarnation: 1, TTL: MaxTTL + time.Second}} {
		w.refuse(t, message.InvalidArgument, Command{OpenSession: &c})
	}
	var all []Command
	for i := range uint64(MaxWorkerSessions) {
		all = append(all, open("kitchen", i+1))
	}
	w.apply(all...)
	w.refuse(t, message.ResourceExhausted, open("kitchen", MaxWorkerSessions+1))
	w.m.view.sessions.len = MaxSessions // as if there were others
	w.refuse(t, message.ResourceExhausted, open("bakery", 1))
}
