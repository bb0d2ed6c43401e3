package node

import (
	"testing"

	"github.com/comanda-mq/comanda/internal/replica"
)

// A node follows the catalog by its own replica only while that is in the group: one
// that applied its own removal goes on naming a leader whom it does not hear.
func TestWhoHearsTheCatalog(t *testing.T) {
	for _, c := range []struct {
		what string
		st   replica.Status
		want bool
	}{
		{"a follower", replica.Status{Replica: 3, Leader: 1, Voters: []uint64{1, 2, 3}}, true},
		{"a learner", replica.Status{Replica: 4, Leader: 1, Voters: []uint64{1, 2, 3}, Learners: []uint64{4}}, true},
		{"one that is on its way out", replica.Status{Replica: 3, Leader: 1, Voters: []uint64{1, 2, 4}, VotersOutgoing: []uint64{1, 2, 3}}, true},
		{"one that was taken out", replica.Status{Replica: 3, Leader: 1, Voters: []uint64{1, 2, 4}}, false},
		{"one without a leader", replica.Status{Replica: 3, Voters: []uint64{1, 2, 3}}, false},
		{"an empty one", replica.Status{Replica: 3}, false},
	} {
		if got := hears(c.st); got != c.want {
			t.Errorf("%s hears: %v", c.what, got)
		}
	}
}
