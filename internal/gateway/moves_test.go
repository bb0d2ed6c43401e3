package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

type queueRows struct{ row []byte }

func (queueRows) Get(uint64, []byte) ([]byte, bool) { return nil, false }

func (r queueRows) Scan(_ uint64, lo, _ []byte, visit func(k, v []byte) bool) {
	if lo[0] == 'q' {
		visit(binary.BigEndian.AppendUint32(lo, 1), r.row)
	}
}

// Waiting ends when a shard is in another group than before, and not when it was
// only split or its queue has other settings.
func TestWaitingEndsWhenAShardMoves(t *testing.T) {
	view := func(shards ...catalog.Shard) *catalog.View {
		row, err := json.Marshal(catalog.Queue{Number: 1, Name: "orders", Shards: shards})
		if err != nil {
			t.Fatal(err)
		}
		m := catalog.New()
		m.Load(queueRows{row})
		return m.View()
	}
	one := view(catalog.Shard{To: 15, Path: "0", Group: 2})
	two := view(catalog.Shard{To: 7, Path: "0.0", Group: 2}, catalog.Shard{From: 8, To: 15, Path: "0.1", Group: 2})
	moved := view(catalog.Shard{To: 7, Path: "0.0", Group: 2}, catalog.Shard{From: 8, To: 15, Path: "0.1", Group: 3})
	changes := []catalog.Change{{Queue: &catalog.Queue{Number: 1}}}
	for _, c := range []struct {
		name     string
		old, now *catalog.View
		changes  []catalog.Change
		want     bool
	}{
		{"settings", one, one, changes, false},
		{"split", one, two, changes, false},
		{"move", two, moved, changes, true},
		{"both at once", one, moved, changes, true},
		{"new", &catalog.View{}, one, changes, false},
		{"deleted", one, &catalog.View{}, changes, false},
		{"of another queue", two, moved, []catalog.Change{{}}, false},
		{"anything", one, one, nil, true},
	} {
		var m moves
		unmoved, stop := m.within(t.Context())
		m.learn(c.old, c.now, c.changes)
		if c.want {
			<-unmoved.Done()
		} else if unmoved.Err() != nil {
			t.Errorf("%s: waiting has ended", c.name)
		}
		stop()
		if after, stop := m.within(t.Context()); after.Err() != nil {
			t.Errorf("%s: nobody can wait any more", c.name)
		} else {
			stop()
		}
	}
}

// A shard that came from a split through another node is found before this node has
// heard of the split; one that is not there is refused.
func TestShardOfASplitElsewhere(t *testing.T) {
	d := newDesk(t)
	asked := 0
	d.o.Refresh = func(context.Context) error {
		if asked++; asked == 1 {
			q, _ := d.View().Queue("q")
			d.change(catalog.Command{SplitShard: &catalog.SplitShard{Queue: q.Number, Path: "0", Epoch: q.Shards[0].Epoch, At: 8}})
		}
		return nil
	}
	if q, s, err := d.shard(t.Context(), "q", "0.0"); err != nil || q.Name != "q" || s.Path != "0.0" {
		t.Errorf("shard 0.0: %+v, %v", s, err)
	}
	if _, _, err := d.shard(t.Context(), "q", "0"); message.CodeOf(err) != message.NotFound || asked != 2 {
		t.Errorf("the shard that was split: %v after asking %d times", err, asked)
	}
	if _, _, err := d.shard(t.Context(), "nothing", "0"); message.CodeOf(err) != message.QueueNotFound {
		t.Errorf("no queue: %v", err)
	}
}

// While a group's voters change, the old ones and the new ones have to agree: the
// group is as safe as the worse of the two.
func TestAliveVotersOfAChange(t *testing.T) {
	d := newDesk(t)
	group, _ := d.View().Group(2)
	here := group.Replicas[0].ID
	d.o.Server = func() message.ServerInfo { return message.ServerInfo{} }
	for _, c := range []struct {
		voters, outgoing []uint64
		alive            int
	}{
		{[]uint64{here}, nil, 1},
		{[]uint64{here, 98, 99}, nil, 1},
		{[]uint64{here}, []uint64{98}, 0},
		{[]uint64{98}, []uint64{here}, 0},
		{[]uint64{here}, []uint64{here, 98}, 1},
	} {
		d.o.Status = func(context.Context, uint64) (replica.Status, bool) {
			return replica.Status{Voters: c.voters, VotersOutgoing: c.outgoing}, true
		}
		s, err := d.Server(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range s.Groups {
			if g.Group == group.ID && (g.AliveVoters != c.alive || g.Voters != len(c.voters)) {
				t.Errorf("voters %v, before %v: %+v", c.voters, c.outgoing, g)
			}
		}
	}
}
