//go:build faults

package faults

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// keys is how many keys a load has: as many producers, each sends one key's
// messages in order.
const keys = 16

// fate is what a producer knows of a message that it sent.
type fate int

const (
	unknown   fate = iota // no answer, or not yet: it is there once or not at all
	confirmed             // it is there until it is acked
	refused               // it is not there
)

// sent is one message of a record.
type sent struct {
	id     string // once a confirmation or a delivery told it
	fate   fate
	why    error     // of a refusal
	began  time.Time // of the call that sent it
	came   bool      // it was delivered
	acking bool      // an ack was begun
	acked  uint64    // when an ack was confirmed, by the record's own count; 0: not yet
}

// record is what producers and workers saw. It finds what must not be as soon
// as it shows: a phantom, a double, a wrong order, a message that comes back.
type record struct {
	mu    sync.Mutex
	sent  [keys][]sent
	first [keys]int // no number below this may be delivered for the first time
	count uint64
	wrong []string
}

// body is the body of message n of a key: its place, and up to 4 KiB more, of
// each eighth message up to 64 KiB, so that a load fills log segments.
func body(key, n int) []byte {
	b := fmt.Appendf(nil, "%d/%d ", key, n)
	more := (key*31 + n*257) % 4096
	if n%8 == 7 {
		more *= 16
	}
	return append(b, bytes.Repeat([]byte{byte('a' + n%26)}, more)...)
}

// begin notes n messages of a key that are about to be sent, and returns the
// number of the first.
func (r *record) begin(key, n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := len(r.sent[key])
	for range n {
		r.sent[key] = append(r.sent[key], sent{began: time.Now()})
	}
	return at
}

func (r *record) confirm(key, n int, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.sent[key][n]
	r.known(s, key, n, id)
	s.fate = confirmed
}

func (r *record) refuse(key, n int, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.sent[key][n]
	s.fate, s.why = refused, why
	if s.came {
		r.report("%d/%d was delivered and then refused: %v", key, n, why)
	}
}

// now is a moment, to be given to deliver.
func (r *record) now() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	return r.count
}

// deliver notes a message that a call brought which began at a moment. It
// returns the message's place, or false for one that was never sent.
func (r *record) deliver(began uint64, id string, got []byte) (key, n int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := fmt.Sscanf(string(got), "%d/%d", &key, &n)
	if err != nil || key >= keys || n >= len(r.sent[key]) || !bytes.Equal(got, body(key, n)) {
		r.report("%.20q was delivered and never sent so", got)
		return 0, 0, false
	}
	s := &r.sent[key][n]
	r.known(s, key, n, id)
	if s.fate == refused {
		r.report("%d/%d was refused and is there: %v", key, n, s.why)
	}
	if s.acked != 0 && s.acked < began {
		r.report("%d/%d was acked and came again", key, n)
	}
	if s.came {
		return key, n, true
	}
	s.came = true
	if n < r.first[key] {
		r.report("%d/%d came after a later one of its key", key, n)
		return key, n, true
	}
	for i := r.first[key]; i < n; i++ {
		if e := &r.sent[key][i]; (e.fate == confirmed || e.came) && !e.acking {
			r.report("%d/%d came while %d/%d was not settled", key, n, key, i)
		}
	}
	r.first[key] = n
	return key, n, true
}

// known keeps the id of a message: it has one. r.mu is held.
func (r *record) known(s *sent, key, n int, id string) {
	if s.id != "" && s.id != id {
		r.report("%d/%d is there twice, as %s and %s", key, n, s.id, id)
	}
	s.id = id
}

func (r *record) ack(key, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[key][n].acking = true
}

func (r *record) acked(key, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	if s := &r.sent[key][n]; s.acked == 0 {
		s.acked = r.count
	}
}

// open is how many messages of a key are neither refused nor acked.
func (r *record) open(key int) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.sent[key] {
		if s := &r.sent[key][i]; s.fate != refused && s.acked == 0 {
			n++
		}
	}
	return n
}

// report keeps what must not be, the first 20 of it. r.mu is held.
func (r *record) report(format string, args ...any) {
	if len(r.wrong) < 20 {
		r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
	}
}

// compare holds the record against the ids that the server says are unfinished,
// while nobody sends or acks, and returns all that was found wrong so far.
func (r *record) compare(unfinished map[string]bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	mayBe, strangers := 0, len(unfinished)
	for key := range r.sent {
		for n := range r.sent[key] {
			s := &r.sent[key][n]
			there := unfinished[s.id]
			switch {
			case s.id == "":
				if s.fate == unknown {
					mayBe++
				}
				continue
			case there:
				strangers--
			}
			if s.fate == confirmed && !s.acking && !there {
				r.report("%d/%d (%s) was confirmed and is lost", key, n, s.id)
			}
			if s.acked != 0 && there {
				r.report("%d/%d (%s) was acked and waits again", key, n, s.id)
			}
		}
	}
	if strangers > mayBe {
		r.report("%d messages are there whose sending was not confirmed, and only %d such were sent; refused were: %q", strangers, mayBe, r.reasons())
	}
	return r.wrong
}

// reasons are the different words of refusals. r.mu is held.
func (r *record) reasons() []string {
	words := map[string]bool{}
	for key := range r.sent {
		for n := range r.sent[key] {
			if s := &r.sent[key][n]; s.fate == refused {
				words[s.why.Error()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(words))
}

// drained is compare once nothing is left: all that was confirmed has come.
func (r *record) drained() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.sent {
		for n := range r.sent[key] {
			if s := &r.sent[key][n]; s.fate == confirmed && !s.came {
				r.report("%d/%d (%s) was confirmed and never came", key, n, s.id)
			}
		}
	}
	return r.wrong
}

// summary counts the record's messages.
func (r *record) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, fates := 0, [3]int{}
	came, acked := 0, 0
	for key := range r.sent {
		for n := range r.sent[key] {
			s := &r.sent[key][n]
			all++
			fates[s.fate]++
			if s.came {
				came++
			}
			if s.acked != 0 {
				acked++
			}
		}
	}
	return fmt.Sprintf("%d sent, %d confirmed, %d of unknown outcome, %d refused; %d came, %d acks confirmed",
		all, fates[confirmed], fates[unknown], fates[refused], came, acked)
}
