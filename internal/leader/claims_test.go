package leader

import (
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// A lease whose answer was lost is released when two claims in a row lack it; one
// that is claimed stays, also when a claim in between lacked it.
func TestLeaseThatNobodyClaimsIsReleased(t *testing.T) {
	r := newRig(t)
	r.send(2, 0)
	c := NewCall(1, message.ReceiveOptions{Max: 2, Lease: time.Minute, Worker: "w"}, 1)
	c.Lease.Session = queue.Session{ID: 7, Incarnation: 9, CatalogVersion: 1}
	r.Wait(c)
	got, refusal := c.Collect(t.Context())
	if refusal != nil || len(got) != 2 {
		t.Fatalf("%d leased, %v", len(got), refusal)
	}
	kept := queue.LeaseRef{Cell: got[0].Ref.Cell, Seq: got[0].Ref.Seq, Fence: got[0].Fence}
	lost := queue.LeaseRef{Cell: got[1].Ref.Cell, Seq: got[1].Ref.Seq, Fence: got[1].Fence}
	attachment := uint64(1)
	claim := func(leases ...queue.LeaseRef) {
		t.Helper()
		if _, err := r.Claim(t.Context(), Claim{Session: 7, Incarnation: 9, Attachment: attachment, Holds: map[uint32][]queue.LeaseRef{1: leases}}); err != nil {
			t.Fatal(err)
		}
	}
	claim(kept)
	r.want("after one claim", 0, 0, 2)
	claim(kept, lost)
	claim(kept)
	r.want("claimed in between", 0, 0, 2)
	attachment = 2
	claim(kept)
	r.propose(queue.Tick())
	r.want("claimed once each by two attachments", 0, 0, 2)
	claim(kept)
	r.propose(queue.Tick()) // behind the release
	r.want("after two in a row", 1, 0, 1)
	ended := kept
	ended.Fence--
	for range 2 {
		claim(kept, ended)
		r.propose(queue.Tick())
	}
	r.want("claimed together with a lease of the message that has ended", 1, 0, 1)
}

// A worker is told with each of its claims which of its messages are to be
// cancelled, whoever leads; by force they end without it.
func TestCancelIsTold(t *testing.T) {
	r := newRig(t)
	r.send(2, 0)
	c := NewCall(1, message.ReceiveOptions{Max: 2, Lease: time.Minute, Worker: "w"}, 1)
	c.Lease.Session = queue.Session{ID: 7, Incarnation: 9, CatalogVersion: 1}
	r.Wait(c)
	got, _ := c.Collect(t.Context())
	told := func() (n int) {
		t.Helper()
		all, err := r.Claim(t.Context(), Claim{Session: 7, Incarnation: 9})
		if err != nil {
			t.Fatal(err)
		}
		return len(all[1])
	}
	if n := told(); n != 0 {
		t.Fatalf("%d messages are to be cancelled", n)
	}
	r.propose((&queue.Cancel{IDs: []message.ID{got[0].ID}, Force: true, Grace: 2 * time.Second}).Command())
	r.restart()
	if n := told(); n != 1 {
		t.Fatalf("the worker is told of %d messages, want 1", n)
	}
	r.step(time.Second)
	r.want("in the grace", 0, 0, 2)
	r.step(time.Second)
	r.want("after the grace", 0, 0, 1)
}

// Whoever claims for a worker hears of a lease when it has come, not when the last of
// the call's groups lets it go.
func TestArrivedComesBeforeTheCallEnds(t *testing.T) {
	c := NewCall(1, message.ReceiveOptions{Max: 3, Lease: time.Minute}, 2)
	var heard []queue.Leased
	c.Arrived = func(got []queue.Leased) { heard = append(heard, got...) }
	c.reserve(1)
	if n, _, _ := c.lend(); n != 2 {
		t.Fatalf("%d lent, want 2", n)
	}
	c.deliver(1, []queue.Leased{{Fence: 7}}, nil)
	if len(heard) != 1 || heard[0].Fence != 7 {
		t.Fatalf("heard of %+v while another group is waited for", heard)
	}
	if _, _, ended := c.leave(false); ended {
		t.Fatal("the call has ended, and nothing was shown")
	}
}
