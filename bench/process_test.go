package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exists is ready when a file is there.
func exists(path string) func(context.Context) error {
	return func(context.Context) error {
		_, err := os.Stat(path)
		return err
	}
}

// A server is stopped with what it started itself, even if that
// ignores signals, and is metered with it.
func TestStopEndsTheGroup(t *testing.T) {
	dir := t.TempDir()
	script := `sh -c 'trap "" TERM; echo $$ >child; while :; do :; done' & wait`
	p, err := start(t.Context(), dir, nil, exists(filepath.Join(dir, "child")), "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	var child int
	for child == 0 {
		text, _ := os.ReadFile(filepath.Join(dir, "child"))
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	for cpu, resident := time.Duration(0), int64(0); cpu == 0 || resident == 0; {
		cpu, resident = p.usage()
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	for !ended(child) {
		if t.Context().Err() != nil {
			t.Fatal("the child lives on")
		}
	}
	if err := p.stop(); err != nil {
		t.Errorf("stopped twice: %v", err)
	}
}

// ended says whether a process is gone, or only waits for its parent's word.
func ended(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(text), ") Z ") || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// A server that ends instead of answering is told with what it printed.
func TestStartFails(t *testing.T) {
	_, err := start(t.Context(), t.TempDir(), nil, exists("/never"), "sh", "-c", "echo the port is taken; exit 1")
	if err == nil || !strings.Contains(err.Error(), "the port is taken") || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("error %v", err)
	}
}

// The disk's counter grows with what is written and synced.
func TestWritten(t *testing.T) {
	dir := t.TempDir()
	before := written(dir)
	if before == 0 {
		t.Skip("this directory's disk has no counter")
	}
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := written(dir) - before; n < 1<<20 {
		t.Errorf("%d bytes were counted, 1 MiB was written", n)
	}
}
