//go:build faults

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/client"
)

const (
	readyWithin = time.Minute // a start, also after a crash
	endWithin   = 15 * time.Second
	poll        = 20 * time.Millisecond
)

// process is a server process.
type process struct {
	addr  string
	cmd   *exec.Cmd
	said  *output
	ended chan struct{} // closed when it has ended and was waited for
}

// launch starts a server on a directory and does not wait until it serves.
// Whatever it comes to, it is dead when the test ends.
func launch(t *testing.T, binary, dir string, args ...string) *process {
	t.Helper()
	return launchAs(t, []string{binary}, dir, args...)
}

// launchAs is launch with a command in front of the binary.
func launchAs(t *testing.T, binary []string, dir string, args ...string) *process {
	t.Helper()
	p := &process{addr: freeAddr(t), said: &output{}, ended: make(chan struct{})}
	p.cmd = exec.Command(binary[0], append(append(slices.Clone(binary[1:]), []string{"serve", "--data-dir", dir, "--listen", p.addr, "--cluster-listen", "127.0.0.1:0"}...), args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	return p
}

// start starts a server and returns when it serves.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := launch(t, serverBinary, dir, args...)
	if err := p.ready(); err != nil {
		t.Fatal(err)
	}
	return p
}

// ports counts those that freeAddr looked at.
var ports atomic.Int32

// freeAddr is an address that nobody listens on. None is given twice, nor one that the
// kernel gives to who wants any port: a server that is started again finds its own free.
func freeAddr(t *testing.T) string {
	t.Helper()
	const first, count = 10_000, 20_000
	for range count {
		addr := fmt.Sprint("127.0.0.1:", first+(64*os.Getpid()+int(ports.Add(1)))%count)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// ready waits until the server serves.
func (p *process) ready() error {
	ticks := time.NewTicker(poll)
	defer ticks.Stop()
	deadline := time.After(readyWithin)
	for {
		if resp, err := http.Get("http://" + p.addr + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ticks.C:
		case <-p.ended:
			return fmt.Errorf("the server ended instead of serving: %v\n%s", p.cmd.ProcessState, p.said)
		case <-deadline:
			return fmt.Errorf("the server does not serve after %v\n%s", readyWithin, p.said)
		}
	}
}

// kill ends the server as kill -9 does. Twice is fine.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// exit waits until the server has ended by itself and returns its exit code.
func (p *process) exit(within time.Duration) (int, error) {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		return 0, fmt.Errorf("the server still runs after %v\n%s", within, p.said)
	}
}

// stop ends the server as an operator does.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	code, err := p.exit(endWithin)
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		t.Fatalf("after SIGTERM the server ended with code %d, want 0\n%s", code, p.said)
	}
}

// dial makes a client, closed when the test ends.
func (p *process) dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var rssLine = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// memory is what the process occupies, in bytes.
func (p *process) memory(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := rssLine.FindSubmatch(b)
	if m == nil {
		t.Fatal("the server has no memory: it has ended")
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// trace attaches strace to all threads of the server. detach ends it, so that
// it writes what it has counted; a server that has ended needs no detaching.
func (p *process) trace(t *testing.T, args ...string) (detach func()) {
	t.Helper()
	said := &output{}
	cmd := exec.Command("strace", append(args, "-f", "-p", strconv.Itoa(p.cmd.Process.Pid))...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // a detached strace ends by the signal
		close(done)
	}()
	detach = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-done
	}
	t.Cleanup(detach)
	eventually(t, "strace to attach", func() error {
		if !bytes.Contains(said.bytes(), []byte("attached")) {
			return errors.New(said.String())
		}
		return nil
	})
	return detach
}

// output collects what a process says, the first MiB of it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len() < 1<<20 {
		o.buf.Write(b)
	}
	return len(b), nil
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf.Bytes())
}

func (o *output) String() string { return string(o.bytes()) }

// eventually tries until try has no error, for a minute at most.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	ticks := time.NewTicker(poll)
	defer ticks.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}
