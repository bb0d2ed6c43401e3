package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

// maxErrorText is how much of an attempt's error the server keeps, in bytes.
const maxErrorText = 1 << 10

// Action is what a settlement does with a lease.
type Action = comandav1.Action

// The actions.
const (
	ActionAck     = comandav1.Action_ACTION_ACK     // done
	ActionNack    = comandav1.Action_ACTION_NACK    // failed, try again
	ActionReject  = comandav1.Action_ACTION_REJECT  // failed for good
	ActionRelease = comandav1.Action_ACTION_RELEASE // give back, not counted
	ActionExtend  = comandav1.Action_ACTION_EXTEND  // push the deadline out
)

// Settlement ends or changes one lease.
type Settlement struct {
	Token  string
	Action Action
	Error  string        // nack and reject: what went wrong; cut to 1 KiB
	Delay  time.Duration // nack: instead of the queue's backoff; release: before it is ready again
	Lease  time.Duration // extend: the new length from now
	// FollowUps are sent with an ack; see Client.AckAndSend.
	FollowUps []FollowUp
}

// FollowUp is a message that is sent with the ack of another one, and its queue. It has
// no DedupID and no UniqueKey: it is sent once, with the ack.
type FollowUp struct {
	Queue string
	Message
}

func (s *Settlement) proto() *comandav1.Settlement {
	p := &comandav1.Settlement{
		Token: s.Token, Action: s.Action, Error: errorText(s.Error), Delay: optional(s.Delay), Lease: optional(s.Lease),
	}
	for i := range s.FollowUps {
		f := &comandav1.FollowUp{Queue: s.FollowUps[i].Queue, Message: &comandav1.NewMessage{}}
		s.FollowUps[i].fill(f.Message)
		p.FollowUps = append(p.FollowUps, f)
	}
	return p
}

// errorText makes text that the server takes: UTF-8 and at most 1 KiB.
func errorText(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxErrorText)], "")
}

// SettleResult tells what became of one settlement.
type SettleResult struct {
	Err         error
	AlreadyDone bool   // it was acked before: nothing changed, and all is well
	State       string // the state that the message is in now: ready, scheduled, finished, dead …
	// FollowUps are the ids of what was sent with it, in order; also if it was acked
	// before.
	FollowUps []string
}

type settling = entry[*comandav1.Settlement, SettleResult]

// Settle ends or changes leases and has a result for each. err is the first
// failure among the results.
func (c *Client) Settle(ctx context.Context, ss []Settlement) (results []SettleResult, err error) {
	results = make([]SettleResult, len(ss))
	entries := make([]*settling, len(ss))
	for i := range ss {
		if results[i].Err = ss[i].check(); results[i].Err != nil {
			continue
		}
		e := newEntry[*comandav1.Settlement, SettleResult]()
		e.in, e.size = ss[i].proto(), settlementSize(&ss[i])
		if results[i].Err = c.settler.add(ctx, e); results[i].Err == nil {
			entries[i] = e
		}
	}
	for i, e := range entries {
		if e != nil {
			r, _, failed := c.settler.wait(ctx, e)
			if results[i] = r; failed != nil {
				results[i].Err = failed
			}
		}
		if err == nil {
			err = results[i].Err
		}
	}
	return results, err
}

const (
	maxFollowUps     = 16
	maxFollowUpBytes = 1 << 20
)

// check refuses what can't be encoded, and what the server would not read: others go
// out with it.
func (s *Settlement) check() error {
	if n := len(s.FollowUps); n > maxFollowUps {
		return &Error{Code: CodeInvalidArgument, Message: fmt.Sprintf("%d follow-ups of one ack, at most %d are allowed", n, maxFollowUps)}
	}
	if size := settlementSize(s); len(s.FollowUps) > 0 && size > maxFollowUpBytes {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("the follow-ups have %d bytes, at most %d are allowed: send large ones before the ack", size, maxFollowUpBytes)}
	}
	err := checkText(s.Token)
	for i := range s.FollowUps {
		f := &s.FollowUps[i]
		if err == nil {
			err = checkText(f.Queue)
		}
		if err == nil {
			err = f.checkText()
		}
	}
	return err
}

func settlementSize(s *Settlement) int {
	n := messageExtra + len(s.Token) + len(s.Error)
	for i := range s.FollowUps {
		n += len(s.FollowUps[i].Queue) + s.FollowUps[i].size()
	}
	return n
}

// settle settles one lease.
func (c *Client) settle(ctx context.Context, s Settlement) error {
	_, err := c.Settle(ctx, []Settlement{s})
	return err
}

// Ack says that the message is done. To ack it twice is no error.
func (c *Client) Ack(ctx context.Context, token string) error {
	return c.settle(ctx, Settlement{Token: token, Action: ActionAck})
}

// AckAndSend says that the message is done and sends up to 16 others, 1 MiB together,
// all in one step: either all of it happens or nothing. It returns their ids. If one of them
// can't be sent, or the lease is no longer the current one (ErrFenced), there is no ack and
// nothing is sent. To call it again with the same arguments, after a lost answer, sends
// nothing twice and returns the same ids.
//
// A message for another part of the cluster is on its way when AckAndSend returns, and
// arrives even if that part can't be reached for long. If its queue refuses it then, it is
// dead in the queue of the message that was acked, and a redrive sends it again.
func (c *Client) AckAndSend(ctx context.Context, token string, followUps ...FollowUp) (ids []string, err error) {
	results, err := c.Settle(ctx, []Settlement{{Token: token, Action: ActionAck, FollowUps: followUps}})
	return results[0].FollowUps, err
}

// Nack says that the attempt failed with cause: the message is tried again
// after delay, or after the queue's backoff if delay is 0, or is dead once its
// attempts are used up.
func (c *Client) Nack(ctx context.Context, token, cause string, delay time.Duration) error {
	return c.settle(ctx, Settlement{Token: token, Action: ActionNack, Error: cause, Delay: delay})
}

// Reject says that the message can't be handled because of cause: it is dead
// at once.
func (c *Client) Reject(ctx context.Context, token, cause string) error {
	return c.settle(ctx, Settlement{Token: token, Action: ActionReject, Error: cause})
}

// Release gives the message back, after delay, without counting an attempt.
func (c *Client) Release(ctx context.Context, token string, delay time.Duration) error {
	return c.settle(ctx, Settlement{Token: token, Action: ActionRelease, Delay: delay})
}

// Extend makes the lease end in lease (1 s–12 h) from now.
func (c *Client) Extend(ctx context.Context, token string, lease time.Duration) error {
	return c.settle(ctx, Settlement{Token: token, Action: ActionExtend, Lease: lease})
}

// beginSettle makes the shared calls of the settler.
func (c *Client) beginSettle(entries []*settling) func(context.Context) error {
	req := &comandav1.SettleRequest{Settlements: make([]*comandav1.Settlement, len(entries))}
	for i, e := range entries {
		req.Settlements[i] = e.in
	}
	return func(ctx context.Context) error {
		resp, err := c.messages.Settle(ctx, req)
		if err != nil {
			return err
		}
		if len(resp.GetResults()) != len(entries) {
			return &Error{Code: CodeUnknownOutcome, Message: fmt.Sprintf("the server answered %d of %d settlements: settle again", len(resp.GetResults()), len(entries))}
		}
		for i, r := range resp.GetResults() {
			entries[i].answer(settleResult(r), nil)
		}
		return nil
	}
}

func settleResult(r *comandav1.SettleResult) SettleResult {
	return SettleResult{Err: itemError(r.GetError()), AlreadyDone: r.GetAlreadyDone(), State: stateName(r.GetState()), FollowUps: r.GetFollowUpIds()}
}

func stateName(s comandav1.MessageState) string {
	if s == comandav1.MessageState_MESSAGE_STATE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "MESSAGE_STATE_"))
}
