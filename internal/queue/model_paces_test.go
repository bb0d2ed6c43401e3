package queue_test

import (
	"time"

	"pgregory.net/rapid"

	"github.com/comanda-mq/comanda/internal/message"
)

// Of each key so many messages go out in a span of time as the rate_per_key says: the n-th
// no earlier than (n-1) steps after the first, less 100 ms that a fast rate may be ahead.

type paces struct {
	rate  message.Rate
	next  map[string]int64 // when one more message of a key is due, ms
	rests map[string]bool
}

func (p *paces) draw(t *rapid.T) {
	p.rate = rapid.SampledFrom([]message.Rate{{}, {Count: 1, Per: 2 * time.Second}, {Count: 2, Per: time.Second}, {Count: 10, Per: time.Second}, {Count: 40, Per: time.Second}}).Draw(t, "rate per key")
	if p.next == nil {
		p.next, p.rests = map[string]int64{}, map[string]bool{}
	}
}

// step is what lies between two messages, and ahead how early one may be.
func (p *paces) step() (step, ahead int64) {
	step = (p.rate.Per / time.Duration(p.rate.Count)).Milliseconds()
	return step, max(0, 100-step)
}

// ends is until when a message of a key that goes out is late: those behind it are due as
// if it were not.
func (p *paces) ends(key string) int64 {
	if p.rate.Count == 0 {
		return p.next[key]
	}
	step, ahead := p.step()
	return p.next[key] + max(0, min(100, step-ahead))
}

// leased checks and counts a message that went out.
func (p *paces) leased(t *rapid.T, k *known, now int64) {
	if k.key == "" || p.rate.Count == 0 {
		return
	}
	step, ahead := p.step()
	// A key that a faster rate before let be ahead does not rest for the new one.
	if p.rests[k.key] || p.next[k.key] > now+100 {
		t.Fatalf("%s was handed out at %d, and its key, of which %v may go out, is due at %d", k.name, now, p.rate, p.next[k.key])
	}
	if now >= p.ends(k.key) {
		p.next[k.key] = now
	}
	p.next[k.key] += step
	p.rests[k.key] = p.next[k.key] > now+ahead
}

// look takes in that all timers were looked at: keys whose time has come rest no more,
// nor do those that only another rate let rest.
func (p *paces) look(now int64) {
	for key := range p.next {
		latest, ahead := now, int64(0)
		if p.rate.Count > 0 {
			latest, ahead = p.step()
			latest = now + max(latest, 100)
		}
		p.next[key] = min(p.next[key], latest)
		p.rests[key] = p.rests[key] && p.next[key] > now+ahead
		if now >= p.ends(key) {
			delete(p.next, key)
		}
	}
}
