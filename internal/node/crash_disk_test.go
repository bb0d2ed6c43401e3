package node

import (
	"io"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watchedDisk is a disk in memory that tells before each sync, and can lie
// about it.
type watchedDisk struct {
	vfs.FS
	mem  *vfs.MemFS
	sync func(name string) (lie bool) // may be called by several goroutines
	// locking keeps Lock and CrashClone apart: in a MemFS they can stop one
	// another for good, because Lock takes a read lock twice.
	locking sync.Mutex
}

func (d *watchedDisk) Lock(name string) (io.Closer, error) {
	d.locking.Lock()
	defer d.locking.Unlock()
	return d.FS.Lock(name)
}

func (d *watchedDisk) crash(keepPercent int, rng *rand.Rand) *vfs.MemFS {
	d.locking.Lock()
	defer d.locking.Unlock()
	return d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keepPercent, RNG: rng})
}

func newWatchedDisk(sync func(name string) (lie bool)) *watchedDisk {
	mem := vfs.NewCrashableMem()
	return &watchedDisk{FS: mem, mem: mem, sync: sync}
}

func (d *watchedDisk) Unwrap() vfs.FS { return d.FS }

func (d *watchedDisk) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return watchedFile{File: f, disk: d, name: name}, nil
}

func (d *watchedDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	return d.file(name, f, err)
}

func (d *watchedDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, o...)
	return d.file(name, f, err)
}

func (d *watchedDisk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.file(name, f, err)
}

func (d *watchedDisk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(from, to, c)
	return d.file(to, f, err)
}

type watchedFile struct {
	vfs.File
	disk *watchedDisk
	name string
}

func (f watchedFile) Sync() error {
	if f.disk.sync(f.name) {
		return nil
	}
	return f.File.Sync()
}

func (f watchedFile) SyncData() error {
	if f.disk.sync(f.name) {
		return nil
	}
	return f.File.SyncData()
}

func (f watchedFile) SyncTo(length int64) (bool, error) {
	if f.disk.sync(f.name) {
		return false, nil
	}
	return f.File.SyncTo(length)
}

// isLog tells the files of the log from those of the rows.
func isLog(name string) bool { return strings.HasSuffix(name, ".seg") }
