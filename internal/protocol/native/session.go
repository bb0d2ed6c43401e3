package native

import (
	"context"
	"time"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

const (
	// openTimeout limits how long a stream waits for its session, so that the
	// worker can ask another server well before its TTL is over.
	openTimeout = 3 * time.Second
	// maxHolds limits the tokens of one claim: a worker that has used all its
	// credits and waits for the answers to as many settlements names fewer.
	maxHolds = 64 << 10
)

// openSession opens the session that the stream asks for.
func (w *work) openSession(open *comandav1.WorkOpen) error {
	if open.GetIncarnation() == 0 {
		return nil
	}
	ttl, err := durationOf("ttl", open.GetTtl(), message.DefaultTTL)
	if err != nil {
		return err
	}
	o := message.SessionOptions{
		Worker: open.GetWorker(), Incarnation: open.GetIncarnation(), Attachment: open.GetAttachment(),
		TTL: ttl, Wait: open.GetOnDisconnect() == comandav1.OnDisconnect_ON_DISCONNECT_WAIT,
		Queues: open.GetQueues(), Slots: int(open.GetSlots()),
	}
	if err := o.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.ctx, openTimeout)
	defer cancel()
	w.session, err = w.verbs.OpenSession(ctx, o)
	if err != nil {
		w.session = nil
		return err
	}
	w.lease, w.ttl = 0, ttl
	return nil
}

// hear passes on what a request says about the worker itself.
func (w *work) hear(req *comandav1.WorkRequest) error {
	if req.GetGoodbye() {
		w.goodbye.Store(true)
		w.stopHandout()
	}
	beat, holds := req.GetBeat(), req.GetHolds()
	claims := beat > 0 && beat%2 == 0
	switch {
	case len(holds) > 0 && !claims:
		return message.Errorf(message.InvalidArgument, "holds stands with an even beat, not with beat %d", beat)
	case len(holds) > maxHolds:
		return message.Errorf(message.TooLarge, "the worker claims %d leases, at most %d are allowed", len(holds), maxHolds)
	case beat == 0 || w.session == nil:
		return nil
	}
	w.session.Beat(beat)
	if !claims {
		return nil
	}
	tokens := make([]message.Token, len(holds))
	for i, text := range holds {
		var err error
		if tokens[i], err = w.verbs.OpenToken(text); err != nil {
			return err
		}
	}
	w.session.Claim(tokens)
	return nil
}

// watch ends the stream when its session is over.
func (w *work) watch() error {
	select {
	case <-w.session.Ended():
		return w.session.Err()
	case <-w.ctx.Done():
		return nil
	}
}
