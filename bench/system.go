package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/internal/load"
)

// system is one of the systems that are compared.
type system struct {
	name string
	what string // version and the settings that matter, for the report
	// start starts its server with all its data below dir.
	start func(ctx context.Context, dir string) (*process, error)
	load  func() load.System
}

// systems are the known ones, by name. The first is compared with the others.
func systems(ctx context.Context, comanda string) (map[string]*system, error) {
	port, err1 := freePort(ctx)
	redisPort, err2 := freePort(ctx)
	rabbit, err3 := newRabbitServer(ctx)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	local := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	return map[string]*system{
		"comanda": {
			name: "comanda", what: "Comanda, one node, default settings",
			start: func(ctx context.Context, dir string) (*process, error) {
				return start(ctx, dir, nil, comandaReady(local(port)), comanda, "serve", "--data-dir", filepath.Join(dir, "data"), "--listen", local(port))
			},
			load: func() load.System { return load.Comanda{Addr: local(port)} },
		},
		"redis": {
			name: "redis", what: "Redis Streams, appendonly yes, appendfsync always",
			start: func(ctx context.Context, dir string) (*process, error) {
				return start(ctx, dir, nil, redisReady(local(redisPort)), "redis-server", "--port", fmt.Sprint(redisPort), "--bind", "127.0.0.1",
					"--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
			},
			load: func() load.System { return redisStreams{addr: local(redisPort)} },
		},
		"rabbitmq": {
			name: "rabbitmq", what: "RabbitMQ quorum queue, one node, publisher confirms",
			start: rabbit.start,
			load:  func() load.System { return quorumQueues{url: rabbit.url()} },
		},
	}, nil
}

func comandaReady(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := dial(ctx, addr); err != nil {
			return err // New would wait longer before it tried again
		}
		c, err := client.New(addr)
		if err != nil {
			return err
		}
		_, err = c.Server(ctx)
		return errors.Join(err, c.Close())
	}
}

func redisReady(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := dial(ctx, addr); err != nil {
			return err
		}
		c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
		return errors.Join(c.Ping(ctx).Err(), c.Close())
	}
}

// rabbitServer is a node of RabbitMQ with a port mapper of its own, so that it
// meets no other Erlang program of this machine.
type rabbitServer struct {
	port, distribution, mapper int
}

// rabbitHome is where Debian's package has the server's own script; the one on
// the path changes to another user first.
const rabbitHome = "/usr/lib/rabbitmq/bin/"

func newRabbitServer(ctx context.Context) (*rabbitServer, error) {
	var s rabbitServer
	var errs [3]error
	s.port, errs[0] = freePort(ctx)
	s.distribution, errs[1] = freePort(ctx)
	s.mapper, errs[2] = freePort(ctx)
	return &s, errors.Join(errs[:]...)
}

func (s *rabbitServer) url() string { return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", s.port) }

func (s *rabbitServer) start(ctx context.Context, dir string) (*process, error) {
	for name, text := range map[string]string{"plugins": "[].\n", "rabbitmq.conf": "log.console.level = warning\nlog.file = false\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	env := []string{
		"HOME=" + dir, "ERL_EPMD_PORT=" + fmt.Sprint(s.mapper), "RABBITMQ_NODENAME=bench@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + fmt.Sprint(s.port), "RABBITMQ_DIST_PORT=" + fmt.Sprint(s.distribution),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "data"), "RABBITMQ_LOG_BASE=" + filepath.Join(dir, "log"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"), "RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"),
		"RABBITMQ_PID_FILE=" + filepath.Join(dir, "pid"),
	}
	ready := func(context.Context) error {
		c, err := amqp.Dial(s.url())
		if err != nil {
			return err
		}
		return c.Close()
	}
	// The mapper is started beside it, in the same group: the server would start
	// one that outlives it.
	script := fmt.Sprintf("epmd -port %d & exec %srabbitmq-server", s.mapper, rabbitHome)
	sh, err := exec.LookPath("sh")
	if err != nil {
		return nil, err
	}
	return start(ctx, dir, env, ready, sh, "-c", script)
}
