package client

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RawJob is a message in a handler's hands, its body as it was sent.
type RawJob struct {
	held
	shift  *shift
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Under the shift's lock.
	lease     time.Duration // of the next extension
	deadline  time.Time     // by this process' clock, from before the server gave it
	extending bool          // an extension is on its way
	fenced    bool          // the server said that the lease is over
	timer     *time.Timer   // calls renew
	followUps []FollowUp    // go with the ack
	session   uint64        // the incarnation that the lease lasts as long as; 0: it has a deadline, and only then what stands above but fenced
}

// Extend makes this lease, and its automatic extensions, lease long (1 s–12 h).
// A handler needs it only to outlive its process for longer than the worker's
// lease: as long as it runs, its lease is extended by itself. A lease of a
// session has no deadline, so there is nothing to do.
func (j *RawJob) Extend(ctx context.Context, lease time.Duration) error {
	if j.session != 0 {
		return nil
	}
	from := time.Now()
	if err := j.shift.w.Client.Extend(ctx, j.Token(), lease); err != nil {
		return err
	}
	j.shift.mu.Lock()
	defer j.shift.mu.Unlock()
	j.lease, j.deadline = lease, from.Add(lease)
	if j.shift.jobs[j] {
		j.timer.Reset(lease / 3)
	}
	return nil
}

// SendOnAck has messages sent to a queue with the ack of this one, in the same step: when
// the handler returns nil either all of it happens or nothing. At most 16 go with an ack,
// 1 MiB together, without a DedupID and a UniqueKey. If one of them is refused the attempt
// has failed, as if the handler had returned that error. If the handler returns an error
// nothing is sent. See Client.AckAndSend.
func (j *RawJob) SendOnAck(queue string, ms ...Message) {
	j.shift.mu.Lock()
	defer j.shift.mu.Unlock()
	for i := range ms {
		j.followUps = append(j.followUps, FollowUp{Queue: queue, Message: ms[i]})
	}
}

// stopped says that the handler was cancelled for the worker's sake, not for a
// fault of its own. The shift's lock is held.
func (j *RawJob) stopped() bool {
	cause := context.Cause(j.ctx)
	return errors.Is(cause, ErrDrainTimeout) || j.session != 0 && errors.Is(cause, ErrLeaseLost)
}

// current says that by all the worker knows the lease is still its own. The
// shift's lock is held.
func (j *RawJob) current() bool {
	if j.session == 0 {
		return time.Now().Before(j.deadline)
	}
	x := &j.shift.session
	return j.session == x.incarnation && time.Now().Before(x.end())
}

// renew extends the lease, or gives it up when its end came first.
func (j *RawJob) renew() {
	s := j.shift
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.jobs[j] || j.fenced {
		return
	}
	left := time.Until(j.deadline)
	if left <= 0 {
		j.cancel(ErrLeaseLost)
		return
	}
	if !j.extending {
		j.extending = true
		s.post(&posted{job: j, at: time.Now(), Settlement: Settlement{Token: j.Token(), Action: ActionExtend, Lease: j.lease}})
	}
	j.timer.Reset(min(j.lease/3, left))
}

// extended takes the server's answer to an extension. The shift's lock is held.
func (j *RawJob) extended(p *posted, err error) {
	j.extending = false
	switch {
	case err == nil:
		j.deadline = p.at.Add(p.Lease)
		if j.shift.jobs[j] {
			j.timer.Reset(min(j.lease, p.Lease) / 3)
		}
	case CodeOf(err) == CodeCancelRequested:
		j.cancel(ErrCancelled)
	case !passing(err):
		j.fenced = true
		j.cancel(fmt.Errorf("%w: %w", ErrLeaseLost, err))
	}
}

// passing says that the same settlement may well succeed in a moment.
func passing(err error) bool {
	switch CodeOf(err) {
	case CodeUnavailable, CodeNotLeader, CodeWrongShard, CodeUnknownOutcome, CodeUnreachable, CodeResourceExhausted:
		return true
	default:
		return false
	}
}
