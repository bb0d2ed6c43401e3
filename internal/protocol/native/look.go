package native

import (
	"context"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// defaultPage is how many messages or queues a list has if nobody says.
const defaultPage = 100

// ShowMessage tells where a message is and what happened to it.
func (s messages) ShowMessage(ctx context.Context, req *comandav1.ShowMessageRequest) (*comandav1.ShowMessageResponse, error) {
	id, err := idOf(req.GetId())
	if err != nil {
		return nil, err
	}
	wait, err := durationOf("wait", req.GetWait(), 0)
	if err != nil {
		return nil, err
	}
	o, err := readOptions(req.GetStale())
	if err != nil {
		return nil, err
	}
	shown, fresh, err := s.verbs.Show(ctx, id, o, wait)
	if err != nil {
		return nil, err
	}
	return &comandav1.ShowMessageResponse{Message: shownTo(&shown), Freshness: freshnessTo(fresh)}, nil
}

// ListMessages lists messages by what is said of them.
func (s messages) ListMessages(ctx context.Context, req *comandav1.ListMessagesRequest) (*comandav1.ListMessagesResponse, error) {
	read, err := readOptions(req.GetStale())
	if err != nil {
		return nil, err
	}
	o := message.ListOptions{Key: req.GetKey(), Type: req.GetType(), Tenant: req.GetTenant(), Max: orDefault(req.GetMax(), defaultPage), Page: req.GetPage(), ReadOptions: read}
	if o.Since, err = timeOf("since", req.GetSince()); err != nil {
		return nil, err
	}
	if o.Until, err = timeOf("until", req.GetUntil()); err != nil {
		return nil, err
	}
	if req.GetState() != "" {
		if o.State, err = message.ParseState(req.GetState()); err != nil {
			return nil, err
		}
	}
	listed, err := s.verbs.List(ctx, req.GetQueue(), o)
	if err != nil {
		return nil, err
	}
	resp := &comandav1.ListMessagesResponse{
		Messages:  make([]*comandav1.Message, len(listed.Messages)),
		NextPage:  listed.NextPage,
		Freshness: freshnessTo(listed.Freshness),
		Plan: &comandav1.ListPlan{
			Index: listed.Plan.Index, Rows: int32(listed.Plan.Rows), Queues: int32(listed.Plan.Queues), Reads: int32(listed.Plan.Reads),
		},
	}
	for i := range listed.Messages {
		resp.Messages[i] = shownTo(&listed.Messages[i])
	}
	return resp, nil
}

func idOf(text string) (message.ID, error) {
	id, err := message.ParseID(text)
	if err != nil {
		return id, message.Errorf(message.InvalidArgument, "id %.100q: %s", text, err)
	}
	return id, nil
}

// idsOf reads the ids of a call and where in it they stand. What is none is refused by
// itself.
func (s messages) idsOf(ctx context.Context, texts []string, refuse func(i int, e *comandav1.Error)) (ids []message.ID, at []int) {
	for i, text := range texts {
		id, err := idOf(text)
		if err != nil {
			refuse(i, s.itemError(ctx, s.refusal(ctx, err)))
			continue
		}
		ids, at = append(ids, id), append(at, i)
	}
	return ids, at
}

func shownTo(m *message.Shown) *comandav1.Message {
	out := &comandav1.Message{
		Id:           m.ID.String(),
		Queue:        m.Queue,
		State:        m.State.String(),
		Reason:       m.Reason,
		Key:          m.Key,
		Type:         m.Type,
		Tenant:       m.Tenant,
		Attempts:     int32(m.Attempts),
		Deliveries:   int32(m.Deliveries),
		WorkerDeaths: int32(m.WorkerDeaths),
		SentAt:       timeTo(m.SentAt),
		ReadyAt:      timeTo(m.ReadyAt),
		Attributes:   attributesTo(m.Attributes),
		Body:         m.Body,
		BodySize:     int32(m.BodySize),
		Shard:        m.Shard,
		Worker:       m.Worker,
		LastError:    m.LastError,
		Priority:     int32(m.Priority),
		Retry:        retryTo(m.Retry),
		Expires:      timeTo(m.Expires),
		DedupId:      m.DedupID,
		UniqueKey:    m.UniqueKey,
	}
	for _, e := range m.Timeline {
		out.Timeline = append(out.Timeline, &comandav1.Event{
			At: timeTo(e.At), Event: e.Event, Worker: e.Worker, Attempt: int32(e.Attempt), Error: e.Error, From: e.From, To: e.To,
		})
	}
	return out
}
