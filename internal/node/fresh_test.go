package node

import (
	"slices"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// lists lists the queues at a node.
func (m *member) lists(stale time.Duration) (names []string, f message.Freshness, err error) {
	qs, _, f, err := m.Gateway().Queues(m.t.Context(), 100, "", message.ReadOptions{Stale: stale})
	for _, q := range qs {
		names = append(names, q.Name)
	}
	return names, f, err
}

// A list of queues at any node, also at one without a replica of the catalog, holds
// a queue that was created at another one just before. With a bound it says how old
// it may be. A node that is cut off answers while the bound lasts, then it refuses,
// and answers again when it is back.
func TestListOfQueuesIsFresh(t *testing.T) {
	var w wires
	ms := startWired(t, 4, &w)
	voters(t, ms[0], 3)
	for i, m := range ms {
		name := "q" + string(rune('0'+i))
		if _, _, err := ms[(i+1)%4].Gateway().CreateQueue(t.Context(), name, message.Settings{}, 1); err != nil {
			t.Fatal(err)
		}
		names, f, err := m.lists(0)
		if err != nil || len(names) != i+1 || f.ServedBy != m.name || f.Age != 0 {
			t.Errorf("%s lists %q, %+v, %v", m.name, names, f, err)
		}
	}
	var copying *member
	for _, m := range ms {
		_, _, replica := m.catalogHere()
		if !replica {
			copying = m
		}
		names, f, err := m.lists(20 * time.Second)
		leading := replica && leadsHere(m, catalog.MetaGroup)
		if err != nil || len(names) != 4 || f.ServedBy != m.name || f.Age > 20*time.Second || leading != (f.Role == "leader") {
			t.Errorf("%s lists with a bound %q, %+v, %v", m.name, names, f, err)
		}
	}
	if copying == nil {
		t.Fatal("every node has a replica of the catalog")
	}
	follower := ms[slices.IndexFunc(ms, func(m *member) bool { return m != copying && !leadsHere(m, catalog.MetaGroup) })]
	for m, stale := range map[*member]time.Duration{follower: 0, copying: time.Millisecond} {
		heal := w.isolate(m)
		if names, f, err := m.lists(message.MaxStale); err != nil || len(names) != 4 || f.Role != "follower" {
			t.Errorf("cut off, %s lists within its bound %q, %+v, %v", m.name, names, f, err)
		}
		if names, f, err := m.lists(stale); message.CodeOf(err) != message.Unavailable {
			t.Errorf("cut off, %s lists with stale %s %q, %+v, %v", m.name, stale, names, f, err)
		}
		heal()
		eventually(t, m.name+" lists again", func() bool {
			names, _, err := m.lists(0)
			return err == nil && len(names) == 4
		})
	}
}
