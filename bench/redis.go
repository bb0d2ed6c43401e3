package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/comanda-mq/comanda/internal/load"
)

const (
	redisGroup = "workers"
	// redisAhead is how many messages a consumer that does not wait for its acks
	// takes at a time.
	redisAhead = 100
	// redisWait is how long a consumer blocks on an empty stream.
	redisWait = 100 * time.Millisecond
)

// redisStreams is Redis Streams with a consumer group: XADD, XREADGROUP, XACK
// and XDEL. Every caller has a connection of its own, as the client's pool gives
// them out; the server syncs once for all that it read in one turn.
type redisStreams struct{ addr string }

func (s redisStreams) Open(ctx context.Context, name string, producers int) (load.Queue, error) {
	c := redis.NewClient(&redis.Options{
		Addr: s.addr, PoolSize: producers + 1_000, MaxRetries: -1, ReadTimeout: callTimeout, WriteTimeout: callTimeout,
	})
	q := &redisQueue{client: c, stream: name}
	if err := c.Del(ctx, name).Err(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.XGroupCreateMkStream(ctx, name, redisGroup, "0").Err(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return q, nil
}

type redisQueue struct {
	client *redis.Client
	stream string
}

func (q *redisQueue) add(ctx context.Context, c redis.Cmdable, body []byte) *redis.StringCmd {
	return c.XAdd(ctx, &redis.XAddArgs{Stream: q.stream, Values: []any{"b", body}})
}

func (q *redisQueue) Send(ctx context.Context, body []byte) error {
	return q.add(ctx, q.client, body).Err()
}

func (q *redisQueue) SendBatch(ctx context.Context, bodies [][]byte) error {
	_, err := q.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, b := range bodies {
			q.add(ctx, p, b)
		}
		return nil
	})
	return err
}

func (q *redisQueue) Close(ctx context.Context) error {
	return errors.Join(q.client.Del(ctx, q.stream).Err(), q.client.Close())
}

// Consume runs each handler on a connection of its own. One that waits takes
// one message at a time, one that does not takes many; both send their acks and
// ask for what is next in one round trip.
func (q *redisQueue) Consume(ctx context.Context, c load.Consumer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failed := make([]error, c.Handlers)
	for i := range failed {
		wg.Go(func() {
			if failed[i] = q.handle(ctx, fmt.Sprint("c", i), c); failed[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

func (q *redisQueue) handle(ctx context.Context, consumer string, c load.Consumer) error {
	ahead := redisAhead
	if c.Wait {
		ahead = 1
	}
	next := &redis.XReadGroupArgs{Group: redisGroup, Consumer: consumer, Streams: []string{q.stream, ">"}, Count: int64(ahead)}
	var done []string
	for ctx.Err() == nil || len(done) > 0 {
		block := *next
		block.Block = -1 // does not wait
		if len(done) == 0 {
			block.Block = redisWait
		}
		got, err := q.ackAndRead(ctx, done, &block)
		if err != nil {
			return err
		}
		done = done[:0]
		for _, m := range got {
			body, _ := m.Values["b"].(string)
			c.Handle([]byte(body))
			done = append(done, m.ID)
		}
	}
	return nil
}

// ackAndRead acks and deletes what is done and reads what is next, unless ctx
// has ended; the calls themselves are not cut short.
func (q *redisQueue) ackAndRead(ctx context.Context, done []string, next *redis.XReadGroupArgs) ([]redis.XMessage, error) {
	call := context.WithoutCancel(ctx)
	var read *redis.XStreamSliceCmd
	_, err := q.client.Pipelined(call, func(p redis.Pipeliner) error {
		if len(done) > 0 {
			p.XAck(call, q.stream, redisGroup, done...)
			p.XDel(call, q.stream, done...)
		}
		if ctx.Err() == nil {
			read = p.XReadGroup(call, next)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if read == nil || len(read.Val()) == 0 {
		return nil, nil
	}
	return read.Val()[0].Messages, nil
}
