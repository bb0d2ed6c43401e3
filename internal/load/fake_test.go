package load_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/load"
)

// faults are what the workloads must report.
type faults struct {
	lose    int   // of so many messages one is confirmed and lost; 0: none
	double  int   // of so many one is delivered twice
	foreign bool  // a message is there that nobody sent
	sendErr error // of the tenth send
	ackErr  error // of a consumer when it ends
}

// memory is a system in which each call takes a millisecond.
type memory struct {
	faults

	mu       sync.Mutex
	more     *sync.Cond // of waiting; made by Open
	sent     int
	waiting  [][]byte
	largest  int // batch
	peak     int // handlers at once
	running  int
	opened   []string
	closed   int
	bodySize int
}

const callTime = time.Millisecond

func pause(d time.Duration) { <-time.After(d) }

func (m *memory) Open(_ context.Context, name string, _ int) (load.Queue, error) {
	m.opened, m.more = append(m.opened, name), sync.NewCond(&m.mu)
	if m.foreign {
		m.waiting = append(m.waiting, slices.Repeat([]byte{0xff}, 64))
	}
	return m, nil
}

func (m *memory) Close(context.Context) error {
	m.closed++
	return nil
}

func (m *memory) Send(ctx context.Context, body []byte) error {
	return m.SendBatch(ctx, [][]byte{body})
}

func (m *memory) SendBatch(_ context.Context, bodies [][]byte) error {
	pause(callTime)
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.more.Broadcast()
	m.largest = max(m.largest, len(bodies))
	for _, b := range bodies {
		m.bodySize = len(b)
		m.sent++
		if m.sent == 10 && m.sendErr != nil {
			return m.sendErr
		}
		if m.lose > 0 && m.sent%m.lose == 0 {
			continue
		}
		m.waiting = append(m.waiting, slices.Clone(b))
		if m.double > 0 && m.sent%m.double == 0 {
			m.waiting = append(m.waiting, slices.Clone(b))
		}
	}
	return nil
}

func (m *memory) Consume(ctx context.Context, c load.Consumer) error {
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.more.Broadcast()
	})()
	var wg sync.WaitGroup
	for range c.Handlers {
		wg.Go(func() {
			for body := m.take(ctx); body != nil; body = m.take(ctx) {
				pause(callTime)
				c.Handle(body)
				m.leave()
			}
		})
	}
	wg.Wait()
	return m.ackErr
}

// take waits for a message; nil when ctx has ended.
func (m *memory) take(ctx context.Context) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.waiting) == 0 && ctx.Err() == nil {
		m.more.Wait()
	}
	if ctx.Err() != nil {
		return nil
	}
	m.running++
	m.peak = max(m.peak, m.running)
	body := m.waiting[0]
	m.waiting = m.waiting[1:]
	return body
}

func (m *memory) leave() {
	m.mu.Lock()
	m.running--
	m.mu.Unlock()
}

// short are options of a run that lasts an instant.
func short(report *[]load.Result) load.Options {
	return load.Options{
		Size: 128, Duration: 100 * time.Millisecond, Producers: 4, Consumers: 8, Preload: 1_230,
		Report: func(r load.Result) { *report = append(*report, r) },
	}
}

func run(t *testing.T, m *memory, name string, change func(*load.Options)) ([]load.Result, error) {
	t.Helper()
	w, err := load.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	var results []load.Result
	o := short(&results)
	if change != nil {
		change(&o)
	}
	err = load.Run(t.Context(), m, w, o)
	return results, err
}

var errFake = errors.New("the disk is full")
