package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// holder is a group with queue 1, whose settings get newer with each read.
type holder struct {
	Group
	version uint64
	gone    func() // the group gave the queue's cells away; nil: it has them
	purged  int
}

func (h *holder) Read(_ context.Context, q *queue.Query, _ time.Duration) (a queue.Answer, f message.Freshness, _ error) {
	h.version++
	if h.gone != nil && q.Cells != 0 {
		if h.version == 3 {
			h.gone()
		}
		return queue.Answer{Moved: true}, f, nil
	}
	return queue.Answer{Queue: &queue.Info{Number: 1, Version: h.version, Shards: []queue.ShardInfo{{Leaving: 7}}}}, f, nil
}

func (h *holder) Propose(context.Context, queue.Command) (any, error) {
	h.purged++
	return nil, nil
}

// newHolders are two groups. The first has the queue of the desk, or had: then the
// catalog hears after a while that it is in the second.
func newHolders(t *testing.T, gone bool) (d *desk, first, second *holder) {
	d = newDesk(t)
	groups := map[uint64]*holder{2: {}, 3: {}}
	if gone {
		groups[2].gone = func() {
			d.change(catalog.Command{AddGroup: &catalog.AddGroup{Origin: catalog.Origin{Queue: 1, Path: "0", Epoch: 1}, Seats: []catalog.Seat{{Node: 1}}}})
			d.change(catalog.Command{MoveShard: &catalog.MoveShard{Queue: 1, Path: "0", Epoch: 1, Group: 3}})
		}
	}
	d.o.Leader = func(id uint64) (Group, error) { return groups[id], nil }
	d.o.Reader = func(id uint64) (Reader, error) { return groups[id], nil }
	d.o.Change = func(context.Context, catalog.Command) (catalog.Result, error) { // this node does not hear of it yet
		q, _ := d.View().Queue("q")
		changed := *q
		changed.Version += 2
		return catalog.Result{Queue: &changed}, nil
	}
	return d, groups[2], groups[3]
}

// A queue tells how much is on its way to others.
func TestQueueTellsWhatIsLeaving(t *testing.T) {
	d, _, _ := newHolders(t, false)
	if info, _, err := d.Queue(t.Context(), "q", message.ReadOptions{Stale: time.Second}); err != nil || info.Leaving != 7 {
		t.Errorf("%d are leaving, %v", info.Leaving, err)
	}
}

// A change of a queue is confirmed when its groups have it, also by a node that has
// not heard of it itself.
func TestChangeWaitsForTheGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, first, _ := newHolders(t, false)
		q, _ := d.View().Queue("q")
		if err := d.PauseQueue(t.Context(), "q", true, message.Pause{}); err != nil || first.version != q.Version+2 {
			t.Errorf("confirmed with version %d in the group: %v", first.version, err)
		}
	})
}

// A shard that has spun off before a change may lack it: it is confirmed when the
// shard's own group has it, which the catalog hears of later.
func TestChangeFindsWhatHasSpunOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, second := newHolders(t, true)
		q, _ := d.View().Queue("q")
		if err := d.PauseQueue(t.Context(), "q", true, message.Pause{}); err != nil || second.version != q.Version+2 {
			t.Errorf("confirmed with version %d in the shard's group: %v", second.version, err)
		}
	})
}

// Likewise a purge.
func TestPurgeFindsWhatHasSpunOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, first, second := newHolders(t, true)
		if err := d.PurgeQueue(t.Context(), "q"); err != nil || first.purged != 1 || second.purged != 1 {
			t.Errorf("purged %d and %d times: %v", first.purged, second.purged, err)
		}
	})
}
