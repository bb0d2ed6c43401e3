package gateway

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
)

// handful is a group in which each session holds 3 messages.
type handful struct{ Group }

func (handful) Holds(_ context.Context, sessions []uint64) (map[uint64]int, error) {
	all := map[uint64]int{}
	for _, id := range sessions {
		all[id] = 3
	}
	return all, nil
}

// What workers hold is told although some groups have no leader, and names those. All
// are asked at once: two of them take no longer than one.
func TestHoldsWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := catalog.New()
		found := catalog.Command{Found: &catalog.Found{ClusterID: "c", Node: catalog.Node{ID: 1, Name: "a", StoreID: 1}, Groups: 3}}
		m.Apply(memory{}, 1, catalog.AppendEntry(nil, []entryCommand{{Head: found.Encode()}}))
		g := New(Options{Clock: clock.System(), Leader: func(id uint64) (Group, error) {
			if id == 3 {
				return handful{}, nil
			}
			return nil, message.Errorf(message.NotLeader, "group %d has no leader", id)
		}})
		began := time.Now()
		all, unreached := g.holds(t.Context(), m.View(), []uint64{7, 8})
		if len(all) != 2 || all[7] != 3 || all[8] != 3 || !slices.Equal(unreached, []uint64{2, 4}) {
			t.Errorf("holds %v without groups %v", all, unreached)
		}
		if took := time.Since(began); took >= 2*retryFor {
			t.Errorf("it took %s", took)
		}
	})
}
