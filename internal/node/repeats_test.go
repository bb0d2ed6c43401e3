package node

import (
	"fmt"
	"slices"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// A repeat finds the first message through another node after the leader of its
// shard has died, and is answered by the next leader.
func TestRepeatsAfterALeadersDeath(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[1], 3)
	ctx := t.Context()
	if _, _, err := ms[0].Gateway().CreateQueue(ctx, "orders", message.Settings{}, 4); err != nil {
		t.Fatal(err)
	}
	var msgs []message.New
	for i := range 20 {
		name := fmt.Sprint(i)
		msgs = append(msgs, message.New{DedupID: name}, message.New{UniqueKey: name, OnConflict: message.ConflictExisting})
	}
	first, err := ms[0].Gateway().Send(ctx, "orders", msgs)
	if err != nil {
		t.Fatal(err)
	}
	shards, _, _, err := ms[0].Gateway().Shards(ctx, "orders", 10, "", message.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dies := slices.IndexFunc(ms, func(m *member) bool { return m.name == shards[0].Leader })
	if dies < 0 {
		t.Fatalf("nobody leads %+v", shards[0])
	}
	ms[dies].stop()
	again, err := ms[(dies+1)%3].Gateway().Send(ctx, "orders", msgs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range msgs {
		if first[i].Err != nil || first[i].Existing || again[i].Err != nil || !again[i].Existing || again[i].ID != first[i].ID {
			t.Errorf("%+v: first %+v, then %+v", msgs[i], first[i], again[i])
		}
	}
}
