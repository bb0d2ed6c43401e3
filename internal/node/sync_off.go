//go:build nosync

package node

import "github.com/cockroachdb/pebble/v2/vfs"

// disk is a file system that only says that it syncs. A server that is built
// with it loses what it confirmed when the power is cut, and test/faults checks
// that the tests of power cuts notice.
func disk() vfs.FS { return unsynced{vfs.Default} }

type unsynced struct{ vfs.FS }

func (u unsynced) Unwrap() vfs.FS { return u.FS }

func (u unsynced) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsyncedFile(u.FS.Create(name, c))
}

func (u unsynced) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	return unsyncedFile(u.FS.Open(name, o...))
}

func (u unsynced) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return unsyncedFile(u.FS.OpenReadWrite(name, c, o...))
}

func (u unsynced) OpenDir(name string) (vfs.File, error) {
	return unsyncedFile(u.FS.OpenDir(name))
}

func (u unsynced) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsyncedFile(u.FS.ReuseForWrite(from, to, c))
}

type noSync struct{ vfs.File }

func unsyncedFile(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return noSync{f}, nil
}

func (noSync) Sync() error                { return nil }
func (noSync) SyncData() error            { return nil }
func (noSync) SyncTo(int64) (bool, error) { return true, nil }
