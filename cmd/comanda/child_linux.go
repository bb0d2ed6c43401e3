package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/comanda-mq/comanda/client"
)

// guarded runs the command of its first argument next to a guard, which waits for
// a line from the worker. Its end without one is the worker's, and the guard kills
// the group: the kernel would tell the first process alone, not what it started.
const guarded = `(read -r line || kill -KILL 0) <&3 3<&- >/dev/null 2>&1 & exec 3<&-; exec sh -c "$1"`

// child is a command that is bound to the worker.
type child struct {
	cmd   *exec.Cmd
	guard *os.File    // the guard reads the other end
	late  *time.Timer // of a SIGKILL after SIGTERM
}

// bindToWorker puts the command in a group of its own, so that the terminal's
// Ctrl-C does not reach it and all of it can be killed. The end of ctx kills the
// group: at once when the lease is lost, otherwise after a SIGTERM. The worker's
// own end kills it too.
func bindToWorker(ctx context.Context, cmd *exec.Cmd) (*child, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, guard: ours}
	cmd.Args = []string{"sh", "-c", guarded, "sh", cmd.Args[2]}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		if errors.Is(context.Cause(ctx), client.ErrLeaseLost) {
			return c.signal(syscall.SIGKILL)
		}
		c.late = time.AfterFunc(termWait, func() { _ = c.signal(syscall.SIGKILL) }) // it may be gone
		return c.signal(syscall.SIGTERM)
	}
	return c, nil
}

func (c *child) signal(sig syscall.Signal) error {
	if err := syscall.Kill(-c.cmd.Process.Pid, sig); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return os.ErrProcessDone
}

// ended is called when the command has ended, or was never begun. What is left of
// a group that was to end is killed; otherwise only the guard goes.
func (c *child) ended() {
	if c.late != nil && c.late.Stop() {
		_ = c.signal(syscall.SIGKILL) // as above
	}
	_, _ = c.guard.WriteString("done\n") // it may have been killed
	_ = c.guard.Close()
	_ = c.cmd.ExtraFiles[0].Close()
}
