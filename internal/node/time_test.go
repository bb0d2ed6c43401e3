package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
)

// In a whole node in fake time, a lease of ten minutes ends after ten minutes,
// and a message that is delayed by as long goes to a receiver who waits.
func TestTimersOfAWholeNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const while = 10 * time.Minute
		n := begin(t, Config{FS: vfs.NewMem(), DataDir: "data", Listener: newPipes(), ClusterListener: newPipes()})
		w := &workload{t: t, g: n.Gateway()}
		w.create("leased", 1, message.Settings{})
		w.create("delayed", 1, message.Settings{})
		w.send(t.Context(), "leased", 1, message.New{})
		w.send(t.Context(), "delayed", 1, message.New{Delay: while})
		w.receive(t.Context(), "leased", 1, while)
		begun := time.Now()
		for _, q := range []string{"leased", "delayed"} {
			var ds []message.Delivery
			for len(ds) == 0 && time.Since(begun) < 2*while {
				var err error
				ds, err = n.Gateway().Receive(t.Context(), q, message.ReceiveOptions{Max: 1, Wait: message.MaxWait, Lease: message.MaxLease, Worker: "w"})
				if err != nil {
					t.Fatal(err)
				}
			}
			if waited := time.Since(begun); len(ds) != 1 || waited < while || waited > while+time.Second {
				t.Errorf("%s: %d after %s", q, len(ds), waited)
			}
		}
		end(t, n)
	})
}
