package main

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// syncSizes are the batches of the bare loop, in messages.
var syncSizes = []int{1, 4, 16, 64, 256}

// syncLoop is what the disk gives at best: a file that was written before is
// written again from its beginning, batch by batch, each made durable.
type syncLoop struct {
	Batch     int     // messages
	PerSecond float64 // messages
	P50, P99  time.Duration
}

// measureSync runs the bare loop in dir, in a file of fileSize bytes or one batch, with
// messages of size bytes, for each batch size as long as each says.
func measureSync(dir string, size int, each time.Duration, fileSize int64) (loops []syncLoop, err error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	fileSize = max(fileSize, int64(syncSizes[len(syncSizes)-1]*size))
	block := make([]byte, 1<<20)
	for off := int64(0); off < fileSize; off += int64(len(block)) {
		if _, err := f.WriteAt(block, off); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	for _, n := range syncSizes {
		l, err := loopSync(f, make([]byte, n*size), each, fileSize)
		if err != nil {
			return nil, err
		}
		l.Batch = n
		l.PerSecond *= float64(n)
		loops = append(loops, l)
	}
	return loops, nil
}

// loopSync writes bytes again and again; its rate is in writes.
func loopSync(f *os.File, bytes []byte, each time.Duration, fileSize int64) (syncLoop, error) {
	var took []time.Duration
	began, size := time.Now(), int64(len(bytes))
	for off := int64(0); time.Since(began) < each; off += size {
		if off+size > fileSize {
			off = 0
		}
		at := time.Now()
		if _, err := f.WriteAt(bytes, off); err != nil {
			return syncLoop{}, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return syncLoop{}, err
		}
		took = append(took, time.Since(at))
	}
	rate := float64(len(took)) / time.Since(began).Seconds()
	slices.Sort(took)
	return syncLoop{PerSecond: rate, P50: took[len(took)/2], P99: took[len(took)*99/100]}, nil
}
