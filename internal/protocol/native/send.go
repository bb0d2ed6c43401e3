package native

import (
	"context"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// Send stores messages; each has a result of its own, also one that can't be read.
// Of an atomic batch such a one refuses the call.
func (s messages) Send(ctx context.Context, req *comandav1.SendRequest) (*comandav1.SendResponse, error) {
	if err := checkCount("messages", len(req.GetMessages())); err != nil {
		return nil, err
	}
	resp := &comandav1.SendResponse{Results: make([]*comandav1.SendResult, len(req.GetMessages()))}
	slab := make([]comandav1.SendResult, len(resp.GetResults()))
	msgs := make([]message.New, 0, len(slab))
	for i, in := range req.GetMessages() {
		resp.Results[i] = &slab[i]
		switch m, err := newMessage(in); {
		case err == nil:
			msgs = append(msgs, m)
		case req.GetAtomic():
			return nil, err
		default:
			slab[i].Error = s.itemError(ctx, s.refusal(ctx, err))
		}
	}
	if len(msgs) == 0 {
		return resp, nil
	}
	results, err := s.send(ctx, req.GetQueue(), msgs, req.GetAtomic())
	if err != nil {
		return nil, err
	}
	for i := range slab {
		if slab[i].Error != nil {
			continue // it was not sent
		}
		r := &results[0]
		results = results[1:]
		if r.Err != nil {
			slab[i].Error = s.itemError(ctx, r.Err)
		} else {
			slab[i].Id, slab[i].Existing = r.ID.String(), r.Existing
		}
	}
	return resp, nil
}

func (s *Server) send(ctx context.Context, queue string, msgs []message.New, atomic bool) ([]message.SendResult, error) {
	send := s.verbs.Send
	if atomic {
		send = s.verbs.SendAtomic
	}
	results, err := send(ctx, queue, msgs)
	if err != nil {
		return nil, err
	}
	return results, checkAnswers("send", len(results), len(msgs))
}

func newMessage(m *comandav1.NewMessage) (message.New, error) {
	delay, err := durationOf("delay", m.GetDelay(), 0)
	if err != nil {
		return message.New{}, err
	}
	deliverAt, err := timeOf("deliver_at", m.GetDeliverAt())
	if err != nil {
		return message.New{}, err
	}
	expires, err := timeOf("expires", m.GetExpires())
	if err != nil {
		return message.New{}, err
	}
	onConflict := message.OnConflict(m.GetOnConflict())
	if int32(onConflict) != int32(m.GetOnConflict()) {
		return message.New{}, message.Errorf(message.InvalidArgument, "on_conflict %d: want reject or existing", m.GetOnConflict())
	}
	retry, err := retryOf(m.GetRetry())
	if err != nil {
		return message.New{}, err
	}
	return message.New{
		Body:       m.GetBody(),
		Key:        m.GetKey(),
		Type:       m.GetType(),
		Tenant:     m.GetTenant(),
		Attributes: attributesOf(m.GetAttributes()),
		Delay:      delay,
		DeliverAt:  deliverAt,
		Expires:    expires,
		Priority:   int(m.GetPriority()),
		DedupID:    m.GetDedupId(),
		UniqueKey:  m.GetUniqueKey(),
		OnConflict: onConflict,
		Retry:      retry,
	}, nil
}

func retryOf(in *comandav1.Retry) (*message.Retry, error) {
	if in == nil {
		return nil, nil //nolint:nilnil // no retry of its own
	}
	r := &message.Retry{MaxAttempts: int(in.GetMaxAttempts())}
	if in.GetBackoff() != nil {
		b, err := backoffOf(in.GetBackoff())
		if err != nil {
			return nil, err
		}
		r.Backoff = b.WithDefaults()
	}
	return r, nil
}

func retryTo(r *message.Retry) *comandav1.Retry {
	if r == nil {
		return nil
	}
	out := &comandav1.Retry{MaxAttempts: int32(r.MaxAttempts)}
	if r.Backoff.Kind != 0 {
		out.Backoff = backoffTo(&r.Backoff)
	}
	return out
}
