package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitHome is where Debian's package has the server's own script; the one on
// the path changes to another user first.
const rabbitHome = "/usr/lib/rabbitmq/bin/"

// rabbitCluster is a cluster of RabbitMQ with a port mapper of its own, so that
// it meets no other Erlang program of this machine.
type rabbitCluster struct {
	mapper              int
	ports, distribution []int // a node each
}

func newRabbit(ctx context.Context, name string, nodes int) (*system, error) {
	ports, err := freePorts(ctx, 1+2*nodes)
	if err != nil {
		return nil, err
	}
	r := rabbitCluster{mapper: ports[0], ports: ports[1 : 1+nodes], distribution: ports[1+nodes:]}
	return &system{
		name: name, what: fmt.Sprintf("RabbitMQ, nodes: %d, quorum queue with a replica on each, publisher confirms", nodes),
		launch: r.launch, load: quorumQueues{urls: r.urls()},
	}, nil
}

func (r rabbitCluster) urls() (urls []string) {
	for _, port := range r.ports {
		urls = append(urls, fmt.Sprintf("amqp://guest:guest@%s/", local(port)))
	}
	return urls
}

func rabbitName(i int) string { return fmt.Sprintf("bench%d@localhost", i+1) }

// launch starts one node after the other: they find the first one, which would
// not find them yet, and its cookie.
func (r rabbitCluster) launch(ctx context.Context, dir string, v *server) error {
	settings := "log.console.level = warning\nlog.file = false\ncluster_formation.peer_discovery_backend = classic_config\n"
	for i := range r.ports {
		settings += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, rabbitName(i))
	}
	for name, text := range map[string]string{"plugins": "[].\n", "rabbitmq.conf": settings} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		return err
	}
	for i, url := range r.urls() {
		home := filepath.Join(dir, fmt.Sprint("node", i+1))
		env := []string{
			"HOME=" + dir, "ERL_EPMD_PORT=" + fmt.Sprint(r.mapper), "RABBITMQ_NODENAME=" + rabbitName(i),
			"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + fmt.Sprint(r.ports[i]), "RABBITMQ_DIST_PORT=" + fmt.Sprint(r.distribution[i]),
			"RABBITMQ_MNESIA_BASE=" + filepath.Join(home, "data"), "RABBITMQ_LOG_BASE=" + filepath.Join(home, "log"),
			"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"), "RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"),
			"RABBITMQ_PID_FILE=" + filepath.Join(home, "pid"),
		}
		script := "exec " + rabbitHome + "rabbitmq-server"
		if i == 0 {
			// The mapper is started beside it, in the same group: the server would
			// start one that outlives it.
			script = fmt.Sprintf("epmd -port %d & %s", r.mapper, script)
		}
		if err := v.add(ctx, home, env, sh, "-c", script); err != nil {
			return err
		}
		if err := v.nodes[i].answers(ctx, func(context.Context) error { return r.ready(url) }); err != nil {
			return err
		}
	}
	return nil
}

// ready says whether a node answers and is in the first one's cluster: a durable
// queue of the one is known to the other.
func (r rabbitCluster) ready(url string) error {
	const probe = "bench-ready"
	return errors.Join(
		onChannel(r.urls()[0], func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(probe, true, false, false, false, nil)
			return err
		}),
		onChannel(url, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(probe, true, false, false, false, nil)
			return err
		}),
	)
}

func onChannel(url string, f func(*amqp.Channel) error) error {
	c, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	ch, err := c.Channel()
	if err == nil {
		err = f(ch)
	}
	return errors.Join(err, c.Close())
}
