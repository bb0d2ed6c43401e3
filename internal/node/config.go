// Package node puts one server process together: its data directory, its
// replicas, its gateway and its listeners, and the order in which they start
// and stop. It sees every room, and no room sees it.
package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/comanda-mq/comanda/internal/auth"
	"github.com/comanda-mq/comanda/internal/clock"
	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/replica"
)

// Config of a server. The zero value of a field means its default.
type Config struct {
	DataDir  string // default ./comanda-data
	Listen   string // default 127.0.0.1:7400; port 0 picks a free one
	NodeName string // default the host's name
	// Join are addresses of nodes of the cluster that an empty directory joins;
	// without any it founds one.
	Join []string
	// InitialMembers are the addresses of three nodes, this one among them by its
	// Advertise, that found a cluster together when all have empty directories. No
	// send is confirmed before each group has a voter on each of them.
	InitialMembers []string
	// ClusterListen is where other nodes reach this one; default Listen's host and
	// the port after it. Advertise is what they are told; default the address that
	// was bound.
	ClusterListen string
	Advertise     string
	Labels        map[string]string
	// AllowedHosts are names, besides loopback and Listen, by which clients may
	// call the server.
	AllowedHosts []string
	// Insecure allows to listen elsewhere than on loopback without TLS and
	// credentials.
	Insecure bool
	// DiskReserve is how many bytes must stay free on the disk: below, sends are
	// refused. Default min(5 % of the disk, 10 GiB), at least 256 MiB.
	DiskReserve uint64
	// MemoryLimit is how many bytes the process may use before sends are
	// refused. Default min(25 % of the memory, 2 GiB).
	MemoryLimit uint64
	// LogBudget is how many bytes of log may be in use before rows are flushed to
	// let go of it. Default 256 MiB.
	LogBudget int64
	// LogSlow is how long an operation takes that is logged with where the time
	// went. Default 1 s; below 0 none is.
	LogSlow time.Duration
	Version string

	// What a test brings. Segments of the log below 32 MiB are too small for the
	// largest messages.
	LogSegment int64
	FS         vfs.FS
	Clock      clock.Clock
	// GroupClock is the clock of leases, delays and all that happens to messages; default
	// Clock. Workers and nodes are watched by Clock in any case.
	GroupClock clock.Clock
	Auth       auth.Authorizer
	// Listener to serve on, instead of Listen; ClusterListener instead of
	// ClusterListen.
	Listener, ClusterListener net.Listener
	// Dial reaches other nodes.
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
	Logger *slog.Logger

	// What only this room's own tests bring.
	memTable uint64 // size of one memtable of the rows
	// watch is put around each replica's state machine.
	watch func(*replica.Group, replica.StateMachine) replica.StateMachine
}

// cacheBytes is how much each of the two caches, of rows and of log entries, may
// hold.
func (c *Config) cacheBytes() int64 { return int64(min(c.MemoryLimit/8, 64<<20)) }

// dataGroups is how many data groups a new cluster has a node.
const dataGroups = 4

func (c Config) withDefaults() Config {
	if c.DataDir == "" {
		c.DataDir = "comanda-data"
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7400"
	}
	if c.NodeName == "" {
		c.NodeName = hostName()
	}
	if c.ClusterListen == "" {
		c.ClusterListen = nextPort(c.Listen)
	}
	if c.Advertise == "" && len(c.InitialMembers) > 0 {
		c.Advertise = c.ClusterListen
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	if c.FS == nil {
		c.FS = disk()
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	if c.GroupClock == nil {
		c.GroupClock = c.Clock
	}
	if c.Auth == nil {
		c.Auth = auth.AllowAll{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MemoryLimit == 0 {
		c.MemoryLimit = defaultMemoryLimit()
	}
	if c.LogSlow == 0 {
		c.LogSlow = time.Second
	}
	if c.memTable == 0 {
		c.memTable = min(c.MemoryLimit/16, 32<<20) // up to four of them are in memory
	}
	if c.watch == nil {
		c.watch = func(_ *replica.Group, m replica.StateMachine) replica.StateMachine { return m }
	}
	return c
}

// nextPort is the address with the port after it: 7401 for 7400. A port that is
// chosen by the system stays so.
func nextPort(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	n, numErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numErr != nil || n == 0 || n == 1<<16-1 {
		return net.JoinHostPort(host, "0")
	}
	return net.JoinHostPort(host, strconv.FormatUint(n+1, 10))
}

// hostName is the host's name as far as a node's may look like.
func hostName() string {
	h, err := os.Hostname()
	if err != nil || message.CheckQueueName(h) != nil {
		return "node-1"
	}
	return h
}

// Check refuses what can't work. It opens nothing.
func (c Config) Check() error {
	c = c.withDefaults()
	return c.check()
}

// check refuses what can't work, before anything is opened.
func (c *Config) check() error {
	if err := message.CheckQueueName(c.NodeName); err != nil {
		return message.Errorf(message.InvalidArgument, "node name %q: use 1 to %d letters, digits, '.', '_' and '-'", c.NodeName, message.MaxQueueName)
	}
	if c.Listener == nil {
		if err := c.checkListen("listen", c.Listen); err != nil {
			return err
		}
	}
	if c.ClusterListener == nil {
		if err := c.checkListen("cluster-listen", c.ClusterListen); err != nil {
			return err
		}
	}
	for _, a := range slices.Concat(c.Join, c.InitialMembers, []string{c.Advertise}) {
		if host, _, err := net.SplitHostPort(a); a != "" && (err != nil || host == "") {
			return message.Errorf(message.InvalidArgument, "address %q of a node: want HOST:PORT, as 10.0.0.7:7401", a)
		}
	}
	return c.checkMembers()
}

// checkMembers refuses initial members that can't found a cluster.
func (c *Config) checkMembers() error {
	members := slices.Sorted(slices.Values(c.InitialMembers))
	switch {
	case len(members) == 0:
		return nil
	case len(c.Join) > 0 || c.ClusterListener != nil:
		return message.Errorf(message.InvalidArgument, "initial members found a cluster, and join none: leave out --join")
	case len(slices.Compact(members)) != 3 || len(c.InitialMembers) != 3:
		return message.Errorf(message.InvalidArgument, "initial members %v: want the addresses of three nodes; others join them", c.InitialMembers)
	case !slices.Contains(members, c.Advertise):
		return message.Errorf(message.InvalidArgument, "initial members %v: this node is not among them, other nodes reach it at %s (see --advertise)", c.InitialMembers, c.Advertise)
	}
	return nil
}

func (c *Config) checkListen(name, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return message.Errorf(message.InvalidArgument, "%s %q: want HOST:PORT, as 127.0.0.1:7400", name, addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return message.Errorf(message.InvalidArgument, "%s %q: %q is not a port", name, addr, port)
	}
	if !c.Insecure && !loopback(host) {
		return message.Errorf(message.InvalidArgument, "%s %q is not loopback, and everybody who reaches it could read and delete every message: TLS and credentials are not built yet, so use 127.0.0.1, or --insecure if the network is yours alone", name, addr)
	}
	return nil
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func newSecret() (s message.Secret) {
	rand.Read(s[:]) // never fails
	return s
}
