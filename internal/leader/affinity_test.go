package leader

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// handout is a line that is handed out without a log: what is granted is held.
type handout struct {
	g *Group
	l *line
	c *cell
	// owner is who got each message, by its place.
	owner map[uint64]string
}

func newHandout(names ...string) *handout {
	c := newCell(1, 0)
	c.window.whole, c.turns.whole = true, true
	h := &handout{g: &Group{limit: 1 << 30}, l: &line{number: 1, cells: []*cell{c}, workers: newWorkers()}, c: c, owner: map[uint64]string{}}
	for _, name := range names {
		h.wait(name, 1<<20)
	}
	return h
}

func (h *handout) wait(name string, room int) *Call {
	c := NewCall(1, message.ReceiveOptions{Max: room, Worker: name}, 1)
	h.l.workers.get(name, time.Time{}).wait(c, time.Time{})
	return c
}

// offer makes n messages with keys of their own available, the same each time.
func (h *handout) offer(n int) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		h.c.window.offers = append(h.c.window.offers, queue.Offer{Ref: queue.Ref{Seq: uint64(i + 1)}, Key: random.Uint64()>>11 | 1<<63})
	}
}

func (h *handout) grant() []grant {
	grants := h.g.grants(h.l)
	for _, gr := range grants {
		for _, o := range gr.offers {
			h.owner[o.Seq] = gr.worker.name
		}
	}
	return grants
}

func names(n int) (all []string) {
	for i := range n {
		all = append(all, "worker-"+strconv.Itoa(i))
	}
	return all
}

// Keys are spread evenly, whoever joins or leaves takes about its share with it,
// and what comes back goes to whom it went before. That holds as well where a group
// has only the keys of one cell, whose hashes begin alike.
func TestAffinityOfKeys(t *testing.T) {
	const keys = 10_000
	owners := func(names []string) map[uint64]string {
		h := newHandout(names...)
		h.offer(keys)
		h.grant()
		return h.owner
	}
	moved := func(a, b map[uint64]string) (n int) {
		for seq, w := range a {
			if b[seq] != w {
				n++
			}
		}
		return n
	}
	for _, n := range []int{1, 2, 3, 4, 10, 30} {
		before := owners(names(n + 1))
		has := map[string]int{}
		for _, w := range before {
			has[w]++
		}
		if most := slices.Max(slices.Collect(maps.Values(has))); len(before) != keys || 4*(n+1)*most > 5*keys+4*(n+1) {
			t.Errorf("%d workers: one has %d of %d keys", n+1, most, len(before))
		}
		after := owners(names(n))
		share := float64(keys) / float64(n+1)
		if got := float64(moved(before, after)); got < share*0.7 || got > share+keys*0.06 {
			t.Errorf("%d workers: with one less %g keys change theirs, its share was %g", n+1, got, share)
		}
		if again := moved(before, owners(names(n+1))); again != 0 {
			t.Errorf("%d workers: %d keys go elsewhere the next time", n+1, again)
		}
	}
}

// No message waits for the worker that its key prefers, none goes out twice,
// and nobody gets more than it asked for.
func TestNothingWaitsForItsWorker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHandout()
		room := map[*Call]int{}
		total := 0
		for range rapid.IntRange(1, 100).Draw(t, "calls") {
			n := rapid.IntRange(1, 5).Draw(t, "room")
			room[h.wait(rapid.SampledFrom(names(80)).Draw(t, "worker"), n)] = n
			total += n
		}
		n := rapid.IntRange(0, 400).Draw(t, "messages")
		h.offer(n)
		keyed := rapid.Bool().Draw(t, "all keyed")
		for i := range h.c.window.offers {
			if !keyed && rapid.Bool().Draw(t, "unkeyed") {
				h.c.window.offers[i].Key = 0
			}
		}
		given := map[uint64]bool{}
		for round := 0; ; round++ {
			grants := h.grant()
			for i := range grants {
				gr := &grants[i]
				if len(gr.offers) == 0 || len(gr.offers) > room[gr.call] {
					t.Fatalf("%d messages for a call with room for %d", len(gr.offers), room[gr.call])
				}
				delete(room, gr.call)
				for _, o := range gr.offers {
					if given[o.Seq] {
						t.Fatalf("message %d goes out twice", o.Seq)
					}
					given[o.Seq] = true
				}
				gr.call.mu.Lock()
				if gr.call.pending != len(gr.offers) {
					t.Fatalf("%d messages are on their way, and %d are reserved", len(gr.offers), gr.call.pending)
				}
				gr.call.mu.Unlock()
			}
			if len(grants) == 0 {
				break
			}
		}
		if left := len(h.c.window.offers); left > 0 && len(room) > 0 {
			t.Fatalf("%d messages are left, and %d calls wait", left, len(room))
		}
		if waiting := h.l.workers.all(); len(waiting) != len(room) || h.l.workers.calls != len(room) {
			t.Fatalf("%d calls wait, counted as %d, want %d", len(waiting), h.l.workers.calls, len(room))
		}
		if load := h.l.workers.load; load != len(given) || load > total {
			t.Fatalf("%d messages are held and counted as %d", len(given), load)
		}
	})
}

// A worker with more than its part gets no more, although it is preferred and
// waits; when nobody else waits, it does.
func TestLadenWorkerIsPassedOver(t *testing.T) {
	h := newHandout("a", "b")
	h.offer(1)
	key := classOf(h.c.window.offers[0].Key)
	preferred := h.l.workers.prefers(key)
	preferred.take(2)
	if h.grant(); h.owner[1] == preferred.name {
		t.Error("it goes to the one that holds all there is")
	}
	h = newHandout(preferred.name)
	h.l.workers.get("busy", time.Time{})
	h.l.workers.get(preferred.name, time.Time{}).take(2)
	h.offer(1)
	if h.grant(); h.owner[1] != preferred.name {
		t.Error("it waits")
	}
}

// Several calls of one worker get equal parts, whether there are keys or not.
func TestCallsOfOneWorkerShare(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		h := newHandout()
		for range 3 {
			h.wait("w", 100)
		}
		h.offer(10)
		for i := range h.c.window.offers {
			if !keyed {
				h.c.window.offers[i].Key = 0
			}
		}
		var parts []int
		for _, gr := range h.grant() {
			parts = append(parts, len(gr.offers))
		}
		if slices.Sort(parts); len(parts) != 3 || parts[0] < 2 || parts[2] > 4 {
			t.Errorf("keyed: %t: the parts are %v", keyed, parts)
		}
	}
}

// Who neither waits nor holds anything is forgotten, but not at once.
func TestWorkersAreForgotten(t *testing.T) {
	now := time.Unix(1000, 0)
	ws := newWorkers()
	idle, holds := ws.get("idle", now), ws.get("holds", now)
	holds.take(1)
	waits := NewCall(1, message.ReceiveOptions{Max: 1, Worker: "waits"}, 1)
	ws.get("waits", now).wait(waits, now)
	ws.get("soon", now.Add(lately/2))
	if len(ws.by) != 4 || ws.prefers(0) == nil {
		t.Fatalf("%d workers", len(ws.by))
	}
	ws.get("later", now.Add(lately))
	if len(ws.by) != 4 || ws.by[idle.id] != nil {
		t.Errorf("%d workers, the idle one: %v", len(ws.by), ws.by[idle.id])
	}
	for class := range uint64(classes) {
		if w := ws.prefers(class); ws.by[w.id] != w {
			t.Fatalf("a class of keys prefers %s, which is forgotten", w.name)
		}
	}
}

func (r *rig) sendKeyed(keys ...string) {
	r.t.Helper()
	c := queue.Send{Queue: 1}
	for _, k := range keys {
		h := message.HashKey(&message.Secret{}, k)
		h.Hi &= 1<<60 - 1 // the rig has one cell
		c.Messages = append(c.Messages, queue.Sent{Hash: h, New: message.New{Key: k}})
	}
	for _, res := range r.propose(c.Command()).([]message.SendResult) {
		if res.Err != nil {
			r.t.Fatal(res.Err)
		}
	}
}

// The leader knows of a key whom it prefers, whether it heard of the message or
// has read it.
func TestKeyGoesToItsWorker(t *testing.T) {
	r := newRig(t)
	for i := range 20 {
		key := fmt.Sprint("key", i)
		if i%2 == 0 {
			r.sendKeyed(key)
			r.restart() // then it is read
		}
		calls := r.wait(5, 1)
		if i%2 == 1 {
			r.sendKeyed(key)
		}
		r.propose(queue.Tick()) // behind the lease
		got, _ := came(calls, "")
		if len(got) != 1 || got[0].Head.Key != key {
			t.Fatalf("%d messages went out", len(got))
		}
		to := slices.IndexFunc(calls, func(c *Call) bool { return len(c.got) > 0 })
		r.mu.Lock()
		preferred := r.queues[1].workers.prefers(classOf(got[0].Head.Hash.Hi)).name
		r.mu.Unlock()
		if i%2 == 1 && preferred != strconv.Itoa(to) {
			t.Errorf("%s goes to %d, it prefers %s", key, to, preferred)
		}
		for _, c := range calls {
			r.Leave(c)
		}
		r.settle(got, message.Ack, 0)
	}
}

// Workers come and go, and take turns to hold a key's messages; they are done in
// the order of sending all the same, and by one at a time.
func TestOrderSurvivesChangesOfOwners(t *testing.T) {
	r := newRig(t)
	random := rand.New(rand.NewPCG(3, 4))
	const keys, messages = 8, 400
	var sent, done [keys]int
	order := map[message.ID]int{}      // of a message in its key
	var waiting []*Call                // with those that were given something lately
	holds := map[string]queue.Leased{} // by key
	holders := [keys]map[string]bool{}
	for n := 0; n < messages || done != sent; n++ {
		if n < messages {
			k := random.IntN(keys)
			c := queue.Send{Queue: 1, Messages: []queue.Sent{{Hash: message.KeyHash{Hi: uint64(k+1) * 0x10001, Lo: 1}, New: message.New{Key: strconv.Itoa(k)}}}}
			sent[k]++
			order[r.propose(c.Command()).([]message.SendResult)[0].ID] = sent[k]
		}
		call := NewCall(1, message.ReceiveOptions{Max: 1 + random.IntN(3), Lease: time.Minute, Worker: strconv.Itoa(random.IntN(6))}, 1)
		r.Wait(call)
		waiting = append(waiting, call)
		r.step(0)
		waiting = slices.DeleteFunc(waiting, func(c *Call) bool {
			got, _ := came([]*Call{c}, "")
			for _, x := range got {
				if _, held := holds[x.Head.Key]; held {
					t.Fatalf("%s gets a message of key %s while another is held", c.Worker, x.Head.Key)
				}
				holds[x.Head.Key] = x
				k, _ := strconv.Atoi(x.Head.Key)
				if holders[k] == nil {
					holders[k] = map[string]bool{}
				}
				holders[k][c.Worker] = true
			}
			return len(got) > 0
		})
		if len(waiting) > 4 { // it goes away
			r.Leave(waiting[0])
			waiting = waiting[1:]
		}
		if len(holds) == 0 {
			continue
		}
		key := slices.Sorted(maps.Keys(holds))[random.IntN(len(holds))]
		x := holds[key]
		delete(holds, key)
		if random.IntN(4) == 0 {
			r.settle([]queue.Leased{x}, message.Release, 0)
			continue
		}
		k, _ := strconv.Atoi(key)
		if done[k]++; order[x.ID] != done[k] {
			t.Fatalf("message %d of key %d is done as number %d", order[x.ID], k, done[k])
		}
		r.settle([]queue.Leased{x}, message.Ack, 0)
	}
	for k, ws := range holders {
		if len(ws) < 2 {
			t.Errorf("key %d had one holder only: nothing was tried", k)
		}
	}
}

// BenchmarkGrants hands one message to one of so many workers who all wait, again
// and again.
func BenchmarkGrants(b *testing.B) {
	for _, key := range []uint64{0, 1} {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("keyed=%d/workers=%d", key, n), func(b *testing.B) {
				h := newHandout(names(n)...)
				b.ReportAllocs()
				for seq := uint64(1); b.Loop(); seq++ {
					h.c.window.offers = append(h.c.window.offers[:0], queue.Offer{Ref: queue.Ref{Seq: seq}, Key: key * (seq*0x9e3779b97f4a7c15 | 1)})
					for _, gr := range h.g.grants(h.l) {
						gr.worker.take(-1)
						gr.call.deliver(1, nil, nil)
						gr.worker.wait(gr.call, time.Time{})
					}
				}
			})
		}
	}
}
