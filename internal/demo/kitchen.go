package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/comanda-mq/comanda/client"
)

const (
	queue     = "orders"
	ovens     = 6 // of a kitchen: how many pizzas it bakes at a time
	bakeLeast = 200 * time.Millisecond
	bakeMost  = 700 * time.Millisecond
	// burns is how often an order that burns does so: then it is dead, and comes out
	// well when it is redriven.
	burns = 2
)

// order is the body of a message.
type order struct {
	Customer string `json:"customer"`
	Number   int    `json:"number"` // of this customer, from 1
	Burns    bool   `json:"burns,omitempty"`
}

// What kitchens report.
const (
	begun     = "begun"     // the pizza is in the oven
	made      = "made"      // it came out well, and is about to be acked
	burnt     = "burnt"     // it did not, and is about to be nacked
	delivered = "delivered" // the ack is durable
	ended     = "ended"     // the lease ended otherwise
)

// report is a line of a kitchen's standard output.
type report struct {
	Event string `json:"event"`
	ID    string `json:"id"`
	Fence uint64 `json:"fence"`
	order
}

// Kitchen is a worker of the shop.
type Kitchen struct {
	Server string    // addresses of the shop's servers
	Name   string    // in histories
	Out    io.Writer // gets the reports

	mu   sync.Mutex
	pans map[*client.RawJob]order // made, and not yet known to be delivered
}

// Run bakes until ctx ends, and then what is in the ovens.
func (k *Kitchen) Run(ctx context.Context) error {
	c, err := client.New(k.Server)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing is under way any more
	k.pans = map[*client.RawJob]order{}
	w := client.Worker{Client: c, Queue: queue, Name: k.Name, Concurrency: ovens, Handler: k.bake, Settled: k.settled}
	return w.Run(ctx)
}

func (k *Kitchen) bake(ctx context.Context, j *client.RawJob) error {
	var o order
	if err := json.Unmarshal(j.Body(), &o); err != nil {
		return client.Reject(fmt.Errorf("this is no order: %w", err))
	}
	k.say(begun, j, o)
	select {
	case <-time.After(bakeLeast + rand.N(bakeMost-bakeLeast)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if o.Burns && j.Deliveries() <= burns {
		k.say(burnt, j, o)
		return errors.New("burnt")
	}
	k.mu.Lock()
	k.pans[j] = o
	k.mu.Unlock()
	k.say(made, j, o)
	return nil
}

func (k *Kitchen) settled(j *client.RawJob, err error) {
	k.mu.Lock()
	o, well := k.pans[j]
	delete(k.pans, j)
	k.mu.Unlock()
	if well && err == nil {
		k.say(delivered, j, o)
		return
	}
	if json.Unmarshal(j.Body(), &o) == nil {
		k.say(ended, j, o)
	}
}

// say writes a report in one piece, so that a kill leaves no half of it.
func (k *Kitchen) say(event string, j *client.RawJob, o order) {
	line, err := json.Marshal(report{Event: event, ID: j.ID(), Fence: j.Fence(), order: o})
	if err != nil {
		panic(err) // strings and numbers
	}
	_, _ = k.Out.Write(append(line, '\n')) // without its reader the shop is gone, and this process soon
}
