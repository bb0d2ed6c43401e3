package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/comanda-mq/comanda/internal/node"
)

const (
	defaultListen = "127.0.0.1:7400" // where client commands look
	// stopWithin is how long calls in flight may take to end after a signal.
	stopWithin = 10 * time.Second
)

// newServe is 'comanda serve'.
func newServe() *cobra.Command {
	s := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: "Run a server. An empty data directory founds a cluster of one. On loopback it needs no\n" +
			"configuration and no credentials. SIGTERM and Ctrl-C stop it: calls in flight end first.\n" +
			"Settings may also stand in the environment and in a file: see 'comanda config docs'.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.config(cmd)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	s.add(cmd)
	return cmd
}

// serveFlags are the settings of a server. Its flags are the one list of them, which
// what the environment and a file say is set by, and what the documentation is made of.
type serveFlags struct {
	node.Config
	file                string
	logBudget           uint64
	logSlow             time.Duration
	logFormat, logLevel string

	flags   *pflag.FlagSet
	origins map[string]string // of settings that were given, by their flags
}

func (s *serveFlags) add(cmd *cobra.Command) {
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&s.file, configFlag, "", "a file of settings in YAML (default none)")
	f.StringVar(&s.DataDir, "data-dir", "comanda-data", "directory for everything that must survive")
	f.StringVar(&s.Listen, "listen", defaultListen, "address for clients: gRPC and HTTP on one port")
	f.StringVar(&s.NodeName, "node-name", "", "this node's name (default the host's)")
	f.StringSliceVar(&s.Join, "join", nil, "addresses of nodes of the cluster that this one joins, as HOST:7401")
	f.StringSliceVar(&s.InitialMembers, "initial-members", nil, "addresses of the three nodes that found a cluster together, this one's --advertise among them")
	f.StringVar(&s.ClusterListen, "cluster-listen", "", "address for other nodes (default the port after --listen)")
	f.StringVar(&s.Advertise, "advertise", "", "address at which other nodes reach this one (default the one of --cluster-listen)")
	f.StringToStringVar(&s.Labels, "label", nil, "a label of this node, as `zone=a`")
	f.Lookup("label").DefValue = "" // else the help shows []
	f.StringSliceVar(&s.AllowedHosts, "allowed-host", nil, "another name by which clients may call this server")
	f.BoolVar(&s.Insecure, "insecure", false, "allow to listen elsewhere than on loopback without TLS and credentials")
	f.Var((*bytesFlag)(&s.DiskReserve), "disk-reserve", "space that stays free; below it sends are refused (default 5 % of the disk, 256MiB to 10GiB)")
	f.Var((*bytesFlag)(&s.MemoryLimit), "memory-limit", "memory above which sends are refused (default 25 % of the machine's, at most 2GiB)")
	f.Var((*bytesFlag)(&s.logBudget), "log-budget", "size of the log above which rows are flushed to shorten it (default 256MiB)")
	f.DurationVar(&s.logSlow, "log-slow", time.Second, "log operations that take longer, and where the time went; 0: none")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	s.flags = f
	cmd.Flags().AddFlagSet(f)
}

// config is the configuration of a server with what flags, environment and file say.
func (s *serveFlags) config(cmd *cobra.Command) (c node.Config, err error) {
	if err := s.load(os.Environ(), cmd.InOrStdin()); err != nil {
		return c, usageError(err)
	}
	c = s.Config
	c.Version = version
	c.LogBudget = int64(s.logBudget) // parseBytes gives no more
	if c.LogSlow = s.logSlow; c.LogSlow <= 0 {
		c.LogSlow = -1
	}
	if c.Logger, err = newLogger(cmd.ErrOrStderr(), s.logFormat, s.logLevel); err != nil {
		return c, usageError(err)
	}
	if err := c.Check(); err != nil {
		return c, usageError(err)
	}
	return c, nil
}

func serve(ctx context.Context, c node.Config, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	n, err := node.Start(ctx, c)
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(int64(n.MemoryLimit())) // collect sooner rather than refuse sends
	addr, server := n.Addr().String(), ""
	if addr != defaultListen {
		server = " --server " + addr
	}
	_, _ = fmt.Fprintf(out, `comanda %s serves cluster %s from %s
  listening on %s (gRPC, REST)
  other nodes join it with --join %[7]s
  try, from another terminal:
    %[5]s queue create orders%[6]s
    curl -d 'one margherita' http://%[4]s/v1/queues/orders/messages
    %[5]s work orders --exec 'cat; echo'%[6]s
  or in Go, with github.com/comanda-mq/comanda/client:
    c, err := client.New("%[4]s")
`, c.Version, n.ClusterID(), c.DataDir, addr, os.Args[0], server, n.ClusterAddr())
	select {
	case <-ctx.Done():
	case <-n.Ended():
		if err := n.Err(); err != nil {
			return fmt.Errorf("the server stopped by itself, and nothing was confirmed after the failure: %w", err)
		}
		return errors.New("the server stopped by itself")
	}
	stop() // a second signal ends the process at once
	c.Logger.InfoContext(ctx, "stopping")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		return err
	}
	c.Logger.InfoContext(ctx, "stopped")
	return nil
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}
