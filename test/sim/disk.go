package main

import (
	"errors"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"slices"
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
	// started: what a start writes is on the disk, the boot number with it, which a
	// server that does not sync may not lose: it would number two commands alike.
	started atomic.Bool
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
		d.FS = lazyFS{d.FS, &d.started}
	}
	return d, nil
}

func prepare(fs vfs.FS) error {
	if err := fs.MkdirAll(dataDir, 0o755); err != nil {
		return err
	}
	return syncDir(fs, "/")
}

// cut is what a power cut leaves now: what was synced, and some blocks of the rest.
// Pebble's own CrashClone draws for files in no order, so it gives only the two
// extremes here.
func (d *disk) cut(keepPercent int, seed uint64) (*vfs.MemFS, error) {
	synced := d.mem.CrashClone(vfs.CrashCloneCfg{})
	if keepPercent == 0 {
		return synced, nil
	}
	all := d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(seed, 0))})
	return synced, keepSome(all, synced, dataDir, keepPercent, seed)
}

// keepSome brings to a directory some of what another one has more.
func keepSome(from, to vfs.FS, dir string, percent int, seed uint64) error {
	names, err := from.List(dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		path := from.PathJoin(dir, name)
		h := fnv.New64a()
		_, _ = io.WriteString(h, path) // it never fails
		r := rand.New(rand.NewPCG(seed, h.Sum64()))
		info, err := from.Stat(path)
		if err != nil {
			return err
		}
		_, missing := to.Stat(path)
		switch {
		case missing != nil && r.IntN(100) >= percent:
			continue
		case info.IsDir() && missing != nil:
			if err := to.MkdirAll(path, 0o755); err != nil {
				return err
			}
			fallthrough
		case info.IsDir():
			err = keepSome(from, to, path, percent, seed)
		default:
			err = keepBlocks(from, to, path, percent, r)
		}
		if err != nil {
			return err
		}
	}
	return syncDir(to, dir)
}

// keepBlocks keeps some blocks of a file.
func keepBlocks(from, to vfs.FS, path string, percent int, r *rand.Rand) error {
	data, err := contents(from, path)
	if err != nil {
		return err
	}
	kept, err := contents(to, path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	const size = 4096
	for i := 0; i < len(data); i += size {
		if r.IntN(100) < percent {
			block := data[i:min(i+size, len(data))]
			kept = append(kept, make([]byte, max(i+len(block)-len(kept), 0))...)
			copy(kept[i:], block)
		}
	}
	f, err := to.Create(path, "")
	if err != nil {
		return err
	}
	_, err = f.Write(kept)
	return errors.Join(err, f.Sync(), f.Close())
}

func contents(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

func syncDir(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lazyFS says that the log is synced, and does not do it, once a node has started.
type lazyFS struct {
	vfs.FS
	started *atomic.Bool
}

func (l lazyFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, c)
	return l.lazy(name, f), err
}

func (l lazyFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(name, c, opts...)
	return l.lazy(name, f), err
}

func (l lazyFS) lazy(name string, f vfs.File) vfs.File {
	if f != nil && strings.HasSuffix(name, ".seg") {
		return lazyFile{f, l.started}
	}
	return f
}

type lazyFile struct {
	vfs.File
	started *atomic.Bool
}

func (f lazyFile) SyncData() error {
	if f.started.Load() {
		return nil
	}
	return f.File.SyncData()
}
