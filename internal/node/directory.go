package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// dirFormat is the format of a data directory that this binary writes.
const dirFormat = 1

// Names in a data directory.
const (
	lockFile     = "LOCK"
	pidFile      = "PID" // whose lock it is, for the words of a refusal
	identityFile = "IDENTITY"
	logDir       = "log"
	stateDir     = "state"
)

// Identity tells data directories apart, and a directory from a newer binary's.
type Identity struct {
	Format  int    `json:"format"`
	StoreID uint64 `json:"store_id"` // random; part of every checksum of the log
}

// directory is a data directory that this process holds.
type directory struct {
	fs   vfs.FS
	path string
	Identity
	lock     io.Closer
	founding bool
}

// openDirectory locks a data directory, and makes it if it is new. A directory
// that somebody holds, that a newer binary wrote or that has lost a part of
// itself is refused.
func openDirectory(fs vfs.FS, path string) (_ *directory, err error) {
	if err := makeDirectory(fs, path); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	d := &directory{fs: fs, path: path}
	if d.lock, err = fs.Lock(d.file(lockFile)); err != nil {
		return nil, fmt.Errorf("the data directory %s is in use%s: stop that server, or give this one another --data-dir (%w)", path, d.holder(), err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.lock.Close())
		}
	}()
	d.Identity, err = readIdentity(fs, path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = d.found()
	case err == nil:
		err = d.whole()
	}
	if err != nil {
		return nil, err
	}
	// It is for words only: on a full disk the server starts without it.
	_ = writeSynced(fs, d.file(pidFile), []byte(strconv.Itoa(os.Getpid())), false)
	return d, nil
}

// makeDirectory makes a directory and those above it, each durable in its
// parent: what is synced below a directory that a power cut takes away is gone
// with it.
func makeDirectory(fs vfs.FS, path string) error {
	if _, err := fs.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := fs.PathDir(path)
	if err := makeDirectory(fs, parent); err != nil {
		return err
	}
	if err := fs.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return syncDir(fs, parent)
}

func (d *directory) file(name string) string { return d.fs.PathJoin(d.path, name) }

// holder says who holds the lock, if that is known.
func (d *directory) holder() string {
	b, err := readFile(d.fs, d.file(pidFile))
	if err != nil {
		return ""
	}
	return " by process " + strings.TrimSpace(string(b))
}

// readIdentity reads the identity of a directory that nobody needs to hold.
func readIdentity(fs vfs.FS, path string) (id Identity, err error) {
	b, err := readFile(fs, fs.PathJoin(path, identityFile))
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(b, &id); err != nil || id.StoreID == 0 {
		return id, fmt.Errorf("%s in %s can't be read: it is damaged; restore it from a copy of the directory", identityFile, path)
	}
	if id.Format > dirFormat {
		return id, fmt.Errorf("the data directory %s has format %d, this binary knows up to %d: start the newer binary", path, id.Format, dirFormat)
	}
	return id, nil
}

// foundingFile stands in a directory from before its first byte of data until
// its log and its rows have been opened once: a start that was killed in between
// left nothing that anybody was told of.
const foundingFile = identityFile + ".new"

// found begins a new directory. One with data and without identity has lost it.
func (d *directory) found() error {
	begun := true
	if _, err := d.fs.Stat(d.file(foundingFile)); errors.Is(err, os.ErrNotExist) {
		begun = false
	} else if err != nil {
		return err
	}
	for _, part := range []string{logDir, stateDir} {
		if begun {
			if err := d.fs.RemoveAll(d.file(part)); err != nil {
				return fmt.Errorf("begin the data directory anew: %w", err)
			}
		}
		if names, err := d.fs.List(d.file(part)); err == nil && len(names) > 0 {
			return fmt.Errorf("the data directory %s has data and no %s: it is damaged; restore the file from a copy of the directory", d.path, identityFile)
		}
	}
	d.founding = true
	d.Identity = Identity{Format: dirFormat, StoreID: newStoreID()}
	b, err := json.Marshal(d.Identity)
	if err != nil {
		return err
	}
	if err := writeSynced(d.fs, d.file(foundingFile), b, true); err != nil {
		return err
	}
	if err := syncDir(d.fs, d.path); err != nil {
		return err
	}
	for _, part := range []string{logDir, stateDir} {
		if err := d.fs.MkdirAll(d.file(part), 0o700); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
	}
	return syncDir(d.fs, d.path)
}

// settle gives a new directory its identity for good. Log and rows are there.
func (d *directory) settle() error {
	if !d.founding {
		return nil
	}
	d.founding = false
	if err := d.fs.Rename(d.file(foundingFile), d.file(identityFile)); err != nil {
		return err
	}
	return syncDir(d.fs, d.path)
}

// whole refuses a directory that began its life and lost its log or its rows: a
// log that begins anew would have forgotten votes and messages.
func (d *directory) whole() error {
	logs, err := d.fs.List(d.file(logDir))
	if err != nil {
		return d.lost(logDir, err)
	}
	rows, err := d.fs.List(d.file(stateDir))
	if err != nil {
		return d.lost(stateDir, err)
	}
	if (len(logs) == 0) != (len(rows) == 0) {
		part := logDir
		if len(rows) == 0 {
			part = stateDir
		}
		return d.lost(part, errors.New("it is empty"))
	}
	return nil
}

func (d *directory) lost(part string, err error) error {
	return fmt.Errorf("the data directory %s has lost its %s: restore the whole directory from a copy, or look at what is left with 'comanda data inspect %s' (%w)", d.path, part, d.path, err)
}

func syncDir(fs vfs.FS, path string) (err error) {
	f, err := fs.OpenDir(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}

func (d *directory) close() error { return d.lock.Close() }

func readFile(fs vfs.FS, name string) (b []byte, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

func writeSynced(fs vfs.FS, name string, b []byte, sync bool) (err error) {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if !sync {
		return nil
	}
	return f.Sync()
}
