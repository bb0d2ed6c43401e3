package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/gateway"
	"github.com/comanda-mq/comanda/internal/message"
)

// TestRefusedBatches is the table of what an atomic send refuses; nothing of it is
// stored.
func TestRefusedBatches(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 4)
	send(t, g, "q", message.New{Key: "k", UniqueKey: "u"})
	near, far := apart(atomicQueue(g))
	for name, x := range map[string]struct {
		msgs []message.New
		call message.Code   // of the call as a whole
		want []message.Code // of each message
	}{
		"no message":       {nil, message.InvalidArgument, nil},
		"too many bytes":   {[]message.New{{Key: "k", Body: make([]byte, message.MaxEntryBytes/2)}, {Key: "k", Body: make([]byte, message.MaxEntryBytes/2)}}, message.TooLarge, nil},
		"two shards":       {[]message.New{{Key: near}, {}, {Key: far}}, message.InvalidArgument, nil},
		"one that is bad":  {[]message.New{{Key: "k"}, {Key: "k", Priority: 10}}, "", []message.Code{message.BatchRefused, message.InvalidArgument}},
		"a conflict":       {[]message.New{{Key: "k"}, {Key: "k", UniqueKey: "u"}, {Key: "k"}}, "", []message.Code{message.BatchRefused, message.Conflict, message.BatchRefused}},
		"its own conflict": {[]message.New{{Key: "k", UniqueKey: "v"}, {Key: "k", UniqueKey: "v"}}, "", []message.Code{message.BatchRefused, message.Conflict}},
		"a time too early": {[]message.New{{Key: "k", Expires: time.Now().Add(-time.Hour)}, {Key: "k"}}, "", []message.Code{message.InvalidArgument, message.BatchRefused}},
	} {
		rs, err := g.SendAtomic(t.Context(), "q", x.msgs)
		if message.CodeOf(err) != x.call || len(rs) != len(x.want) {
			t.Errorf("%s: %+v, %v", name, rs, err)
			continue
		}
		for i, r := range rs {
			if r.Err == nil || r.Err.Code != x.want[i] {
				t.Errorf("%s: message %d: %+v, want %s", name, i, r, x.want[i])
			}
		}
	}
	if c := counts(t, g, "q"); c.Ready != 1 {
		t.Errorf("%+v", c)
	}
}

func atomicQueue(g *gateway.Gateway) *catalog.Queue {
	q, _ := g.View().Queue("q")
	return q
}

// apart are two keys in different shards.
func apart(q *catalog.Queue) (near, far string) {
	for far = "a"; q.Shard(q.Hash(far).Point().Cell()) == q.Shard(q.Hash("k").Point().Cell()); far += "a" {
	}
	return "k", far
}

// TestAtomicBatch: what may stand anywhere goes where the key of the batch is, and a
// repeat is as good as stored.
func TestAtomicBatch(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 4)
	for range 4 { // the turn of each shard
		rs, err := g.SendAtomic(t.Context(), "q", []message.New{{}, {Key: "k", DedupID: "d"}, {}})
		if err != nil || rs[0].Err != nil || rs[1].Err != nil || rs[2].Err != nil {
			t.Fatalf("%+v, %v", rs, err)
		}
		shard := func(i int) *catalog.Shard { return atomicQueue(g).Shard(rs[i].ID.Point().Cell()) }
		if shard(0) != shard(1) || shard(2) != shard(1) {
			t.Errorf("a batch lies in %s, %s and %s", shard(0).Path, shard(1).Path, shard(2).Path)
		}
	}
	if c := counts(t, g, "q"); c.Ready != 9 {
		t.Errorf("%+v", c)
	}
}

// TestAtomicBatchMeetsASplit: a gateway that does not know of the split yet has all of
// the batch refused in the group, looks again, and then knows where it belongs.
func TestAtomicBatchMeetsASplit(t *testing.T) {
	g := start(t)
	create(t, g, "q", message.Settings{}, 1)
	send(t, g, "q", message.New{Key: "k"})
	old := g.View()
	if _, err := g.SplitShard(t.Context(), "q", "0"); err != nil {
		t.Fatal(err)
	}
	near, far := apart(atomicQueue(g))
	sends := func(msgs ...message.New) ([]message.SendResult, error) {
		g.Outdate(old)
		return g.SendAtomic(t.Context(), "q", msgs)
	}
	rs, err := sends(message.New{Key: near}, message.New{Key: far})
	if err != nil || len(rs) != 2 {
		t.Fatalf("%+v, %v", rs, err)
	}
	for _, r := range rs {
		if r.Err == nil || r.Err.Code != message.InvalidArgument || !strings.Contains(r.Err.Text, "message 2 in 0.") {
			t.Errorf("a batch in two shards: %+v", r)
		}
	}
	for _, key := range []string{near, far} {
		if rs, err := sends(message.New{}, message.New{Key: key}, message.New{Key: key}); err != nil || rs[0].Err != nil || rs[1].Err != nil || rs[2].Err != nil {
			t.Errorf("a batch in one shard: %+v, %v", rs, err)
		}
	}
	if c := counts(t, g, "q"); c.Ready != 7 {
		t.Errorf("%+v", c)
	}
}
