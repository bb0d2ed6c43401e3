package node

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The power is cut at each sync of a directory's first start. Nothing was
// confirmed, so the next start begins anew or goes on, but is not refused.
func TestFirstStartCanBeCut(t *testing.T) {
	type remains struct {
		what string
		disk vfs.FS
	}
	var mu sync.Mutex
	var cuts []remains
	var disk *watchedDisk
	disk = newWatchedDisk(func(name string) bool {
		mu.Lock()
		defer mu.Unlock()
		for _, keep := range []int{0, 50, 100} {
			clone := disk.crash(keep, rand.New(rand.NewPCG(uint64(len(cuts)), 1)))
			cuts = append(cuts, remains{fmt.Sprintf("before the sync of %q, %d %% kept", name, keep), clone})
		}
		return false
	})
	end(t, begin(t, Config{FS: disk, DataDir: "a/b/data"}))
	if len(cuts) < 30 {
		t.Fatalf("only %d cuts", len(cuts))
	}
	for _, c := range cuts {
		n, err := Start(t.Context(), small(Config{FS: c.disk, DataDir: "a/b/data"}))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		end(t, n)
	}
}
