package native

import (
	"context"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// RedriveMessages revives dead messages; each has a result of its own.
func (s messages) RedriveMessages(ctx context.Context, req *comandav1.RedriveMessagesRequest) (*comandav1.RedriveMessagesResponse, error) {
	if err := checkCount("ids", len(req.GetIds())); err != nil {
		return nil, err
	}
	resp := &comandav1.RedriveMessagesResponse{}
	for _, text := range req.GetIds() {
		resp.Results = append(resp.Results, &comandav1.RedriveResult{Id: text})
	}
	ids, at := s.idsOf(ctx, req.GetIds(), func(i int, e *comandav1.Error) { resp.Results[i].Error = e })
	if len(ids) == 0 {
		return resp, nil
	}
	errs, err := s.verbs.Redrive(ctx, ids, req.GetResetAttempts())
	if err != nil {
		return nil, err
	}
	if err := checkAnswers("redrive", len(errs), len(ids)); err != nil {
		return nil, err
	}
	for i, e := range errs {
		resp.Results[at[i]].Error = s.itemError(ctx, e)
	}
	return resp, nil
}

// RedriveQueue counts the dead messages that a filter chooses, and begins to revive
// them.
func (s queues) RedriveQueue(ctx context.Context, req *comandav1.RedriveQueueRequest) (_ *comandav1.RedriveQueueResponse, err error) {
	f := req.GetFilter()
	r := message.Redrive{
		Filter: message.DeadFilter{Type: f.GetType(), Key: f.GetKey(), Tenant: f.GetTenant(), Reason: f.GetReason(), Attributes: f.GetAttributes()},
		Rate:   int(req.GetRate()), ResetAttempts: req.GetResetAttempts(), To: req.GetTo(),
	}
	if r.Filter.Since, err = timeOf("dead_since", f.GetDeadSince()); err != nil {
		return nil, err
	}
	if r.Filter.Until, err = timeOf("dead_until", f.GetDeadUntil()); err != nil {
		return nil, err
	}
	plan, err := s.verbs.RedriveQueue(ctx, req.GetQueue(), r, workerName(ctx, req.GetBy()), req.GetDryRun())
	if err != nil {
		return nil, err
	}
	resp := &comandav1.RedriveQueueResponse{Count: int64(plan.Count)}
	if plan.Operation != nil {
		resp.Operation = operationTo(plan.Operation)
	}
	return resp, nil
}
