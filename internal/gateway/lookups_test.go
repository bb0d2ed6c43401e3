package gateway

import (
	"context"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// A queue that many follow-ups of a call go to is looked for once: one that is not there
// costs a question to the catalog's leader.
func TestFollowUpsLookForAQueueOnce(t *testing.T) {
	d := newDesk(t)
	q, _ := d.View().Queue("q")
	asked, to := 0, lookups{}
	d.o.Refresh = func(context.Context) error { asked++; return nil }
	for range 3 {
		s := message.Settlement{Token: message.Token{ID: message.NewID(q.Number, 0, 1)}, FollowUps: []message.FollowUp{{Queue: "q"}, {Queue: "none"}}}
		if _, err := d.placeFollowUps(t.Context(), &s, to); message.CodeOf(err) != message.QueueNotFound {
			t.Error(err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}
