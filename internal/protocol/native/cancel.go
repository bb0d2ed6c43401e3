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
	resp := &comandav1.CancelMessagesResponse{Results: make([]*comandav1.CancelResult, len(req.GetIds()))}
	ids := make([]message.ID, 0, len(req.GetIds()))
	asked := make([]*comandav1.CancelResult, 0, len(req.GetIds()))
	for i, text := range req.GetIds() {
		r := &comandav1.CancelResult{Id: text}
		resp.Results[i] = r
		id, err := idOf(text)
		if err != nil {
			r.Error = s.itemError(ctx, s.refusal(ctx, err))
			continue
		}
		ids, asked = append(ids, id), append(asked, r)
	}
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
		asked[i].Error, asked[i].State = s.itemError(ctx, r.Err), stateTo(r.State)
	}
	return resp, nil
}
