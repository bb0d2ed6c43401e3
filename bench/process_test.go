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

func exists(path string) error {
	_, err := os.Stat(path)
	return err
}

// A server is metered and stopped with all its nodes and what they started
// themselves, even if that ignores signals.
func TestStopEndsAllOfAServer(t *testing.T) {
	dir, v := t.TempDir(), &server{}
	defer v.stop()
	child := func(i int) string { return filepath.Join(dir, strconv.Itoa(i), "child") }
	for i := range 2 {
		script := `sh -c 'trap "" TERM; echo $$ >child; while :; do :; done' & wait`
		if err := v.add(t.Context(), filepath.Dir(child(i)), nil, "sh", "-c", script); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.answer(t.Context(), func(_ context.Context, i int) error { return exists(child(i)) }); err != nil {
		t.Fatal(err)
	}
	pids := make([]int, len(v.nodes))
	for i := range pids {
		for pids[i] == 0 {
			text, _ := os.ReadFile(child(i))
			pids[i], _ = strconv.Atoi(strings.TrimSpace(string(text)))
		}
	}
	for _, alone := range v.nodes {
		one := &server{nodes: []*process{alone}}
		for cpu, resident := time.Duration(0), int64(0); cpu == 0 || resident == 0; {
			cpu, resident = one.usage()
		}
	}
	first, _ := (&server{nodes: v.nodes[:1]}).usage()
	second, _ := (&server{nodes: v.nodes[1:]}).usage()
	if cpu, _ := v.usage(); cpu < first+second {
		t.Errorf("the nodes used %s and %s, together %s", first, second, cpu)
	}
	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		for !ended(pid) {
			if t.Context().Err() != nil {
				t.Fatal("a child lives on")
			}
		}
	}
	if err := v.stop(); err != nil {
		t.Errorf("stopped twice: %v", err)
	}
}

// ended says whether a process is gone, or only waits for its parent's word.
func ended(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(text), ") Z ") || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// A node that ends instead of answering is told with what it printed, and the
// others are ended.
func TestStartFails(t *testing.T) {
	var started *server
	s := &system{launch: func(ctx context.Context, dir string, v *server) error {
		started = v
		for _, script := range []string{"sleep 1000", "echo the port is taken; exit 1"} {
			if err := v.add(ctx, dir, nil, "sh", "-c", script); err != nil {
				return err
			}
		}
		return v.nodes[1].answers(ctx, func(context.Context) error { return exists("/never") })
	}}
	_, err := s.start(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "the port is taken") || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("error %v", err)
	}
	if len(started.nodes) != 2 || !ended(started.nodes[0].group()) {
		t.Error("the other node lives on")
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
