//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/client"
)

// hello is how a gRPC client begins: the preface of HTTP/2 and empty settings.
const hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// A server with 10,000 connections that do nothing serves a new client, costs
// little, and closes them by itself.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	const connections, releaseWithin = 10_000, 90 * time.Second
	raiseFileLimit(t, connections+1000)
	p := start(t, t.TempDir())
	c := p.dial(t)
	createQueue(t, c)
	before := p.memory(t)

	var closed atomic.Int64
	var readers sync.WaitGroup
	var idle []net.Conn
	defer func() {
		for _, n := range idle {
			n.Close()
		}
		readers.Wait()
	}()
	for i := range connections {
		n, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		idle = append(idle, n)
		if i%2 == 0 {
			if _, err := io.WriteString(n, hello); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
		readers.Go(func() {
			_, _ = io.Copy(io.Discard, n) // until the server closes it
			closed.Add(1)
		})
	}
	r := &record{}
	fresh := p.dial(t)
	if err := sendOne(t.Context(), fresh, r, 0); err != nil {
		t.Fatalf("with %d idle connections: %v", connections, err)
	}
	drain(t, p, r)
	cost := p.memory(t) - before
	t.Logf("%d idle connections cost %d KiB each", connections, cost/connections>>10)
	if cost > connections*128<<10 {
		t.Errorf("%d idle connections cost %d MiB", connections, cost>>20)
	}
	ctx, cancel := context.WithTimeout(t.Context(), releaseWithin)
	defer cancel()
	for closed.Load() < connections {
		if pause(ctx); ctx.Err() != nil {
			t.Fatalf("%d of %d idle connections were closed within %v", closed.Load(), connections, releaseWithin)
		}
	}
	p.stop(t)
}

func raiseFileLimit(t *testing.T, n uint64) {
	t.Helper()
	limit := syscall.Rlimit{Cur: n, Max: n}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	limit.Max = max(n, now.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatalf("this test wants %d open files: %v", n, err)
	}
}

// Clients that do not read what they asked for cost the server a bounded amount,
// hinder nobody, and what they hold comes back.
func TestClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	const stuck, messages, size = 16, 2000, 100 << 10
	p := start(t, t.TempDir())
	c := p.dial(t)
	createQueue(t, c)
	batch := make([]client.Message, messages)
	for i := range batch {
		batch[i].Body = make([]byte, size)
	}
	if _, err := c.SendBatch(t.Context(), queue, batch); err != nil {
		t.Fatal(err)
	}
	before := p.memory(t)
	for i := range stuck {
		if i%2 == 0 {
			workWithoutReading(t, p.addr)
		} else {
			receiveWithoutReading(t, p.addr)
		}
	}
	eventually(t, "the clients to hold messages", func() error {
		q, err := c.Queue(t.Context(), queue)
		if err == nil && q.GetQueue().GetCounts().GetLeased() == 0 {
			err = errors.New("none is leased")
		}
		return err
	})
	worst := before
	acked := 0
	eventually(t, "all messages to come to a client that reads", func() error {
		worst = max(worst, p.memory(t))
		ds, err := c.Receive(t.Context(), queue, client.ReceiveOptions{Max: 100, Wait: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			if err := d.Ack(t.Context()); err != nil {
				t.Fatal(err)
			}
			acked++
		}
		if acked < messages {
			return fmt.Errorf("%d of %d came", acked, messages)
		}
		return nil
	})
	t.Logf("%d clients that do not read: the server occupied %d MiB, %d MiB before", stuck, worst>>20, before>>20)
	if worst-before > 512<<20 {
		t.Errorf("%d clients that do not read cost %d MiB", stuck, (worst-before)>>20)
	}
	p.stop(t)
}

// workWithoutReading opens a worker's stream, is ready to take much, and
// never reads.
func workWithoutReading(t *testing.T, addr string) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := comandav1.NewMessagesClient(conn).Work(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := &comandav1.WorkOpen{Queues: []string{queue}, Lease: durationpb.New(2 * time.Second)}
	if err := stream.Send(&comandav1.WorkRequest{Open: open, Credits: 10_000}); err != nil {
		t.Fatal(err)
	}
}

// receiveWithoutReading asks for many messages by HTTP and never reads.
func receiveWithoutReading(t *testing.T, addr string) {
	t.Helper()
	n, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if err := n.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(n, "POST /v1/queues/%s/receive?max=1000&wait=10s&lease=2s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", queue, addr)
	if err != nil {
		t.Fatal(err)
	}
}
