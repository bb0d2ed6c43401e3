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

	"github.com/comanda-mq/comanda/internal/node"
)

const (
	defaultListen = "127.0.0.1:7400" // where client commands look
	// stopWithin is how long calls in flight may take to end after a signal.
	stopWithin = 10 * time.Second
)

// newServe is 'comanda serve'.
func newServe() *cobra.Command {
	var c node.Config
	var logSlow time.Duration
	var diskReserve, memoryLimit, logBudget, logFormat, logLevel string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: "Run a server. An empty data directory founds a cluster of one. On loopback it needs no\n" +
			"configuration and no credentials. SIGTERM and Ctrl-C stop it: calls in flight end first.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			for _, s := range []struct {
				flag, text string
				into       func(uint64)
			}{
				{"disk-reserve", diskReserve, func(v uint64) { c.DiskReserve = v }},
				{"memory-limit", memoryLimit, func(v uint64) { c.MemoryLimit = v }},
				{"log-budget", logBudget, func(v uint64) { c.LogBudget = int64(v) }},
			} {
				if s.text == "" {
					continue
				}
				v, err := parseBytes(s.text)
				if err != nil {
					return usageError(fmt.Errorf("--%s %q: %w", s.flag, s.text, err))
				}
				s.into(v)
			}
			if c.Logger, err = newLogger(cmd.ErrOrStderr(), logFormat, logLevel); err != nil {
				return usageError(err)
			}
			if c.LogSlow = logSlow; logSlow <= 0 {
				c.LogSlow = -1
			}
			c.Version = version
			return serve(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.DataDir, "data-dir", "comanda-data", "directory for everything that must survive")
	f.StringVar(&c.Listen, "listen", defaultListen, "address for clients: gRPC and HTTP on one port")
	f.StringVar(&c.NodeName, "node-name", "", "this node's name (default the host's)")
	f.StringSliceVar(&c.Join, "join", nil, "addresses of nodes of the cluster that this one joins, as HOST:7401")
	f.StringSliceVar(&c.InitialMembers, "initial-members", nil, "addresses of the three nodes that found a cluster together, this one's --advertise among them")
	f.StringVar(&c.ClusterListen, "cluster-listen", "", "address for other nodes (default the port after --listen)")
	f.StringVar(&c.Advertise, "advertise", "", "address at which other nodes reach this one (default the one of --cluster-listen)")
	f.StringToStringVar(&c.Labels, "label", nil, "a label of this node, as `zone=a`")
	f.Lookup("label").DefValue = "" // else the help shows []
	f.StringSliceVar(&c.AllowedHosts, "allowed-host", nil, "another name by which clients may call this server")
	f.BoolVar(&c.Insecure, "insecure", false, "allow to listen elsewhere than on loopback without TLS and credentials")
	f.StringVar(&diskReserve, "disk-reserve", "", "space that stays free; below it sends are refused (default 5 % of the disk, 256MiB to 10GiB)")
	f.StringVar(&memoryLimit, "memory-limit", "", "memory above which sends are refused (default 25 % of the machine's, at most 2GiB)")
	f.StringVar(&logBudget, "log-budget", "", "size of the log above which rows are flushed to shorten it (default 256MiB)")
	f.DurationVar(&logSlow, "log-slow", time.Second, "log operations that take longer, and where the time went; 0: none")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
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
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}
