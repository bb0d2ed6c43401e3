package gateway

import (
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/comanda-mq/comanda/internal/catalog"
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
