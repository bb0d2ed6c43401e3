package native

import (
	"context"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// MoveShard begins to move a shard to a node.
func (s cluster) MoveShard(ctx context.Context, req *comandav1.MoveShardRequest) (*comandav1.MoveShardResponse, error) {
	o, err := s.verbs.MoveShard(ctx, req.GetQueue(), req.GetShard(), req.GetNode(), workerName(ctx, ""))
	if err != nil {
		return nil, err
	}
	return &comandav1.MoveShardResponse{Operation: operationTo(&o)}, nil
}

// ListOperations lists operations, page by page.
func (s cluster) ListOperations(ctx context.Context, req *comandav1.ListOperationsRequest) (*comandav1.ListOperationsResponse, error) {
	os, next, err := s.verbs.Operations(ctx, orDefault(req.GetMax(), defaultPage), req.GetPage())
	if err != nil {
		return nil, err
	}
	resp := &comandav1.ListOperationsResponse{Operations: make([]*comandav1.Operation, len(os)), NextPage: next}
	for i := range os {
		resp.Operations[i] = operationTo(&os[i])
	}
	return resp, nil
}

// GetOperation tells of an operation.
func (s cluster) GetOperation(ctx context.Context, req *comandav1.GetOperationRequest) (*comandav1.GetOperationResponse, error) {
	o, err := s.verbs.Operation(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &comandav1.GetOperationResponse{Operation: operationTo(&o)}, nil
}

// CancelOperation asks that an operation stops.
func (s cluster) CancelOperation(ctx context.Context, req *comandav1.CancelOperationRequest) (*comandav1.CancelOperationResponse, error) {
	o, err := s.verbs.CancelOperation(ctx, req.GetId(), workerName(ctx, req.GetBy()))
	if err != nil {
		return nil, err
	}
	return &comandav1.CancelOperationResponse{Operation: operationTo(&o)}, nil
}

// PauseOperation stops an operation between two steps.
func (s cluster) PauseOperation(ctx context.Context, req *comandav1.PauseOperationRequest) (*comandav1.PauseOperationResponse, error) {
	o, err := s.verbs.PauseOperation(ctx, req.GetId(), true, workerName(ctx, req.GetBy()))
	if err != nil {
		return nil, err
	}
	return &comandav1.PauseOperationResponse{Operation: operationTo(&o)}, nil
}

// ResumeOperation lets a paused operation go on.
func (s cluster) ResumeOperation(ctx context.Context, req *comandav1.ResumeOperationRequest) (*comandav1.ResumeOperationResponse, error) {
	o, err := s.verbs.PauseOperation(ctx, req.GetId(), false, workerName(ctx, req.GetBy()))
	if err != nil {
		return nil, err
	}
	return &comandav1.ResumeOperationResponse{Operation: operationTo(&o)}, nil
}

func operationTo(o *message.OperationInfo) *comandav1.Operation {
	out := &comandav1.Operation{
		Id: o.ID, Kind: o.Kind, Title: o.Title, State: o.State, Step: o.Step, Waits: o.Waits,
		CreatedAt: timeTo(o.CreatedAt), ChangedAt: timeTo(o.ChangedAt),
		By: o.By, ChangedBy: o.ChangedBy, Chosen: o.Chosen, Redriven: o.Redriven, Skipped: o.Skipped, Rate: int32(o.Rate), To: o.To,
	}
	if o.Err != nil {
		out.Error = &comandav1.Error{Code: string(o.Err.Code), Message: o.Err.Text}
	}
	return out
}
