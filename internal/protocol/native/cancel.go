package native

import (
	"context"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// CancelMessages ends messages; each has a result of its own.
func (s messages) CancelMessages(ctx context.Context, req *comandav1.CancelMessagesRequest) (*comandav1.CancelMessagesResponse, error) {
	if err := checkCount("ids", len(req.GetIds())); err != nil {
		return nil, err
	}
	grace, err := durationOf("grace", req.GetGrace(), 0)
	if err != nil {
		return nil, err
	}
	resp := &comandav1.CancelMessagesResponse{}
	for _, text := range req.GetIds() {
		resp.Results = append(resp.Results, &comandav1.CancelResult{Id: text})
	}
	ids, at := s.idsOf(ctx, req.GetIds(), func(i int, e *comandav1.Error) { resp.Results[i].Error = e })
	if len(ids) == 0 {
		return resp, nil
	}
	results, err := s.verbs.Cancel(ctx, ids, message.CancelOptions{Force: req.GetForce(), Grace: grace})
	if err != nil {
		return nil, err
	}
	if err := checkAnswers("cancel", len(results), len(ids)); err != nil {
		return nil, err
	}
	for i, r := range results {
		told := resp.Results[at[i]]
		told.Error, told.State = s.itemError(ctx, r.Err), stateTo(r.State)
	}
	return resp, nil
}
