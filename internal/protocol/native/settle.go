package native

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
	"github.com/comanda-mq/comanda/internal/message"
)

// Settle ends or changes many leases; each has a result of its own.
func (s messages) Settle(ctx context.Context, req *comandav1.SettleRequest) (*comandav1.SettleResponse, error) {
	if err := checkCount("settlements", len(req.GetSettlements())); err != nil {
		return nil, err
	}
	results, err := s.settle(ctx, req.GetSettlements())
	if err != nil {
		return nil, err
	}
	return &comandav1.SettleResponse{Results: s.settleResults(ctx, results)}, nil
}

// Ack says that the message is done.
func (s messages) Ack(ctx context.Context, req *comandav1.AckRequest) (*comandav1.AckResponse, error) {
	r, err := s.settleOne(ctx, &comandav1.Settlement{Token: req.GetToken(), Action: comandav1.Action_ACTION_ACK})
	if err != nil {
		return nil, err
	}
	return &comandav1.AckResponse{AlreadyDone: r.AlreadyDone}, nil
}

// Nack says that the attempt failed.
func (s messages) Nack(ctx context.Context, req *comandav1.NackRequest) (*comandav1.NackResponse, error) {
	r, err := s.settleOne(ctx, &comandav1.Settlement{
		Token: req.GetToken(), Action: comandav1.Action_ACTION_NACK, Error: req.GetError(), Delay: req.GetDelay(),
	})
	if err != nil {
		return nil, err
	}
	return &comandav1.NackResponse{State: stateTo(r.State)}, nil
}

// Extend pushes the deadline out.
func (s messages) Extend(ctx context.Context, req *comandav1.ExtendRequest) (*comandav1.ExtendResponse, error) {
	_, err := s.settleOne(ctx, &comandav1.Settlement{
		Token: req.GetToken(), Action: comandav1.Action_ACTION_EXTEND, Lease: req.GetLease(),
	})
	if err != nil {
		return nil, err
	}
	return &comandav1.ExtendResponse{}, nil
}

// Release gives the message back.
func (s messages) Release(ctx context.Context, req *comandav1.ReleaseRequest) (*comandav1.ReleaseResponse, error) {
	_, err := s.settleOne(ctx, &comandav1.Settlement{
		Token: req.GetToken(), Action: comandav1.Action_ACTION_RELEASE, Delay: req.GetDelay(),
	})
	if err != nil {
		return nil, err
	}
	return &comandav1.ReleaseResponse{}, nil
}

// Reject says that the message can't be handled.
func (s messages) Reject(ctx context.Context, req *comandav1.RejectRequest) (*comandav1.RejectResponse, error) {
	_, err := s.settleOne(ctx, &comandav1.Settlement{
		Token: req.GetToken(), Action: comandav1.Action_ACTION_REJECT, Error: req.GetError(),
	})
	if err != nil {
		return nil, err
	}
	return &comandav1.RejectResponse{}, nil
}

// settleOne settles one lease; the item's error is the call's.
func (s *Server) settleOne(ctx context.Context, in *comandav1.Settlement) (message.SettleResult, error) {
	results, err := s.settle(ctx, []*comandav1.Settlement{in})
	if err != nil {
		return message.SettleResult{}, err
	}
	if e := results[0].Err; e != nil {
		return message.SettleResult{}, e
	}
	return results[0], nil
}

// settle settles in one batch what can be read; what can't is refused item by
// item.
func (s *Server) settle(ctx context.Context, in []*comandav1.Settlement) ([]message.SettleResult, error) {
	results := make([]message.SettleResult, len(in))
	batch := make([]message.Settlement, 0, len(in))
	place := make([]int, 0, len(in)) // in results, for each of the batch
	for i, p := range in {
		st, err := s.settlementOf(p)
		if err != nil {
			results[i].Err = s.refusal(ctx, err)
			continue
		}
		batch, place = append(batch, st), append(place, i)
	}
	if len(batch) == 0 {
		return results, nil
	}
	answers, err := s.verbs.Settle(ctx, batch)
	if err != nil {
		return nil, err
	}
	if err := checkAnswers("settle", len(answers), len(batch)); err != nil {
		return nil, err
	}
	for i, a := range answers {
		results[place[i]] = a
	}
	return results, nil
}

func (s *Server) settlementOf(p *comandav1.Settlement) (message.Settlement, error) {
	token, err := s.verbs.OpenToken(p.GetToken())
	if err != nil {
		return message.Settlement{}, err
	}
	st := message.Settlement{Token: token, Error: p.GetError(), HasDelay: p.GetDelay() != nil}
	if st.Action, err = actionOf(p.GetAction()); err != nil {
		return message.Settlement{}, err
	}
	if st.Delay, err = durationOf("delay", p.GetDelay(), 0); err != nil {
		return message.Settlement{}, err
	}
	if st.Action == message.Extend {
		st.Lease, err = durationOf("lease", p.GetLease(), message.DefaultLease)
	}
	if err != nil {
		return message.Settlement{}, err
	}
	for _, f := range p.GetFollowUps() {
		m, err := newMessage(f.GetMessage())
		if err != nil {
			return message.Settlement{}, err
		}
		st.FollowUps = append(st.FollowUps, message.FollowUp{Queue: f.GetQueue(), New: m})
	}
	return st, meant(st.Action, p.GetError(), p.GetDelay(), p.GetLease())
}

// meant refuses fields that the action does not know.
func meant(a message.Action, text string, delay, lease *durationpb.Duration) error {
	failed := a == message.Nack || a == message.Reject
	switch {
	case text != "" && !failed:
		return message.Errorf(message.InvalidArgument, "error is for nack and reject only")
	case delay != nil && a != message.Nack && a != message.Release:
		return message.Errorf(message.InvalidArgument, "delay is for nack and release only")
	case lease != nil && a != message.Extend:
		return message.Errorf(message.InvalidArgument, "lease is for extend only")
	}
	return nil
}

func actionOf(a comandav1.Action) (message.Action, error) {
	switch a {
	case comandav1.Action_ACTION_ACK:
		return message.Ack, nil
	case comandav1.Action_ACTION_NACK:
		return message.Nack, nil
	case comandav1.Action_ACTION_REJECT:
		return message.Reject, nil
	case comandav1.Action_ACTION_RELEASE:
		return message.Release, nil
	case comandav1.Action_ACTION_EXTEND:
		return message.Extend, nil
	default:
		return 0, message.Errorf(message.InvalidArgument, "action %d: want ack, nack, reject, release or extend", int32(a))
	}
}

func (s *Server) settleResults(ctx context.Context, in []message.SettleResult) []*comandav1.SettleResult {
	out := make([]*comandav1.SettleResult, len(in))
	slab := make([]comandav1.SettleResult, len(in))
	for i, r := range in {
		slab[i].Error = s.itemError(ctx, r.Err)
		slab[i].AlreadyDone = r.AlreadyDone
		slab[i].State = stateTo(r.State)
		for _, id := range r.FollowUps {
			slab[i].FollowUpIds = append(slab[i].FollowUpIds, id.String())
		}
		out[i] = &slab[i]
	}
	return out
}

func stateTo(s message.State) comandav1.MessageState {
	switch s {
	case message.Scheduled:
		return comandav1.MessageState_MESSAGE_STATE_SCHEDULED
	case message.Ready:
		return comandav1.MessageState_MESSAGE_STATE_READY
	case message.Leased:
		return comandav1.MessageState_MESSAGE_STATE_LEASED
	case message.Finished:
		return comandav1.MessageState_MESSAGE_STATE_FINISHED
	case message.Cancelled:
		return comandav1.MessageState_MESSAGE_STATE_CANCELLED
	case message.Expired:
		return comandav1.MessageState_MESSAGE_STATE_EXPIRED
	case message.Dead:
		return comandav1.MessageState_MESSAGE_STATE_DEAD
	default:
		return comandav1.MessageState_MESSAGE_STATE_UNSPECIFIED
	}
}
