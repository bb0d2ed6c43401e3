package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/comanda-mq/comanda/internal/load"
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
	cmd   *exec.Cmd
	ended chan struct{}
	took  time.Duration // from its start until it answered
}

// start runs a server with what it prints in dir/output, and returns when ready
// says that it answers.
func start(ctx context.Context, dir string, env []string, ready func(context.Context) error, name string, args ...string) (*process, error) {
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()                                    // the server has its own
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...) // stop ends it
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // a server that we stop ends with a signal
		close(p.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if err := p.answers(ctx, ready); err != nil {
		said, _ := os.ReadFile(out.Name())
		return nil, errors.Join(fmt.Errorf("start %s: %w; it printed: %s", name, err, said), p.stop())
	}
	p.took = time.Since(began)
	return p, nil
}

func (p *process) answers(ctx context.Context, ready func(context.Context) error) error {
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-p.ended:
			return errors.New("it ended by itself")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		}
	}
}

// stop ends the server and all that it started.
func (p *process) stop() error {
	group := -p.cmd.Process.Pid
	if err := syscall.Kill(group, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	patience := time.NewTimer(stopWithin)
	defer patience.Stop()
	select {
	case <-p.ended:
	case <-patience.C:
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // what is left; mostly nothing
	<-p.ended
	return nil
}

// usage sums what the processes of the group have used and hold.
func (p *process) usage() (cpu time.Duration, resident int64) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// The name, in parentheses, may hold spaces: the fields after it count.
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if f[2] != strconv.Itoa(p.cmd.Process.Pid) {
			continue
		}
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		pages, _ := strconv.Atoi(f[21])
		cpu += time.Duration(user+system) * time.Second / clockTicks
		resident += int64(pages * os.Getpagesize())
	}
	return cpu, resident
}

// meter reads the server, this process and the disk that holds dir. Whatever
// else writes to that disk counts too.
func (p *process) meter(dir string) func() load.Usage {
	return func() (u load.Usage) {
		u.ServerCPU, u.Resident = p.usage()
		var self syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &self) == nil {
			u.ClientCPU = time.Duration(self.Utime.Nano() + self.Stime.Nano())
		}
		u.Written = written(dir)
		return u
	}
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

// freePort finds a port of loopback that is free at the moment.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// dial says whether something listens at addr.
func dial(ctx context.Context, addr string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}
