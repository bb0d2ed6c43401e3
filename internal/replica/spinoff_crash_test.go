package replica

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A power cut of all three nodes at once, at a sync of any of them around a
// spin-off: they come up as one group or as two, with all that was confirmed, and
// go on (trap 7, I8).
func TestTrap07CrashOfThreeNodesInASpinOff(t *testing.T) {
	c := newCluster(t)
	for range 10 {
		c.add("a")
	}
	c.agree()
	type cut struct {
		disks map[uint64]*disk
		want  uint64
	}
	var mu sync.Mutex
	var cuts []cut
	confirmed, syncs := uint64(10), uint64(0)
	all := map[uint64]*disk{}
	for id, n := range c.nodes {
		all[id] = n.fs.(*disk)
	}
	for _, d := range all {
		d.before(func(errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if syncs++; syncs%2 == 0 {
				return nil
			}
			k := cut{map[uint64]*disk{}, confirmed}
			for id, d := range all {
				k.disks[id] = d.crash(t, []int{0, 50, 99}[(syncs/2+id)%3], syncs)
			}
			cuts = append(cuts, k)
			return nil
		})
	}
	if o := <-propose(c.leader().group(), spinCommand(3)); o.err != nil {
		t.Fatal(o.err)
	}
	for range 2 {
		n := c.inChild("a")
		mu.Lock()
		confirmed = n
		mu.Unlock()
	}
	for _, n := range c.nodes {
		if err := n.host.store.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range all {
		d.before(nil)
	}
	mu.Lock()
	defer mu.Unlock()
	before, after := 0, 0
	for i, k := range cuts {
		again := newNodesOn(t, k.disks, nil)
		again.add("b") // all that was committed is then applied at the leader
		if parent := again.leader().peek("a"); parent > 0 {
			before++
			if parent < k.want {
				t.Fatalf("cut %d of %d: the parent has %d of %d", i, len(cuts), parent, k.want)
			}
		} else {
			after++
			if got := again.inChild("a"); got <= k.want {
				t.Fatalf("cut %d of %d: the child goes on at %d after %d", i, len(cuts), got, k.want)
			}
		}
		again.agree()
		for _, n := range again.nodes {
			until(t, "nothing is left", func() bool { return len(n.unreached()) == 0 })
			if err := n.kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d times before, %d times after", before, after)
	if after < 5 {
		t.Errorf("only %d cuts after the spin-off", after)
	}
}
