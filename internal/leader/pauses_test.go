package leader

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

func (r *rig) pauses(version uint64, ps ...message.Pause) {
	r.t.Helper()
	c := queue.Configure{Queue: 1, Version: version, Settings: message.Settings{}.WithDefaults(), Pauses: ps}
	for _, p := range ps {
		if p.Tenant != "" {
			c.Hashes = append(c.Hashes, message.HashTenant(&message.Secret{}, p.Tenant))
		} else {
			c.Hashes = append(c.Hashes, message.HashKey(&message.Secret{}, p.Key).Hi)
		}
	}
	r.propose(c.Command())
}

// A key and a tenant that are paused get nothing out, whoever leads, also when they
// have more than a window holds; the others go on, and they do when they are resumed.
func TestPausedParts(t *testing.T) {
	r := newRig(t)
	key := func(k string) {
		hash := message.HashKey(&message.Secret{}, k)
		r.propose((&queue.Send{Queue: 1, Messages: []queue.Sent{{Hash: hash, New: message.New{Key: k}}}}).Command())
	}
	// The rig has cell 0 only: so must the keys.
	var keys []string
	for n := 0; len(keys) < 2; n++ {
		if k := "k" + strings.Repeat("x", n); message.HashKey(&message.Secret{}, k).Point().Cell() == 0 {
			keys = append(keys, k)
		}
	}
	received := func(n int) string {
		var got []string
		c := r.waits("w", n)
		c.close()
		held, _ := c.Collect(t.Context())
		for _, x := range held {
			got = append(got, cmp.Or(x.Head.Tenant, x.Head.Key, "-"))
		}
		slices.Sort(got)
		return strings.Join(slices.Compact(got), " ")
	}
	r.sendOf("a", 3*windowMax)
	r.sendOf("b", 1)
	key(keys[0])
	key(keys[1])
	r.receive(1, time.Hour) // the leader has them in mind
	r.pauses(2, message.Pause{Tenant: "a"}, message.Pause{Key: keys[0]})
	r.sendOf("a", 1)
	r.sendOf("b", 1)
	r.restart()
	if got, want := received(50), strings.Join(sorted("b", keys[1]), " "); got != want {
		t.Fatalf("while a and %q were paused, %q went out, want %q", keys[0], got, want)
	}
	if got := received(50); got != "" {
		t.Fatalf("then %q went out", got)
	}
	r.pauses(3, message.Pause{Key: keys[0]})
	if got := received(50); got != "a" {
		t.Fatalf("when a was resumed %q went out", got)
	}
	r.pauses(4)
	if got, want := received(50), strings.Join(sorted("a", keys[0]), " "); got != want {
		t.Fatalf("when the key was resumed, %q went out, want %q", got, want)
	}
}

func sorted(s ...string) []string {
	slices.Sort(s)
	return s
}
