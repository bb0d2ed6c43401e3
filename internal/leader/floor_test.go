package leader

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// scans notes where the scans of ready rows of priority 0 begin.
type scans struct {
	queue.Reader
	from []uint64
}

func (s *scans) Scan(space uint64, lo, hi []byte, visit func(k, v []byte) bool) {
	if lo[0] == 'r' && lo[1] == message.MaxPriority {
		s.from = append(s.from, binary.BigEndian.Uint64(lo[2:]))
	}
	s.Reader.Scan(space, lo, hi, visit)
}

// offers tells the first message that a new leader would find, and from where it
// has to look for it.
func (r *rig) offers() (first, from uint64) {
	r.t.Helper()
	r.read(func(rows queue.Reader) {
		s := &scans{Reader: rows}
		refs := queue.Offers(s, 1, 0, nil, 1)
		if len(refs) != 1 || len(s.from) != 1 {
			r.t.Fatalf("%v, scans from %v", refs, s.from)
		}
		first, from = refs[0].Seq, s.from[0]
	})
	return first, from
}

// Most of a queue is gone, and a new leader has to pass over what is left of
// it. Its first lease tells where it found something, so that the next one looks
// from there; an older message that comes back is found all the same (trap 13).
func TestTrap13NewLeaderLooksFromTheFloor(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.send(500, 0)
		r.settle(r.receive(500, time.Minute), message.Ack, 0)
	}
	r.send(10, 0)
	r.restart()
	a := r.receive(1, time.Minute)
	r.restart()
	if _, from := r.offers(); from != a[0].Ref.Seq {
		t.Errorf("the next leader looks from %d, the last found its first at %d", from, a[0].Ref.Seq)
	}
	b := r.receive(1, time.Minute)
	if first, from := r.offers(); from != b[0].Ref.Seq || first <= from {
		t.Errorf("it looks from %d for %d; %d was the first", from, first, b[0].Ref.Seq)
	}
	r.settle(a, message.Nack, 0)
	if first, _ := r.offers(); first != a[0].Ref.Seq {
		t.Errorf("%d came back, and the first that is found is %d", a[0].Ref.Seq, first)
	}
	// A floor that was found before that does not hide it.
	late := queue.Lease{Queue: 1, Worker: "w", Length: time.Minute, MaxBytes: 1, Floors: []queue.Floor{{Seq: b[0].Ref.Seq + 5, Index: r.Status().Applied - 2}}}
	r.propose(late.Command())
	if first, _ := r.offers(); first != a[0].Ref.Seq {
		t.Errorf("after a late floor the first that is found is %d, want %d", first, a[0].Ref.Seq)
	}
	r.restart()
	if got := r.receive(1, time.Minute); got[0].ID != a[0].ID {
		t.Errorf("a new leader hands out %v first", got[0].ID)
	}
}
