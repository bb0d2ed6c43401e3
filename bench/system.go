package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/comanda-mq/comanda/client"
	"github.com/comanda-mq/comanda/internal/load"
)

// system is one of the systems that are compared.
type system struct {
	name string
	what string // version and the settings that matter, for the report
	// launch starts the processes of its nodes, with all their data below dir, and
	// returns when they answer; also again, on the data of an earlier time.
	launch func(ctx context.Context, dir string, v *server) error
	load   load.System
}

// system finds one by its name.
func (c config) system(ctx context.Context, name string) (*system, error) {
	kind, binary, given := strings.Cut(name, "=")
	if !given {
		binary = c.comanda
	}
	switch kind {
	case "comanda":
		return c.newComanda(ctx, name, binary, 1)
	case "comanda3":
		return c.newComanda(ctx, name, binary, 3)
	case "redis":
		return newRedis(ctx)
	case "rabbitmq":
		return newRabbit(ctx, name, 1)
	case "rabbitmq3":
		return newRabbit(ctx, name, 3)
	}
	return nil, fmt.Errorf("system %q: want comanda, comanda3, redis, rabbitmq or rabbitmq3", name)
}

// newComanda is a cluster of so many nodes, each of which has a voter of every
// group.
func (c config) newComanda(ctx context.Context, name, binary string, nodes int) (*system, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(ctx, 2*nodes)
	if err != nil {
		return nil, err
	}
	var listen, peers []string
	for i := range nodes {
		listen, peers = append(listen, local(ports[2*i])), append(peers, local(ports[2*i+1]))
	}
	return &system{
		name: name, what: fmt.Sprintf("Comanda, nodes: %d, shards of a queue: %d, queues: %d, keys: %d, clients: %d, default settings", nodes, c.shards, c.queues, c.keys, c.clients),
		launch: func(ctx context.Context, dir string, v *server) error {
			for i := range nodes {
				home := filepath.Join(dir, fmt.Sprint("node", i+1))
				args := []string{"serve", "--data-dir", filepath.Join(home, "data"), "--listen", listen[i], "--cluster-listen", peers[i]}
				if nodes > 1 {
					args = append(args, "--node-name", filepath.Base(home), "--initial-members", strings.Join(peers, ","))
				}
				if err := v.add(ctx, home, nil, binary, args...); err != nil {
					return err
				}
			}
			return v.answer(ctx, func(ctx context.Context, i int) error { return comandaReady(ctx, listen[i], nodes) })
		},
		load: load.Comanda{Addr: strings.Join(listen, ","), Shards: c.shards, Clients: c.clients, Keys: c.keys, Queues: c.queues},
	}, nil
}

// comandaReady says whether a server answers and each group has so many voters.
func comandaReady(ctx context.Context, addr string, voters int) (err error) {
	if err := dial(ctx, addr); err != nil {
		return err // New would wait longer before it tried again
	}
	c, err := client.New(addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	s, err := c.Server(ctx)
	for _, g := range s.GetGroups() {
		if int(g.GetVoters()) != voters {
			return fmt.Errorf("group %d has %d voters", g.GetGroup(), g.GetVoters())
		}
	}
	return err
}

func newRedis(ctx context.Context) (*system, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	return &system{
		name: "redis", what: "Redis Streams, appendonly yes, appendfsync always",
		launch: func(ctx context.Context, dir string, v *server) error {
			err := v.add(ctx, dir, nil, "redis-server", "--port", fmt.Sprint(ports[0]), "--bind", "127.0.0.1",
				"--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
			if err != nil {
				return err
			}
			return v.answer(ctx, func(ctx context.Context, _ int) error { return redisReady(ctx, local(ports[0])) })
		},
		load: redisStreams{addr: local(ports[0])},
	}, nil
}

func redisReady(ctx context.Context, addr string) error {
	if err := dial(ctx, addr); err != nil {
		return err
	}
	c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	return errors.Join(c.Ping(ctx).Err(), c.Close())
}
