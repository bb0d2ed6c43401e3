package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
)

const (
	exitReject = 65 // of a child: the message can't be handled (EX_DATAERR)
	pipeWait   = 5 * time.Second
	termWait   = 2 * time.Second // between SIGTERM and SIGKILL
)

func newWork(a *app) *cobra.Command {
	var w client.Worker
	var command, onDisconnect string
	cmd := &cobra.Command{
		Use:   "work QUEUE --exec 'CMD'",
		Short: "Run a command for each message of a queue",
		Long: `Run a command for each message of a queue.

The command runs in 'sh -c' with the body on its standard input and the rest in
COMANDA_ID, COMANDA_KEY, COMANDA_TYPE, COMANDA_TENANT, COMANDA_ATTEMPT, COMANDA_TOKEN,
COMANDA_FENCE and COMANDA_QUEUE. Exit code 0 acks the message, 65 rejects it, any
other has it tried again and keeps the end of standard error in its history.

When the lease is lost the command is killed at once, with all that it started:
others may have its message. So it is when the worker dies, even by kill -9.
(On Linux; on other systems only the command's own process, and only while the
worker lives.)

SIGTERM, Ctrl-C and 'comanda worker drain' drain: what runs may finish, nothing new
begins. After --drain commands get SIGTERM, and SIGKILL 2 s later. The second signal ends at once.`,
		Example: "  comanda work orders --exec './bake.sh' -c 8",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if command == "" {
				return usageError(errors.New("--exec is missing: say what to run for each message"))
			}
			if err := aboveZero(cmd, "concurrency"); err != nil {
				return err
			}
			switch onDisconnect {
			case "reroute":
				w.OnDisconnect = client.OnDisconnectReroute
			case "wait":
				w.OnDisconnect = client.OnDisconnectWait
			default:
				return usageError(fmt.Errorf("--on-disconnect is %q: want reroute or wait", onDisconnect))
			}
			return a.call(cmd, func(c *client.Client, _ printer) error {
				r := runner{command: command, out: newShared(cmd.OutOrStdout()), err: newShared(cmd.ErrOrStderr())}
				w.Client, w.Queue, w.Handler = c, given[0], r.handle
				w.Logger = slog.New(slog.NewTextHandler(r.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
				return w.RunUntilSignal(cmd.Context())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&command, "exec", "", "the command")
	f.IntVarP(&w.Concurrency, "concurrency", "c", 1, "how many commands run at a time")
	f.IntVar(&w.MaxMessages, "max", 0, "end after so many attempts: a message that comes again counts again (default: don't)")
	f.DurationVar(&w.IdleTimeout, "idle-exit", 0, "end when nothing was to do for so long (default: don't)")
	f.DurationVar(&w.TTL, "ttl", 0, "silence after which others get the messages: 5s to 5m (default 10s)")
	f.StringVar(&onDisconnect, "on-disconnect", "reroute", "a broken connection: reroute after 1s, or wait for the --ttl")
	f.DurationVar(&w.Lease, "lease", 0, "length of the leases of a server that knows no heartbeats (default 30s)")
	f.DurationVar(&w.DrainTimeout, "drain", 0, "how long commands may go on in a drain (default 30s)")
	f.StringVar(&w.Name, "worker", hostPID(), "name in histories")
	return cmd
}

// hostPID is a worker's name when it gives none.
func hostPID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + ":" + strconv.Itoa(os.Getpid())
}

// runner runs a command for each message.
type runner struct {
	command  string
	out, err *shared
}

// handle runs the command for one message. A producer's bytes never reach the
// shell: they are on standard input and in variables.
func (r *runner) handle(ctx context.Context, j *client.RawJob) error {
	// The kernel ties the child's life to the thread that started it, so that
	// thread must stay until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "sh", "-c", r.command)
	child, err := bindToWorker(ctx, cmd)
	if err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	defer child.ended()
	cmd.WaitDelay = termWait + pipeWait // a grandchild may keep the pipes open
	cmd.Env = append(os.Environ(),
		"COMANDA_ID="+j.ID(), "COMANDA_KEY="+envText(j.Key()), "COMANDA_TYPE="+envText(j.Type()), "COMANDA_TENANT="+envText(j.Tenant()),
		"COMANDA_ATTEMPT="+strconv.Itoa(j.Attempt()), "COMANDA_TOKEN="+j.Token(),
		"COMANDA_FENCE="+strconv.FormatUint(j.Fence(), 10), "COMANDA_QUEUE="+j.Queue())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	out, errs, last := r.out.block(), r.err.block(), &tail{}
	cmd.Stdout, cmd.Stderr = out, io.MultiWriter(errs, last)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		_, _ = stdin.Write(j.Body()) // a command need not read its input
		_ = stdin.Close()
	}()
	err = cmd.Wait()
	<-fed
	out.end()
	errs.end()
	return verdictOf(err, last.String())
}

// verdictOf says what a child's end means for its message.
func verdictOf(err error, stderr string) error {
	if err == nil {
		return nil
	}
	if stderr != "" {
		stderr = ": " + stderr
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitReject {
		return client.Reject(fmt.Errorf("%w%s", err, stderr))
	}
	return fmt.Errorf("%w%s", err, stderr)
}
