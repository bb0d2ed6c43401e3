package main

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
)

// tally is what clients and workers know: what they were promised, and what they
// were given.
type tally struct {
	w *world

	mu     sync.Mutex
	sends  map[string]*sending
	order  map[string]message.ID        // by queue and key: the last that was confirmed
	acked  map[message.ID]time.Duration // when that was confirmed
	acking map[message.ID]bool          // somebody tried
	hands  map[message.ID][]*holding
	counts counts
}

// counts says how often what happened, so that a run in which nothing did is seen.
type counts map[string]int

func (c counts) add(o counts) {
	for what, n := range o {
		c[what] += n
	}
}

// sending is a message on its way.
type sending struct {
	payload, queue, key string
	outcome             string // confirmed, refused, unknown; empty: not known yet
	id                  message.ID
	confirmed           time.Duration // when
	stored              bool
	wishes
	forwarded bool       // if it dies it goes to another queue
	batch     []*sending // it was sent in one step with these; nil: alone
	follows   bool       // it was sent with an ack
	withdrawn bool       // somebody has cancelled it, or tried
	forced    bool       // by force
	purged    bool       // it, or what leads to where it is
}

// holding is a worker's belief that it holds a message.
type holding struct {
	worker *worker
	token  message.Token
	line   string
	batch  int
	until  func() time.Duration
	// chain are the messages with which the lease ends: this one, and those of its key
	// before it that came together with it.
	chain []*sending
}

// trusted says that nobody else may have what the worker holds, or what is behind it.
func (h *holding) trusted(now time.Duration) bool {
	return now < h.until() && !slices.ContainsFunc(h.chain, func(s *sending) bool { return s.forced || s.purged })
}

func newTally(w *world) *tally {
	return &tally{
		w: w, sends: map[string]*sending{}, order: map[string]message.ID{}, acked: map[message.ID]time.Duration{},
		acking: map[message.ID]bool{}, hands: map[message.ID][]*holding{}, counts: counts{},
	}
}

func newSending(q queueSpec, m *message.New, ws wishes) *sending {
	return &sending{payload: string(m.Body), queue: q.name, key: m.Key, wishes: ws, forwarded: q.settings.DeadLetterTo != ""}
}

// begin notes that messages are sent, in one step or each by itself.
func (t *tally) begin(call []*sending, together bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range call {
		t.sends[s.payload] = s
		if together {
			s.batch = call
		}
	}
}

// whole checks of a message that has been stored that all that were sent in one step
// with it have.
func (t *tally) whole(payload string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sends[payload].batch {
		if !s.stored && !s.shared {
			t.w.fail("message %q is stored, and %q, which was sent in one step with it, is not", payload, s.payload)
		}
	}
}

// withdraws notes that somebody tries to cancel a message.
func (t *tally) withdraws(payload string, force bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sends[payload]
	s.withdrawn, s.forced = true, s.forced || force
}

// purged notes that a purge has taken a message, or what leads to where it is.
func (t *tally) purged(payload string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sends[payload].purged = true
}

// single is the name, over all queues and keys, that a message alone may have while
// it has not ended; empty: none.
func (t *tally) single(payload string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sends[payload]
	if s == nil || s.unique == "" {
		return ""
	}
	return fmt.Sprintf("%s/%s/%s", s.queue, s.key, s.unique)
}

// outcome notes what its sender was told. existing: the id is another message's,
// which has its unique key.
func (t *tally) outcome(payload string, id message.ID, existing bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sends[payload]
	switch {
	case err == nil && existing:
		t.counts["existing"]++
		s.outcome = "refused"
		if s.stored {
			t.w.fail("message %q was refused for %s, and is stored as %s", payload, id, s.id)
		}
	case err == nil:
		t.counts["confirmed"]++
		s.outcome, s.confirmed = "confirmed", t.w.now()
		if s.stored && s.id != id {
			t.w.fail("message %q was stored as %s and confirmed as %s", payload, s.id, id)
		}
		s.id = id
		if line := s.queue + "/" + s.key; s.key != "" && !s.follows { // its id may be of another queue
			if last, ok := t.order[line]; ok && last.Seq() >= id.Seq() {
				t.w.fail("message %s of key %q was confirmed before %s was sent, and has a later place", last, s.key, id)
			}
			t.order[line] = id
		}
	case message.CodeOf(err) == message.Conflict && s.unique != "":
		t.counts["existing"]++
		s.outcome = "refused"
		if s.stored {
			t.w.fail("message %q was refused (%v), and is stored as %s", payload, err, s.id)
		}
	case message.CodeOf(err) == message.UnknownOutcome:
		t.counts["unknown"]++
		s.outcome = "unknown"
	default:
		t.counts["refused"]++
		s.outcome = "refused"
		if s.stored {
			t.w.fail("message %q was refused (%v), and is stored as %s", payload, err, s.id)
		}
	}
}

// stored is told by the logs.
func (t *tally) stored(payload string, id message.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sends[payload]
	switch {
	case s == nil:
		t.w.fail("message %s with %q was never sent", id, payload)
	case s.stored && !s.purged: // a purge forgets dedup ids
		t.w.fail("message %q was sent once and stored twice, as %s and %s", payload, s.id, id)
	case s.outcome == "refused":
		t.w.fail("message %q was refused, and is stored as %s", payload, id)
	default:
		s.stored, s.id = true, id
	}
}

// hand gives a message to a worker, who believes that it is his until until().
// batch numbers what came together.
func (t *tally) hand(k *worker, d *message.Delivery, token message.Token, batch int, until func() time.Duration) *holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts["delivered"]++
	h := &holding{worker: k, token: token, batch: batch, until: until}
	if d.Key != "" {
		h.line = fmt.Sprintf("%s/%s", d.Queue, d.Key)
	}
	now := t.w.now()
	late := now >= until() // its lease may have ended while the answer was on its way
	if t.acked[d.ID] > 0 && !late {
		t.w.fail("message %s came to %s after its ack was confirmed", d.ID, k.name)
	}
	for _, others := range t.hands {
		for _, o := range others {
			inLine := h.line != "" && o.line == h.line
			mine := o.worker == k && o.batch == batch
			if (o.token.ID == d.ID || inLine) && !mine && !late && o.trusted(now) {
				t.w.fail("message %s came to %s while %s holds %s until %v", d.ID, k.name, o.worker.name, o.token.ID, o.until())
			}
			if inLine && mine && len(o.chain) > len(h.chain) {
				h.chain = o.chain
			}
		}
	}
	h.chain = append(slices.Clip(h.chain), t.sends[string(d.Body)])
	t.hands[d.ID] = append(t.hands[d.ID], h)
	return h
}

// inTime checks that a message which a worker has asked for at a time was of use then.
func (t *tally) inTime(d *message.Delivery, asked time.Time) {
	lasts := t.w.logs.lasts(d.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sends[string(d.Body)]; !s.expires.IsZero() && !s.expires.After(asked) && !lasts {
		t.w.fail("message %s expired %v before somebody asked for what was given to him", d.ID, asked.Sub(s.expires))
	}
}

// settles ends a worker's belief; it goes on to claim what it settles until that is
// answered. believed says whether the worker was right to go on with it until now.
func (t *tally) settles(h *holding) (believed func() bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := *h
	h.until = func() time.Duration { return 0 }
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return was.trusted(t.w.now())
	}
}

// drop has a worker forget a message.
func (t *tally) drop(h *holding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := h.token.ID
	t.hands[id] = slices.DeleteFunc(t.hands[id], func(o *holding) bool { return o == h })
	if len(t.hands[id]) == 0 {
		delete(t.hands, id)
	}
}

// tries notes that somebody tries to ack.
func (t *tally) tries(id message.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acking[id] = true
}

// settled notes an answer to a settlement of a lease that its worker believed in.
func (t *tally) settled(h *holding, action message.Action, r message.SettleResult, repeated, believed bool) {
	id := h.token.ID
	newest, granted := t.w.logs.newest(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch code := message.CodeOf(errorOf(r.Err)); {
	case r.Err == nil && action == message.Ack:
		t.counts["acked"]++
		if t.acked[id] == 0 {
			t.acked[id] = t.w.now()
		}
		if !r.AlreadyDone && (newest.At() != h.token.At() || newest.Fence != h.token.Fence) {
			t.w.fail("an ack of %s with fence %d was accepted, and its last lease had %d at %s", id, h.token.Fence, newest.Fence, newest.At())
		}
	case r.Err == nil:
		t.counts["nacked"]++
	case code == message.Fenced:
		t.counts["fenced"]++
		if believed && !repeated {
			t.w.fail("%s was refused message %s (%v), which was its own since %v", h.worker.name, id, r.Err, granted)
		}
	}
}

// followed notes what came of the messages that were sent with an ack.
func (t *tally) followed(fs []message.FollowUp, r message.SettleResult, repeated bool) {
	err := errorOf(r.Err)
	switch {
	case err != nil && repeated:
		err = errDied // what is refused now may have been done before
	case err == nil && len(r.FollowUps) != len(fs):
		t.w.fail("an ack with %d messages has the answer that %d were sent", len(fs), len(r.FollowUps))
		return
	}
	for i := range fs {
		id := message.ID{}
		if err == nil {
			id = r.FollowUps[i]
			t.count("follow-ups")
		}
		t.outcome(string(fs[i].Body), id, false, err)
	}
}

func errorOf(e *message.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// final checks, when all has come to rest, that nothing is missing, and nothing there
// twice.
func (t *tally) final() {
	t.mu.Lock()
	defer t.mu.Unlock()
	stored := int64(0)
	for payload, s := range t.sends {
		purged := t.w.logs.wasPurged(s.id)
		if s.stored && !purged {
			stored++
		}
		if s.outcome != "confirmed" {
			continue
		}
		m, state := t.w.logs.find(s.id)
		switch {
		case purged:
			t.counts["purged"]++
		case m == nil:
			t.w.fail("message %s with %q was confirmed, and no group has ever had it", s.id, payload)
		case state == message.Dead && m.cancelled:
			t.w.fail("message %s with %q is dead, and was cancelled", s.id, payload)
		case state == message.Dead && (m.bound || t.w.logs.forwards(m)):
			t.w.fail("message %s with %q is dead, and has not gone to the queue where it should be", s.id, payload)
		case state == message.Dead:
		case state == message.Expired && !s.expires.IsZero(), state == message.Cancelled && s.withdrawn:
			t.counts["withdrawn"]++
		case state == message.Finished && t.acking[s.id]:
		case state == message.Finished:
			t.w.fail("message %s with %q is finished, and nobody has acked it", s.id, payload)
		case state == 0:
			t.w.fail("message %s with %q was confirmed, and is not there", s.id, payload)
		default:
			t.w.fail("message %s with %q is %s when all should have come to an end", s.id, payload, state)
		}
	}
	if n := t.w.logs.count(); n != stored {
		t.w.fail("%d messages were stored, and %d are there", stored, n)
	}
}

// waits says that something is not finished or dead yet.
func (t *tally) waits() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sends {
		if s.stored {
			if _, state := t.w.logs.find(s.id); !state.Ended() {
				return true
			}
		}
	}
	return false
}

// known is what a sender knows of a message, and when its ack was confirmed; 0: it was
// not.
func (t *tally) known(payload string) (s sending, acked time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s = *t.sends[payload]
	return s, t.acked[s.id]
}

// tokens are what a worker holds, as it claims it.
func (t *tally) tokens(k *worker) (ts []message.Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, hs := range t.hands {
		for _, h := range hs {
			if h.worker == k {
				ts = append(ts, h.token)
			}
		}
	}
	slices.SortFunc(ts, func(a, b message.Token) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return ts
}

// count notes that something happened.
func (t *tally) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}
