package native

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

const (
	maxCredits = 10_000 // that a worker may have open
	// maxSettleBytes limits the settlements of one request: a thousand with the
	// longest error fit, or one with the largest follow-ups. Requests that wait to be settled are few
	// (settleAhead), so a stream's memory is bounded.
	maxSettleBytes = 2 << 20
	settleAhead    = 8
	// settleTimeout limits a settlement that outlives its stream: what was begun
	// is carried through.
	settleTimeout = 30 * time.Second
)

type workStream = grpc.BidiStreamingServer[comandav1.WorkRequest, comandav1.WorkResponse]

// work is one worker's stream. Four goroutines share it: one reads requests,
// one settles, one hands out, and the call's own sends. What they pass on goes
// through channels with little or no room, so a client that stops reading stops
// all of them, and no more than two batches of deliveries are in their hands.
type work struct {
	*Server
	stream workStream
	queues []string
	lease  time.Duration // 0 with a session
	worker string

	session message.Attachment // nil: none, the leases have deadlines
	ttl     time.Duration
	goodbye atomic.Bool // the worker ends

	ctx  context.Context // of the stream; fail ends it for a reason
	fail context.CancelCauseFunc
	// handout ends with ctx, and before it when the worker has said goodbye or
	// closed its side.
	handout     context.Context
	stopHandout context.CancelFunc

	credits    atomic.Int64  // granted by the client, and not yet used by a delivery
	granted    chan struct{} // has room for one word that credits have grown
	requests   chan []*comandav1.NumberedSettlement
	settled    chan []*comandav1.NumberedSettleResult
	deliveries chan []message.Delivery
}

// Work serves a worker's stream until the client has closed its side and all its
// settlements are answered, or until something fails.
func (s messages) Work(stream workStream) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return errNoOpen
	}
	if err != nil {
		return err
	}
	w, err := s.openWork(stream, first.GetOpen())
	if err != nil {
		return err
	}
	if err := w.openSession(first.GetOpen()); err != nil {
		w.fail(err)
		return err
	}
	// The reader ends when the stream does, which is after this call: it calls
	// no verb that waits.
	go w.run(func() error { return w.read(first) })
	var wait sync.WaitGroup
	wait.Go(func() { defer close(w.settled); w.run(w.settleAll) })
	wait.Go(func() { defer close(w.deliveries); w.run(w.handOut) })
	if w.session != nil {
		wait.Go(func() { w.run(w.watch) })
	}
	err = guard(w.send)
	w.fail(err)
	if w.session != nil {
		// Before what was begun is carried through: others wait for the leases.
		w.session.Close(w.goodbye.Load())
	}
	wait.Wait()
	return err
}

var errNoOpen = message.Errorf(message.InvalidArgument, "the first request of a work stream must carry open")

func (s *Server) openWork(stream workStream, open *comandav1.WorkOpen) (*work, error) {
	if open == nil {
		return nil, errNoOpen
	}
	if n := len(open.GetQueues()); n < 1 || n > message.MaxWorkQueues {
		return nil, message.Errorf(message.InvalidArgument, "%d queues: want 1 to %d", n, message.MaxWorkQueues)
	}
	lease, err := durationOf("lease", open.GetLease(), message.DefaultLease)
	if err != nil {
		return nil, err
	}
	w := &work{
		Server:     s,
		stream:     stream,
		queues:     open.GetQueues(),
		lease:      lease,
		worker:     workerName(stream.Context(), open.GetWorker()),
		granted:    make(chan struct{}, 1),
		requests:   make(chan []*comandav1.NumberedSettlement, settleAhead),
		settled:    make(chan []*comandav1.NumberedSettleResult),
		deliveries: make(chan []message.Delivery),
	}
	w.ctx, w.fail = context.WithCancelCause(stream.Context())
	w.handout, w.stopHandout = context.WithCancel(w.ctx)
	return w, nil
}

// run ends the stream if f fails or panics.
func (w *work) run(f func() error) {
	if err := guard(f); err != nil {
		w.fail(err)
	}
}

// read takes requests until the client closes its side.
func (w *work) read(req *comandav1.WorkRequest) error {
	defer close(w.requests)
	for {
		if err := w.take(req); err != nil {
			return err
		}
		var err error
		if req, err = w.stream.Recv(); errors.Is(err, io.EOF) {
			w.stopHandout()
			return nil
		}
		if err != nil {
			return err
		}
		if req.GetOpen() != nil {
			return message.Errorf(message.InvalidArgument, "open stands in the first request of a work stream only")
		}
	}
}

func (w *work) take(req *comandav1.WorkRequest) error {
	if err := w.hear(req); err != nil {
		return err
	}
	if n := req.GetCredits(); n > 0 {
		if w.credits.Add(int64(n)) > maxCredits {
			return message.Errorf(message.InvalidArgument, "more than %d credits are open", maxCredits)
		}
		select {
		case w.granted <- struct{}{}:
		default: // the word is already there
		}
	}
	if len(req.GetSettlements()) == 0 {
		return nil
	}
	if err := checkCount("settlements", len(req.GetSettlements())); err != nil {
		return err
	}
	size := 0
	for _, n := range req.GetSettlements() {
		s := n.GetSettlement()
		size += len(s.GetToken()) + len(s.GetError())
		for _, f := range s.GetFollowUps() {
			size += proto.Size(f)
		}
	}
	if size > maxSettleBytes {
		return message.Errorf(message.TooLarge, "the settlements of one request have %d bytes, at most %d are allowed", size, maxSettleBytes)
	}
	select {
	case w.requests <- req.GetSettlements():
	case <-w.ctx.Done():
	}
	return nil
}

// settleAll settles what has come while the last batch was being settled, as one
// batch, in the order in which it came.
func (w *work) settleAll() error {
	var batch, next []*comandav1.NumberedSettlement
	for {
		if batch = next; batch == nil {
			select {
			case batch = <-w.requests:
			case <-w.ctx.Done():
			}
		}
		if batch == nil { // closed, or ended
			return nil
		}
		batch, next = w.gather(batch)
		select {
		case w.settled <- w.settleBatch(batch):
		case <-w.ctx.Done():
			return nil
		}
	}
}

// gather adds to batch the requests that are there, as long as they fit into one
// call; the one that does not is left for the next.
func (w *work) gather(batch []*comandav1.NumberedSettlement) (full, next []*comandav1.NumberedSettlement) {
	for {
		select {
		case more := <-w.requests:
			if more == nil || len(batch)+len(more) > message.MaxBatch {
				return batch, more
			}
			batch = append(batch, more...)
		default:
			return batch, nil
		}
	}
}

// settleBatch answers for each settlement, also when the verb fails as a whole:
// the stream goes on, and the worker decides what to do about its leases.
func (w *work) settleBatch(batch []*comandav1.NumberedSettlement) []*comandav1.NumberedSettleResult {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), settleTimeout)
	defer cancel()
	ctx, watched := w.slow.Begin(ctx, "grpc", "Work")
	in := make([]*comandav1.Settlement, len(batch))
	for i, n := range batch {
		in[i] = n.GetSettlement()
	}
	results, err := w.settle(ctx, in)
	code := codeOK
	if err != nil {
		results = make([]message.SettleResult, len(batch))
		refused := w.refusal(ctx, err)
		code = string(refused.Code)
		for i := range results {
			results[i].Err = refused
		}
	}
	watched.End(code)
	out := make([]*comandav1.NumberedSettleResult, len(batch))
	slab := make([]comandav1.NumberedSettleResult, len(batch))
	for i, r := range w.settleResults(ctx, results) {
		slab[i].Number, slab[i].Result = batch[i].GetNumber(), r
		out[i] = &slab[i]
	}
	return out
}
