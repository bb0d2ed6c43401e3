package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/message"
)

// lookEvery is how often disk and memory are looked at.
const lookEvery = 250 * time.Millisecond

const (
	minDiskReserve = 256 << 20
	maxDiskReserve = 10 << 30
	maxMemoryLimit = 2 << 30
	minMemoryLimit = 256 << 20
)

// resources watches disk and memory. While one is short, sends are refused;
// leases and settlements go on, because they make room.
type resources struct {
	fs          vfs.FS
	dir         string
	diskReserve uint64 // as configured; 0: from the disk's size
	memoryLimit uint64

	diskFree, diskTotal, reserve, memoryUsed atomic.Uint64
	short                                    atomic.Pointer[message.Error]
}

func (r *resources) admit() error {
	if err := r.short.Load(); err != nil {
		return err
	}
	return nil
}

// watch looks again and again until ctx ends.
func (r *resources) watch(ctx context.Context, ticks <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
			r.look()
		}
	}
}

// look takes stock once.
func (r *resources) look() {
	r.short.Store(r.verdict())
}

func (r *resources) verdict() *message.Error {
	used := memoryUsed()
	r.memoryUsed.Store(used)
	usage, err := r.fs.GetDiskUsage(r.dir)
	if err == nil {
		reserve := r.diskReserve
		if reserve == 0 {
			reserve = max(min(usage.TotalBytes/20, maxDiskReserve), minDiskReserve)
		}
		r.diskFree.Store(usage.AvailBytes)
		r.diskTotal.Store(usage.TotalBytes)
		r.reserve.Store(reserve)
		if usage.AvailBytes < reserve {
			return message.Errorf(message.ResourceExhausted, "the disk has %d MiB free, less than its reserve of %d MiB: sends wait until messages are worked off or the disk grows (--disk-reserve)", usage.AvailBytes>>20, reserve>>20)
		}
	}
	if used > r.memoryLimit {
		return message.Errorf(message.ResourceExhausted, "the server uses %d MiB of memory, more than its limit of %d MiB: try again in a moment (--memory-limit)", used>>20, r.memoryLimit>>20)
	}
	return nil
}

var memorySamples = []string{"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/memory/classes/heap/free:bytes"}

// memoryUsed is what the process has in use, without what the runtime could give
// back. The system knows it best: the rows' caches lie outside of the runtime's
// heap where the binary is built with cgo.
func memoryUsed() uint64 {
	s := make([]metrics.Sample, len(memorySamples))
	for i := range s {
		s[i].Name = memorySamples[i]
	}
	metrics.Read(s)
	total, released, free := s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()
	if resident, ok := residentBytes(); ok {
		return resident - min(resident, free)
	}
	return total - released - free
}

// residentBytes is what the system holds in memory for this process; false where
// it does not say.
func residentBytes() (uint64, bool) {
	b, err := readFile(vfs.Default, "/proc/self/statm")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseUint(f[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err == nil
}

// defaultMemoryLimit is a quarter of the machine's memory, within bounds.
func defaultMemoryLimit() uint64 {
	b, err := readFile(vfs.Default, "/proc/meminfo")
	if err != nil {
		return maxMemoryLimit
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(f[1], 10, 64)
			if err == nil {
				return max(min(kib<<10/4, maxMemoryLimit), minMemoryLimit)
			}
		}
	}
	return maxMemoryLimit
}

func newStoreID() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails
		if id := binary.BigEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}
