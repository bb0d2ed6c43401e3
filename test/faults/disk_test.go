//go:build faults

package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"unsafe"
)

const (
	ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	noLogFlush   = 2          // what is not in the journal on the disk is gone
)

// disk is an ext4 file system of its own, in an image behind a loop device.
type disk struct {
	t     *testing.T
	image string
	dir   string // where it is mounted
}

func newDisk(t *testing.T, bytes int64) *disk {
	t.Helper()
	parent := t.TempDir()
	d := &disk{t: t, image: filepath.Join(parent, "image"), dir: filepath.Join(parent, "disk")}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, bytes); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", "-m", "0", d.image)
	d.mount()
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", d.dir).Run() }) // it may be unmounted
	return d
}

func (d *disk) run(command string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v\n%s", command, args, err, out)
	}
}

func (d *disk) mount() {
	d.t.Helper()
	d.run("mount", "-o", "loop", d.image, d.dir)
}

func (d *disk) unmount() {
	d.t.Helper()
	d.run("umount", d.dir)
}

// data is the server's directory on the disk.
func (d *disk) data() string { return filepath.Join(d.dir, "data") }

// cut takes the power away: what was not synced is gone, and nothing can be
// written or synced until the disk is mounted again.
func (d *disk) cut() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	flags := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), ext4Shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		d.t.Fatalf("this kernel can't shut an ext4 file system down: %v", errno)
	}
}

func (d *disk) free() int64 {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill leaves so many bytes free, by a file that takes the rest; give takes it
// away again.
func (d *disk) fill(leave int64) (give func()) {
	d.t.Helper()
	ballast := filepath.Join(d.dir, "ballast")
	if take := d.free() - leave; take > 0 {
		d.run("fallocate", "-l", strconv.FormatInt(take, 10), ballast)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			d.t.Error(err)
		}
	}
}
