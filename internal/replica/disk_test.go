package replica

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// disk is a memory file system that can crash, be held, and fail.
type disk struct {
	vfs.FS
	mem *vfs.MemFS

	mu     sync.Mutex
	onSync func(op errorfs.Op) error // before each sync
}

func newDisk(t testing.TB, mem *vfs.MemFS) *disk {
	d := &disk{mem: mem}
	if mem == nil {
		d.mem = vfs.NewCrashableMem()
		if err := d.mem.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := d.mem.OpenDir("/")
		if err != nil {
			t.Fatal(err)
		}
		if err := root.Sync(); err != nil {
			t.Fatal(err)
		}
		root.Close()
	}
	d.FS = errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		default:
			return nil
		}
		d.mu.Lock()
		hook := d.onSync
		d.mu.Unlock()
		if hook == nil {
			return nil
		}
		return hook(op)
	}))
	return d
}

// isLog tells a write of the log from what prepares its files.
func isLog(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".seg")
}

// before sets what happens before each sync; nil: nothing.
func (d *disk) before(hook func(op errorfs.Op) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onSync = hook
}

// crash is the disk after a power cut now, with some of what was not synced.
func (d *disk) crash(t testing.TB, keepPercent int, seed uint64) *disk {
	return newDisk(t, d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keepPercent, RNG: rand.New(rand.NewPCG(seed, 1))}))
}

// hold makes the next sync of the log wait until it is let go. reached is
// closed when it waits.
func (d *disk) hold() (reached <-chan struct{}, letGo func()) { return d.holdAfter(0) }

// holdAfter lets some syncs of the log pass first.
func (d *disk) holdAfter(skip int) (reached <-chan struct{}, letGo func()) {
	at, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.before(func(op errorfs.Op) error {
		if !isLog(op) {
			return nil
		}
		if skip > 0 { // one goroutine syncs the log
			skip--
			return nil
		}
		once.Do(func() { close(at) })
		<-gate
		return nil
	})
	return at, func() {
		d.before(nil)
		close(gate)
	}
}
