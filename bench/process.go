package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	startWithin = time.Minute
	stopWithin  = 30 * time.Second
	askEvery    = 2 * time.Millisecond
	callTimeout = 30 * time.Second

	clockTicks = 100 // a second, in /proc: what Linux shows to programs everywhere
	sector     = 512 // bytes, in /sys/dev/block: whatever the disk's own are
)

// process is a server that was started here, with the processes that it started
// itself: they are one process group.
type process struct {
	cmd    *exec.Cmd
	output string // file with what it prints
	ended  chan struct{}
}

// launch starts a process in dir, which it makes, with what it prints in
// dir/output.
func launch(ctx context.Context, dir string, env []string, name string, args ...string) (*process, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()                                    // the server has its own
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...) // stop ends it
	// What the caller has set for a server of its own does not count here.
	environ := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "COMANDA_") })
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(environ, env...), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, output: out.Name(), ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // a server that we stop ends with a signal
		close(p.ended)
	}()
	return p, nil
}

// answers returns when ready says that the process answers.
func (p *process) answers(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
			continue
		case <-p.ended:
			err = errors.New("it ended by itself")
		case <-ctx.Done():
			err = fmt.Errorf("it does not answer: %w", err)
		}
		said, _ := os.ReadFile(p.output)
		return fmt.Errorf("start %s: %w; it printed: %s", p.cmd.Path, err, said)
	}
}

// group is the number of its process group.
func (p *process) group() int { return p.cmd.Process.Pid }

// stop ends the server and all that it started.
func (p *process) stop() error {
	if err := syscall.Kill(-p.group(), syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	patience := time.NewTimer(stopWithin)
	defer patience.Stop()
	select {
	case <-p.ended:
	case <-patience.C:
	}
	_ = syscall.Kill(-p.group(), syscall.SIGKILL) // what is left; mostly nothing
	<-p.ended
	return nil
}

// written is how many bytes the disk that holds dir has written.
func written(dir string) int64 {
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) != nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	f := strings.Fields(string(text))
	if err != nil || len(f) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseInt(f[6], 10, 64)
	return sectors * sector
}

// freePorts finds ports of loopback that are free at the moment.
func freePorts(ctx context.Context, n int) (ports []int, err error) {
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", local(0))
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // after the last is found: none is found twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// dial says whether something listens at addr.
func dial(ctx context.Context, addr string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}
