package leader

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/replica"
)

// oneGroup are the rows of a catalog with a group.
type oneGroup struct {
	id  uint64
	row []byte
}

func (oneGroup) Get(uint64, []byte) ([]byte, bool) { return nil, false }

func (r oneGroup) Scan(_ uint64, lo, _ []byte, visit func(k, v []byte) bool) {
	if lo[0] == 'g' {
		visit(binary.BigEndian.AppendUint64(lo, r.id), r.row)
	}
}

// ledBy leads group 2 by replica 1 in a configuration.
func ledBy(t *testing.T, conf *raftpb.ConfState) *replica.Group {
	t.Helper()
	clock := newHand()
	o := replica.Options{
		Machine: func(g *replica.Group) replica.StateMachine {
			return New(g, clock, nil, slog.New(slog.DiscardHandler))
		},
		Now: clock.Now, Logger: slog.New(slog.DiscardHandler),
	}
	fs := vfs.NewMem()
	o.Log.FS, o.Log.Dir, o.Log.StoreID, o.Log.SegmentBytes = fs, "log", 1, smallSegment
	o.State.FS, o.State.Dir, o.State.StoreID, o.State.MemTable = fs, "state", 1, smallSegment
	host, err := replica.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	steps := func() {
		for range 40 {
			if err := host.Step(true); err != nil {
				t.Fatal(err)
			}
		}
	}
	steps()
	n := replica.NewReplica{Group: 2, Replica: 1, Conf: conf}
	n.Base.Index, n.Base.Term = 1, 1
	g, err := host.Create(n)
	if err != nil {
		t.Fatal(err)
	}
	steps()
	if !g.Leading() {
		t.Fatal("the group has no leader")
	}
	return g
}

// In a joint configuration the voters are already those that are wanted, and the
// old ones still count: a catalog that heard of it would forget them, and their
// nodes would destroy them before the change has ended.
func TestJointConfigurationIsNotReported(t *testing.T) {
	row, err := json.Marshal(catalog.Group{ID: 2, Epoch: 3, Replicas: []catalog.Replica{{ID: 1, Node: 1}, {ID: 2, Node: 2, Role: catalog.Leaving}}})
	if err != nil {
		t.Fatal(err)
	}
	m := catalog.New()
	m.Load(oneGroup{2, row})
	for name, conf := range map[string]*raftpb.ConfState{
		"joint":  {Voters: []uint64{1}, VotersOutgoing: []uint64{1}},
		"simple": {Voters: []uint64{1}},
	} {
		g := ledBy(t, conf)
		reports := 0
		members := NewMembers(g, func(context.Context, catalog.Command) (catalog.Result, error) {
			reports++
			return catalog.Result{}, nil
		})
		if err := members.Step(t.Context(), m.View(), 0, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{"joint": 0, "simple": 1}[name]; reports != want {
			t.Errorf("a %s configuration was reported %d times, want %d", name, reports, want)
		}
	}
}
