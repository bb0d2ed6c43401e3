package catalog

import (
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// A command of a newer node, of which nothing is known here, must not get into
// the log: it would stop every node that holds the catalog, now and at each start.
func TestCommandsOfNewerNodesAreRefused(t *testing.T) {
	for _, b := range []string{``, `{}`, `null`, `[]`, `{"enchant_queue":{"name":"q"}}`, `{"create_queue":{"name":"q","shards":1,"colour":"red"}}`, `{"set_node_state":{"id":1,"state":"asleep"}}`} {
		if c, err := DecodeCommand([]byte(b)); err == nil {
			t.Errorf("%s is read as %s", b, c.Encode())
		}
	}
}

// FuzzCommand: what DecodeCommand lets through can't stop a node, and leaves a
// catalog that can be followed and routed by.
func FuzzCommand(f *testing.F) {
	for _, c := range []Command{
		found("two"),
		{CreateQueue: &CreateQueue{Name: "r", Settings: message.Settings{}, Shards: 4}},
		{DeleteQueue: &DeleteQueue{Name: "q"}},
		{PauseQueue: &PauseQueue{Name: "q", Paused: true}},
		{PauseQueue: &PauseQueue{Name: "q", Paused: true, Of: message.Pause{Key: "k", By: "ann", At: 7}}},
		{SplitShard: &SplitShard{Queue: 1, Path: "0.0", Epoch: 1, At: 4}},
		{MoveShard: &MoveShard{Queue: 1, Path: "0.0", Epoch: 1, Group: 3}},
		{AddNode: &AddNode{Node: Node{Name: "b", StoreID: 2, Labels: map[string]string{"zone": "a"}}}},
		{SetNode: &SetNode{Node: Node{ID: 1, Name: "c", Boot: 7}}},
		{SetNodeState: &SetNodeState{ID: 1, State: Down}},
		{SetNodeClock: &SetNodeClock{ID: 1, Off: true}},
		{DrainNode: &DrainNode{ID: 1, Draining: true}},
		{AddGroup: &AddGroup{Origin: Origin{Queue: 1, Path: "0.0", Epoch: 1}, Seats: []Seat{{Node: 1}}}},
		{SetReplicas: &SetReplicas{Group: 2, Epoch: 1, Want: []Seat{{Node: 1}}, Pin: new(uint64(1))}},
		{Confirm: &Confirm{Group: 2, Epoch: 1, Configuration: Configuration{Term: 1, Index: 2, Voters: []uint64{1}}}},
		open("kitchen", 2),
		{EndSession: &EndSession{ID: 1, Incarnation: 1, Why: "silent"}},
		{DrainWorker: &DrainWorker{Worker: "kitchen"}},
		{ForgetSessions: &ForgetSessions{UpTo: 9}},
		{BeginOperation: &BeginOperation{Key: "k", Kind: "move", Title: "move", Subject: "q", Args: []byte(`{"a": 1}`)}},
		{AdvanceOperation: &AdvanceOperation{ID: 1, Next: "there", Data: []byte(`[]`)}},
		{FinishOperation: &FinishOperation{ID: 1, State: Done}},
		{CancelOperation: &CancelOperation{ID: 1}},
		{PauseOperation: &PauseOperation{ID: 1, Paused: true}},
	} {
		f.Add(c.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		w := newTown()
		w.apply(Command{CreateQueue: &CreateQueue{Name: "q", Shards: 2}}, open("kitchen", 1), Command{BeginOperation: &BeginOperation{Key: "begun", Kind: "split"}})
		base := w.m.View()
		for _, r := range w.apply(c, c) {
			if _, err := DecodeResult(r.Encode()); err != nil {
				t.Fatal(err)
			}
		}
		if w.m.View() != base {
			if _, _, err := Follow(base, w.m.View().Since(base.Version)); err != nil {
				t.Fatal(err)
			}
		}
		(&Machine{}).Load(w.rows)
		for _, q := range w.m.View().Queues("", w.m.View().Len()) {
			for n := range message.Cells {
				q.Shard(n)
			}
			q.Tree()
		}
	})
}
