package message

import (
	"slices"
	"time"
)

// BackoffKind is the shape of the delays between a message's attempts.
type BackoffKind byte

// The kinds of backoff.
const (
	BackoffExponential BackoffKind = 1 // Initial × 2^n up to Max, jitter ± 20 %
	BackoffFixed       BackoffKind = 2 // always Initial
	BackoffList        BackoffKind = 3 // List in turn, its last delay again and again
)

// NoDedup is the DedupWindow of a queue in which dedup ids count for nothing.
const NoDedup time.Duration = -1

// DefaultDedupWindow is the default of Settings.DedupWindow.
const DefaultDedupWindow = 5 * time.Minute

// ExpiredPolicy says what becomes of a message that is not done when it expires.
type ExpiredPolicy byte

// The policies.
const (
	ExpiredDrop ExpiredPolicy = 1 // it is over, and stays visible as finished ones do
	ExpiredDead ExpiredPolicy = 2 // it is dead
)

// DefaultWorkerDeaths is the default of Settings.MaxWorkerDeaths.
const DefaultWorkerDeaths = 3

// Backoff says how long a message waits after a failed attempt.
type Backoff struct {
	Kind    BackoffKind
	Initial time.Duration
	Max     time.Duration
	List    []time.Duration
}

// WithDefaults fills in what is not set.
func (b Backoff) WithDefaults() Backoff {
	if b.Kind == 0 {
		b.Kind = BackoffExponential
	}
	if b.Initial == 0 && b.Kind != BackoffList {
		b.Initial = time.Second
	}
	if b.Max == 0 && b.Kind == BackoffExponential {
		b.Max = time.Hour
	}
	return b
}

// check refuses a backoff that makes no sense.
func (b *Backoff) check() error {
	for _, err := range []error{
		span("backoff initial", b.Initial, MaxDelay),
		span("backoff max", b.Max, MaxDelay),
		between("backoff kind", int64(b.Kind), 0, int64(BackoffList)),
		between("backoff list length", int64(len(b.List)), 0, MaxBackoffList),
	} {
		if err != nil {
			return err
		}
	}
	if (b.Kind == BackoffList) != (len(b.List) > 0) {
		return Errorf(InvalidArgument, "backoff: kind list and a list of delays go together")
	}
	for _, d := range b.List {
		if err := span("backoff list", d, MaxDelay); err != nil {
			return err
		}
	}
	return nil
}

func between(what string, v, lo, hi int64) error {
	if v < lo || v > hi {
		return Errorf(InvalidArgument, "%s is %d: want %d to %d", what, v, lo, hi)
	}
	return nil
}

func span(what string, v, hi time.Duration) error {
	if v < 0 || v > hi {
		return Errorf(InvalidArgument, "%s is %s: want 0s to %s", what, v, hi)
	}
	return nil
}

// Retry is how one message is tried again. The zero value of a field means the
// queue's setting.
type Retry struct {
	MaxAttempts int
	Backoff     Backoff // of no Kind: the queue's
}

// check refuses what makes no sense.
func (r *Retry) check() error {
	if err := between("retry max_attempts", int64(r.MaxAttempts), 0, MaxAttemptsLimit); err != nil {
		return err
	}
	return r.Backoff.check()
}

// OnFailure says what the later messages of a key do while one that failed waits
// for its next attempt.
type OnFailure byte

// The ways to go on after a failure.
const (
	BlockKey OnFailure = 1 // they wait with it
	SkipKey  OnFailure = 2 // they may overtake it
)

// Rate is how many messages may be handed out in a span of time, evenly spread.
type Rate struct {
	Count int // 0: any number
	Per   time.Duration
}

// spread is how long a rate may be ahead of itself, so that leaders that look at
// times hand out what was due since they looked.
const spread = 100 * time.Millisecond

// Step is how much later, by the rate, each message is than the one before.
func (r Rate) Step() time.Duration { return r.Per / time.Duration(r.Count) }

// ahead is how long before a message is due it may go out.
func (r Rate) ahead() time.Duration { return max(0, spread-r.Step()) }

// Opens is from when on there is room, when the next message is due at a time.
func (r Rate) Opens(next time.Duration) time.Duration { return next - r.ahead() }

// Room is how many messages may go out now, when the next is due at a time.
func (r Rate) Room(now, next time.Duration) int {
	if now < r.Opens(next) {
		return 0
	}
	return int((now+r.ahead()-max(next, now))/r.Step()) + 1
}

// Ends is from when on it makes no difference that the next message was due at a time.
// Until then the one that goes out is late, as timers are, and those behind it are due as
// if it were not; so late that two could go out at once, it is the first of a new row.
func (r Rate) Ends(next time.Duration) time.Duration {
	if r.Count == 0 {
		return next
	}
	return next + max(0, min(spread, r.Step()-r.ahead()))
}

// Next is when the one after n more is due, if the next was due at a time.
func (r Rate) Next(now, next time.Duration, n int) time.Duration {
	if now >= r.Ends(next) {
		next = now
	}
	return next + time.Duration(n)*r.Step()
}

// Latest is a time after which no next message is due, whatever went out by this rate
// until now. What is due later was by another rate, which counts no more.
func (r Rate) Latest(now time.Duration) time.Duration {
	if r.Count == 0 {
		return now
	}
	return now + max(spread, r.Step())
}

// WithDefaults fills in what is not set.
func (r Rate) WithDefaults() Rate {
	if r.Count > 0 && r.Per == 0 {
		r.Per = time.Second
	}
	return r
}

func (r Rate) check(what string) error {
	switch {
	case r.Count < 0 || r.Count > MaxRate:
		return Errorf(InvalidArgument, "%s is %d messages: want 1 to %d, or 0 for no limit", what, r.Count, MaxRate)
	case r.Count == 0 && r.Per != 0:
		return Errorf(InvalidArgument, "%s has a time and no number of messages", what)
	case r.Per < 0 || r.Per > MaxRatePer || r.Per%time.Millisecond != 0:
		return Errorf(InvalidArgument, "%s is per %s: want whole milliseconds up to %s", what, r.Per, MaxRatePer)
	}
	return nil
}

// Assign says which workers a queue's messages go to.
type Assign byte

// The ways to assign.
const (
	AssignAll    Assign = 1 // to all that wait
	AssignSingle Assign = 2 // to one, the others stand by
)

// Settings of a queue. The zero value of a field means its default.
type Settings struct {
	MaxAttempts     int // failed attempts before a message is dead; 0: 20, with a key 5
	MaxWorkerDeaths int // workers that died while they held a message, after which it is dead
	Backoff         Backoff
	KeepFinished    int           // finished messages that stay visible in a shard
	KeepFinishedFor time.Duration // and for how long
	MaxMessageBytes int           // largest body
	OnFailure       OnFailure
	OnExpired       ExpiredPolicy // default ExpiredDrop
	MaxInFlight     int           // messages that are leased at a time; 0: any number
	Rate            Rate          // of leases
	RatePerKey      Rate          // of leases of each key's messages
	Assign          Assign
	DeadLetterTo    string        // queue that its dead go to; empty: they stay in it
	DedupWindow     time.Duration // how long a dedup id counts; default 5 min, NoDedup: not at all
}

// WithDefaults fills in what is not set. MaxAttempts stays 0: its default
// depends on the message.
func (s Settings) WithDefaults() Settings {
	s.Backoff = s.Backoff.WithDefaults()
	if s.OnFailure == 0 {
		s.OnFailure = BlockKey
	}
	if s.Assign == 0 {
		s.Assign = AssignAll
	}
	s.Rate, s.RatePerKey = s.Rate.WithDefaults(), s.RatePerKey.WithDefaults()
	if s.MaxWorkerDeaths == 0 {
		s.MaxWorkerDeaths = DefaultWorkerDeaths
	}
	if s.KeepFinished == 0 {
		s.KeepFinished = 10_000
	}
	if s.KeepFinishedFor == 0 {
		s.KeepFinishedFor = time.Hour
	}
	if s.MaxMessageBytes == 0 {
		s.MaxMessageBytes = 1 << 20
	}
	if s.DedupWindow == 0 {
		s.DedupWindow = DefaultDedupWindow
	}
	if s.OnExpired == 0 {
		s.OnExpired = ExpiredDrop
	}
	return s
}

// Attempts is the number of failed attempts after which a message is dead. A
// keyed message blocks its key while it is retried, so it gets fewer.
func (s Settings) Attempts(keyed bool) int {
	switch {
	case s.MaxAttempts > 0:
		return s.MaxAttempts
	case keyed:
		return 5
	}
	return 20
}

// Together is the setting because of which one leader must see all messages of the
// queue, so that its shards stay in one group; empty: none.
func (s Settings) Together() string {
	switch {
	case s.MaxInFlight > 0:
		return "max_in_flight"
	case s.Rate.Count > 0:
		return "rate"
	case s.Assign == AssignSingle:
		return "assign"
	}
	return ""
}

// Check refuses settings that make no sense.
func (s Settings) Check() error {
	if s.DeadLetterTo != "" {
		if err := CheckQueueName(s.DeadLetterTo); err != nil {
			return err
		}
	}
	for _, err := range []error{
		between("max_attempts", int64(s.MaxAttempts), 0, MaxAttemptsLimit),
		between("max_worker_deaths", int64(s.MaxWorkerDeaths), 0, MaxAttemptsLimit),
		between("keep_finished", int64(s.KeepFinished), 0, MaxKeepFinished),
		between("max_message_bytes", int64(s.MaxMessageBytes), 0, MaxBody),
		between("max_in_flight", int64(s.MaxInFlight), 0, MaxInFlightLimit),
		s.Rate.check("rate"),
		s.RatePerKey.check("rate_per_key"),
		s.checkRates(),
		between("assign", int64(s.Assign), 0, int64(AssignSingle)),
		between("on_failure", int64(s.OnFailure), 0, int64(SkipKey)),
		span("keep_finished_for", s.KeepFinishedFor, MaxKeepFor),
		span("dedup_window", max(s.DedupWindow, 0), MaxDedupWindow),
		between("on_expired", int64(s.OnExpired), 0, int64(ExpiredDead)),
		s.Backoff.check(),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRates refuses a limit that nothing can reach.
func (s Settings) checkRates() error {
	all, key := s.Rate.WithDefaults(), s.RatePerKey.WithDefaults()
	if all.Count > 0 && key.Count > 0 && key.Step() < all.Step() {
		return Errorf(InvalidArgument, "rate_per_key is %d in %s, and rate lets only %d in %s of the whole queue out: no key can reach it", key.Count, key.Per, all.Count, all.Per)
	}
	return nil
}

// Equal says whether two settings mean the same.
func (s Settings) Equal(o Settings) bool {
	a, b := s.WithDefaults(), o.WithDefaults()
	la, lb := a.Backoff.List, b.Backoff.List
	a.Backoff.List, b.Backoff.List = nil, nil
	return slices.Equal(la, lb) &&
		a.MaxAttempts == b.MaxAttempts && a.MaxWorkerDeaths == b.MaxWorkerDeaths && a.KeepFinished == b.KeepFinished &&
		a.KeepFinishedFor == b.KeepFinishedFor && a.MaxMessageBytes == b.MaxMessageBytes && a.OnFailure == b.OnFailure && a.OnExpired == b.OnExpired && a.DedupWindow == b.DedupWindow &&
		a.DeadLetterTo == b.DeadLetterTo && a.MaxInFlight == b.MaxInFlight && a.Rate == b.Rate && a.RatePerKey == b.RatePerKey && a.Assign == b.Assign &&
		a.Backoff.Kind == b.Backoff.Kind && a.Backoff.Initial == b.Backoff.Initial && a.Backoff.Max == b.Backoff.Max
}
