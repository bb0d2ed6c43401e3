package demo

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/comanda-mq/comanda/client"
)

const (
	usual    = 10 // orders a second
	rush     = 20 // at rush hour
	askAgain = 200 * time.Millisecond
	everyNth = 23 // order burns
)

// customers are the keys of the messages.
var customers = []string{
	"ada", "bruno", "carla", "dario", "elena", "fabio", "gina", "hugo", "ines", "jan", "kira", "luca",
	"mona", "nico", "olga", "paolo", "rosa", "sara", "tito", "ugo", "vera", "wanda", "yara", "zeno",
}

// counter takes orders. Each customer waits for a confirmation before the next one.
type counter struct {
	client *client.Client
	ledger *ledger
	served func(*death) // told when customers are served again after a server's death

	perSecond atomic.Int64
	count     atomic.Int64
	inside    sync.WaitGroup
}

// open lets the customers in until closing; calls under way then end with ctx.
func (c *counter) open(ctx context.Context, closing <-chan struct{}) {
	c.perSecond.Store(usual)
	for _, name := range customers {
		c.inside.Go(func() {
			for n := 1; c.think(ctx, closing); n++ {
				if !c.take(ctx, ticket{name, n}) {
					return
				}
			}
		})
	}
}

// think is what a customer does between orders, and false at the end.
func (c *counter) think(ctx context.Context, closing <-chan struct{}) bool {
	mean := float64(len(customers)) / float64(c.perSecond.Load())
	pause := time.NewTimer(time.Duration(rand.ExpFloat64() * mean * float64(time.Second)))
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-closing:
	case <-ctx.Done():
	}
	return false
}

// take sends an order until there is an answer: yes, or that the answer is lost. It
// is false when ctx ended before, and then the order was surely not stored.
func (c *counter) take(ctx context.Context, t ticket) bool {
	body, err := json.Marshal(order{Customer: t.customer, Number: t.number, Burns: c.count.Add(1)%everyNth == 0})
	if err != nil {
		panic(err) // strings and numbers
	}
	c.ledger.ask(t, time.Now())
	for {
		id, err := c.client.Send(ctx, queue, client.Message{Key: t.customer, Body: body})
		if err == nil || errors.Is(err, client.ErrUnknownOutcome) {
			if over := c.ledger.confirm(t, id, time.Now()); over != nil {
				c.served(over)
			}
			return true
		}
		select {
		case <-time.After(askAgain):
			c.ledger.again()
		case <-ctx.Done():
			return false
		}
	}
}
