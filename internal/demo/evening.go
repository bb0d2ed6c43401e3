package demo

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// event is something that happens at a time after the opening.
type event struct {
	at time.Duration
	do func(*shop, context.Context) error
}

// program is what happens on an evening, and when the counter closes: a kitchen is
// killed every 20 s, the server that leads the orders once, at a third, and at half
// of the evening comes the rush. A short evening has its kitchens killed more often.
func program(evening time.Duration) (events []event, closing time.Duration) {
	closing = evening - min(max(evening/6, 2*time.Second), 10*time.Second)
	back := min(max(evening/12, time.Second), 5*time.Second)
	events = []event{
		{evening / 3, (*shop).killLeader},
		{evening/3 + back, (*shop).restartLeader},
		{evening / 2, (*shop).rushHour},
	}
	every := min(20*time.Second, evening/4)
	for at := every / 2; at < closing; at += every {
		events = append(events, event{at, (*shop).killKitchen})
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	return events, closing
}

// evening runs the program until the counter closes, and returns when the last
// customer has an answer. The end of ctx, and what should not happen, close it early.
func (s *shop) evening(ctx context.Context) {
	closed := make(chan struct{})
	calls, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	s.counter.open(calls, closed)
	events, closing := program(s.For)
	ticks := time.NewTicker(summaryEvery(s.For))
	defer ticks.Stop()
	for len(events) > 0 && s.waitUntil(ctx, events[0].at, ticks.C) {
		if err := events[0].do(s, ctx); err != nil {
			s.fail(err)
		}
		events = events[1:]
	}
	if len(events) == 0 {
		s.waitUntil(ctx, closing, ticks.C)
	}
	close(closed)
	late := time.AfterFunc(lastOrders, hangUp)
	s.counter.inside.Wait()
	late.Stop()
	hangUp()
	s.say("the counter closes: %s", s.ledger.summary())
}

// summaryEvery is how often it is printed how things stand.
func summaryEvery(evening time.Duration) time.Duration {
	return min(max(evening/24, 2*time.Second), 5*time.Second)
}

// waitUntil lets time pass, and prints how things stand meanwhile. It is false
// when the evening is to end.
func (s *shop) waitUntil(ctx context.Context, at time.Duration, ticks <-chan time.Time) bool {
	t := time.NewTimer(at - time.Since(s.opening))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return ctx.Err() == nil && !s.failed()
		case <-ticks:
			s.say("%s", s.ledger.summary())
		case <-ctx.Done():
			return false
		case <-s.broken:
			return false
		}
	}
}

// killKitchen kills a kitchen, and opens another one in its place.
func (s *shop) killKitchen(context.Context) error {
	d := s.kitchens.killBusiest()
	if err := s.kitchens.open(); err != nil {
		return err
	}
	s.say("%s is killed with %d in its ovens, and kitchen-%d opens", d.who, d.held, s.kitchens.opened)
	return nil
}

// killLeader kills the server that leads the orders.
func (s *shop) killLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	at, err := s.servers.leader(ctx, s.client, customers[0])
	if err != nil {
		return err
	}
	s.killed = at
	s.ledger.die(nodeName(at), true, s.servers.nodes[at].kill())
	s.say("%s leads the orders, and is killed", nodeName(at))
	return nil
}

// restartLeader starts the server again that was killed.
func (s *shop) restartLeader(ctx context.Context) error {
	at := s.killed
	if err := s.servers.launch(at); err != nil {
		return err
	}
	s.say("%s is started again", nodeName(at))
	s.restarts.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		switch err := s.servers.ready(ctx, at); {
		case err == nil:
			s.say("%s is back", nodeName(at))
		case !errors.Is(ctx.Err(), context.Canceled):
			s.fail(err)
		}
	})
	return nil
}

// rushHour brings more orders, and splits the shard that they go to.
func (s *shop) rushHour(ctx context.Context) error {
	s.counter.perSecond.Store(rush)
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	s.say("rush hour: %d pizzas a second", rush)
	began := time.Now()
	var ids []string
	err := until(ctx, "the shard of the orders to be split", func() error {
		// An answer may be lost, so look first.
		list, err := s.client.Shards(ctx, queue, 0, "")
		if err != nil {
			return err
		}
		if len(list.GetShards()) < 2 {
			_, err := s.client.SplitShard(ctx, queue, "0")
			return errors.Join(err, errors.New("there is one shard"))
		}
		for _, x := range list.GetShards() {
			ids = append(ids, x.GetId())
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.say("the shard of the orders is split after %s: %s", seconds(time.Since(began)), strings.Join(ids, " and "))
	return nil
}
