package native

import (
	"context"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// Send stores messages; each has a result of its own.
func (s messages) Send(ctx context.Context, req *comandav1.SendRequest) (*comandav1.SendResponse, error) {
	if err := unbuilt(unbuiltField{"atomic", req.GetAtomic()}); err != nil {
		return nil, err
	}
	if err := checkCount("messages", len(req.GetMessages())); err != nil {
		return nil, err
	}
	msgs := make([]message.New, len(req.GetMessages()))
	for i, m := range req.GetMessages() {
		var err error
		if msgs[i], err = newMessage(m); err != nil {
			return nil, err
		}
	}
	results, err := s.send(ctx, req.GetQueue(), msgs)
	if err != nil {
		return nil, err
	}
	resp := &comandav1.SendResponse{Results: make([]*comandav1.SendResult, len(results))}
	slab := make([]comandav1.SendResult, len(results))
	for i, r := range results {
		if r.Err != nil {
			slab[i].Error = s.itemError(ctx, r.Err)
		} else {
			slab[i].Id = r.ID.String()
		}
		resp.Results[i] = &slab[i]
	}
	return resp, nil
}

func (s *Server) send(ctx context.Context, queue string, msgs []message.New) ([]message.SendResult, error) {
	results, err := s.verbs.Send(ctx, queue, msgs)
	if err != nil {
		return nil, err
	}
	return results, checkAnswers("send", len(results), len(msgs))
}

func newMessage(m *comandav1.NewMessage) (message.New, error) {
	if err := unbuilt(
		unbuiltField{"tenant", m.GetTenant() != ""},
		unbuiltField{"priority", m.GetPriority() != 0},
		unbuiltField{"deliver_at", m.GetDeliverAt() != nil},
		unbuiltField{"expires", m.GetExpires() != nil},
		unbuiltField{"dedup_id", m.GetDedupId() != ""},
		unbuiltField{"unique_key", m.GetUniqueKey() != ""},
	); err != nil {
		return message.New{}, err
	}
	delay, err := durationOf("delay", m.GetDelay(), 0)
	if err != nil {
		return message.New{}, err
	}
	return message.New{
		Body:       m.GetBody(),
		Key:        m.GetKey(),
		Type:       m.GetType(),
		Attributes: attributesOf(m.GetAttributes()),
		Delay:      delay,
	}, nil
}
