package main

import (
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// dataDir is where a node's log and rows are on its disk.
const dataDir = "data"

// disk is a node's disk: one that a power cut leaves with what was synced, and
// some of the rest.
type disk struct {
	vfs.FS
	mem *vfs.MemFS
	// cutAfter is how many syncs of the log there are until the power goes, just
	// before the last one takes effect; 0: it does not.
	cutAfter atomic.Int64
	onCut    func()
}

func newDisk(mem *vfs.MemFS, h control) (*disk, error) {
	d := &disk{mem: mem}
	if mem == nil {
		d.mem = vfs.NewCrashableMem()
		if err := prepare(d.mem); err != nil {
			return nil, err
		}
	}
	d.FS = errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".seg") && d.cutAfter.Add(-1) == 0 {
			d.onCut()
		}
		return nil
	}))
	if h.lazyDisk {
		d.FS = lazyFS{d.FS}
	}
	return d, nil
}

func prepare(fs vfs.FS) error {
	if err := fs.MkdirAll(dataDir, 0o755); err != nil {
		return err
	}
	root, err := fs.OpenDir("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Sync()
}

// cut is what a power cut leaves now.
func (d *disk) cut(keepPercent int, r *rand.Rand) *vfs.MemFS {
	return d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keepPercent, RNG: r})
}

// lazyFS says that the log is synced, and does not do it.
type lazyFS struct{ vfs.FS }

func (l lazyFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, c)
	return lazy(name, f), err
}

func (l lazyFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(name, c, opts...)
	return lazy(name, f), err
}

func lazy(name string, f vfs.File) vfs.File {
	if f != nil && strings.HasSuffix(name, ".seg") {
		return lazyFile{f}
	}
	return f
}

type lazyFile struct{ vfs.File }

func (lazyFile) SyncData() error { return nil }
