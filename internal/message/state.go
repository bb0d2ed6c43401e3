package message

import "time"

// State is where a message is in its life. It is in exactly one.
type State byte

// The states. Expired and cancelled messages end in the ring of finished ones.
const (
	Scheduled State = 1 // not before a time: delayed, or backing off
	Ready     State = 2 // may be handed out, or waits for an earlier one of its key
	Leased    State = 3
	Finished  State = 4
	Dead      State = 5
	Cancelled State = 7 // nobody wants it done any more
	Expired   State = 6 // its time passed before it was done, and its queue drops such messages
)

var stateNames = [...]string{Scheduled: "scheduled", Ready: "ready", Leased: "leased", Finished: "finished", Dead: "dead", Expired: "expired", Cancelled: "cancelled"}

func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return "unknown"
}

// Ended says that a message is done with, for good or until it is redriven.
func (s State) Ended() bool {
	switch s {
	case Finished, Dead, Cancelled, Expired:
		return true
	default:
		return false
	}
}

// ParseState reads what String wrote.
func ParseState(s string) (State, error) {
	for i, n := range stateNames {
		if n == s && n != "" {
			return State(i), nil
		}
	}
	return 0, Errorf(InvalidArgument, "state %q: want ready, scheduled, leased, dead, finished, expired or cancelled", clip(s))
}

// Action is what a settlement does.
type Action byte

// The actions.
const (
	Ack     Action = 1 // done
	Nack    Action = 2 // failed, try again
	Reject  Action = 3 // failed for good
	Release Action = 4 // give back, not counted
	Extend  Action = 5 // push the deadline out
)

var actions = [...]string{"", "ack", "nack", "reject", "release", "extend"}

func (a Action) String() string {
	if int(a) < len(actions) {
		return actions[a]
	}
	return ""
}

// Settlement ends or changes one lease.
type Settlement struct {
	Token  Token
	Action Action
	Error  string        // nack, reject
	Delay  time.Duration // nack (instead of the backoff, if HasDelay), release
	Lease  time.Duration // extend
	// HasDelay tells a nack with delay 0 from one that wants the backoff.
	HasDelay bool
	// FollowUps are sent with an ack: all of it is done or nothing.
	FollowUps []FollowUp
}

// FollowUp is a message that is sent with the ack of another one.
type FollowUp struct {
	Queue string
	New
}

// Check refuses a settlement that makes no sense.
func (s *Settlement) Check() error {
	switch s.Action {
	case Ack, Nack, Reject, Release:
	case Extend:
		if s.Lease < MinLease || s.Lease > MaxLease {
			return Errorf(InvalidArgument, "lease is %s: want %s to %s", s.Lease, MinLease, MaxLease)
		}
	default:
		return Errorf(InvalidArgument, "a settlement has no action")
	}
	if s.Delay < 0 || s.Delay > MaxDelay {
		return Errorf(InvalidArgument, "delay is %s: want 0s to %s", s.Delay, MaxDelay)
	}
	return s.checkFollowUps()
}

func (s *Settlement) checkFollowUps() error {
	switch {
	case len(s.FollowUps) == 0:
		return nil
	case s.Action != Ack:
		return Errorf(InvalidArgument, "follow-ups go with an ack only")
	case len(s.FollowUps) > MaxFollowUps:
		return Errorf(InvalidArgument, "%d follow-ups of one ack, at most %d are allowed", len(s.FollowUps), MaxFollowUps)
	}
	for i := range s.FollowUps {
		if f := &s.FollowUps[i]; f.DedupID != "" || f.UniqueKey != "" {
			return Errorf(InvalidArgument, "follow-up %d has a dedup id or a unique key, which can't be looked at in another shard together with the ack: it is sent once without", i+1)
		}
	}
	if size := s.FollowUpBytes(); size > MaxEntryBytes {
		return Errorf(TooLarge, "the follow-ups have %d bytes, %d for each counted, at most %d are allowed: send large ones before the ack", size, MessageOverhead, MaxEntryBytes)
	}
	return nil
}

// FollowUpBytes is about how many bytes the follow-ups take on their way.
func (s *Settlement) FollowUpBytes() (n int) {
	for i := range s.FollowUps {
		n += s.FollowUps[i].Size()
	}
	return n
}

// Counts of a queue or shard by state. Finished: now in the ring.
type Counts struct {
	Ready, Scheduled, Leased, Dead, Finished int64
}

// Totals count what has happened to messages since their queue was created or
// purged. Failed counts attempts, those of workers that died included.
type Totals struct {
	Sent, Delivered, Finished, Failed uint64
}

// Add adds o to t.
func (t *Totals) Add(o Totals) {
	t.Sent += o.Sent
	t.Delivered += o.Delivered
	t.Finished += o.Finished
	t.Failed += o.Failed
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Ready += o.Ready
	c.Scheduled += o.Scheduled
	c.Leased += o.Leased
	c.Dead += o.Dead
	c.Finished += o.Finished
}
