package message

import "time"

// What the verbs of a gateway take and answer. Every protocol speaks them.

// SendResult is the answer for one message of a send: an id, or why it was not
// stored. Existing: the id is that of an earlier message, which this one repeats or
// whose unique key it has; nothing was stored.
type SendResult struct {
	ID       ID
	Existing bool
	Err      *Error
}

// SettleResult is the answer for one settlement.
type SettleResult struct {
	AlreadyDone bool  // acked before: nothing changed, and all is well
	State       State // in which the message is now; 0 if it is not known
	FollowUps   []ID  // that were sent with it, also if that was before
	Err         *Error
}

// ReceiveOptions say what a receiver takes.
type ReceiveOptions struct {
	Max     int           // 1 to MaxBatch
	PerKey  int           // of one key, which are handled in order; 0 to MaxPerKey, 0: one
	Wait    time.Duration // for a first message; 0 to MaxWait
	Lease   time.Duration // MinLease to MaxLease; with a session 0: the leases last as long as it does
	Worker  string        // in histories
	Session SessionRef    // that the leases are bound to; zero: none
}

// Check refuses options out of bounds.
func (o *ReceiveOptions) Check() error {
	if o.Max < 1 || o.Max > MaxBatch {
		return Errorf(InvalidArgument, "max is %d: want 1 to %d", o.Max, MaxBatch)
	}
	if o.PerKey < 0 || o.PerKey > MaxPerKey {
		return Errorf(InvalidArgument, "max_per_key is %d: want 0 to %d", o.PerKey, MaxPerKey)
	}
	if o.Wait < 0 || o.Wait > MaxWait {
		return Errorf(InvalidArgument, "wait is %s: want 0s to %s", o.Wait, MaxWait)
	}
	bound := o.Session != SessionRef{}
	switch {
	case bound && o.Lease != 0:
		return Errorf(InvalidArgument, "lease is %s: the leases of a session have no deadline", o.Lease)
	case !bound && (o.Lease < MinLease || o.Lease > MaxLease):
		return Errorf(InvalidArgument, "lease is %s: want %s to %s", o.Lease, MinLease, MaxLease)
	}
	return CheckWorkerName(o.Worker)
}

// Limits of the time after which a silent worker is taken for dead.
const (
	MinTTL     = 5 * time.Second
	MaxTTL     = 5 * time.Minute
	DefaultTTL = 10 * time.Second
)

// SessionOptions say which session one stream of a worker opens or takes up.
type SessionOptions struct {
	Worker      string        // its name; needed
	Incarnation uint64        // of the worker's process; grows with each of its starts, from 1
	Attachment  uint64        // of the stream; grows with each of an incarnation's, from 1
	TTL         time.Duration // MinTTL to MaxTTL
	// Wait: a broken connection alone does not end the session before its TTL.
	Wait bool
	// What the worker tells of itself, for people.
	Queues []string // up to MaxWorkQueues
	Slots  int      // up to MaxSlots; 0: not told
}

// Check refuses options out of bounds.
func (o *SessionOptions) Check() error {
	switch {
	case o.Worker == "":
		return Errorf(InvalidArgument, "a session needs the worker's name")
	case o.Incarnation == 0 || o.Attachment == 0:
		return Errorf(InvalidArgument, "incarnation %d, attachment %d: a session's both count from 1", o.Incarnation, o.Attachment)
	case o.TTL < MinTTL || o.TTL > MaxTTL:
		return Errorf(InvalidArgument, "ttl is %s: want %s to %s", o.TTL, MinTTL, MaxTTL)
	case o.Slots < 0 || o.Slots > MaxSlots:
		return Errorf(InvalidArgument, "slots is %d: want 0 to %d", o.Slots, MaxSlots)
	case len(o.Queues) > MaxWorkQueues:
		return Errorf(InvalidArgument, "%d queues: want up to %d", len(o.Queues), MaxWorkQueues)
	}
	for _, q := range o.Queues {
		if err := CheckQueueName(q); err != nil {
			return err
		}
	}
	return CheckWorkerName(o.Worker)
}

// SessionRef names one incarnation of a worker's session.
type SessionRef struct{ ID, Incarnation uint64 }

// Attachment is one stream's hold on a session. Its methods return at once and
// may be called from many goroutines.
type Attachment interface {
	Session() SessionRef
	// Beat passes on a heartbeat; numbers grow.
	Beat(number uint64)
	// Claim passes on what the worker holds; leases that no two claims in a row
	// name are released.
	Claim(tokens []Token)
	// Answered has room for one: the newest beat that the monitor has answered.
	Answered() <-chan uint64
	// Cancelled has room for one: the tokens of claimed leases whose messages are to
	// be cancelled.
	Cancelled() <-chan []string
	// Draining is closed when the worker is to finish what it holds: nothing more is
	// handed out to it.
	Draining() <-chan struct{}
	// Ended is closed when the session is over, or a newer attachment has taken it
	// up.
	Ended() <-chan struct{}
	// Err says why, once Ended is closed: SESSION_ENDED, or CONFLICT for a newer
	// attachment.
	Err() error
	// Close says that the stream has ended. Without a goodbye the monitor is told of
	// a broken connection.
	Close(goodbye bool)
}

// Delivery is a message that was leased to a receiver.
type Delivery struct {
	ID         ID
	Token      string // settles the lease
	Queue      string
	Key        string
	Type       string
	Tenant     string
	Attributes []Attribute
	Body       []byte
	Attempt    int // failed ones + 1
	Deliveries int // leases, this one counted
	Fence      uint64
	SentAt     time.Time
	Lease      time.Duration
}

// CancelOptions say what becomes of a message that is leased when it is cancelled.
type CancelOptions struct {
	Force bool          // its lease ends, if its worker does not give it back
	Grace time.Duration // after so long; 0 to MaxGrace
}

// MaxGrace is the longest that a worker may keep what is cancelled by force.
const MaxGrace = time.Hour

// Check refuses options out of bounds.
func (o *CancelOptions) Check() error {
	switch {
	case o.Grace < 0 || o.Grace > MaxGrace:
		return Errorf(InvalidArgument, "grace is %s: want 0s to %s", o.Grace, MaxGrace)
	case o.Grace > 0 && !o.Force:
		return Errorf(InvalidArgument, "grace is for force only: without it the worker has all the time it needs")
	}
	return nil
}

// ReadOptions say what a read is content with.
type ReadOptions struct {
	// Stale is how old the answer may be, 0 to MaxStale; 0: it holds all that was
	// confirmed before the read. Any replica answers.
	Stale time.Duration
}

// MaxStale is the oldest that an answer may be.
const MaxStale = time.Minute

// Check refuses options out of bounds.
func (o *ReadOptions) Check() error {
	if o.Stale < 0 || o.Stale > MaxStale {
		return Errorf(InvalidArgument, "stale is %s: want 0s to %s", o.Stale, MaxStale)
	}
	return nil
}

// Freshness tells how new an answer is, and who gave it.
type Freshness struct {
	ServedBy string
	Role     string // leader, follower
	Age      time.Duration
}

// Event is one line of a timeline.
type Event struct {
	At      time.Time
	Event   string // sent, leased, acked, nacked, rejected, released, expired, dead, redriven, worker_lost, lapsed, cancelled, moved, undelivered
	Worker  string
	Attempt int
	Error   string
	// From and To are the queues of what was moved; empty: deleted since, not known, or not to be
	// read by who asks.
	From, To string
}

// Shown is what is known of a message.
type Shown struct {
	ID           ID
	Queue        string
	Shard        string
	State        State
	Reason       string // why it is not running now, in words
	Key          string
	Type         string
	Tenant       string
	Attributes   []Attribute
	Body         []byte
	BodySize     int
	Attempts     int
	Deliveries   int
	WorkerDeaths int
	SentAt       time.Time
	ReadyAt      time.Time // scheduled: about when
	Expires      time.Time // zero: never
	Worker       string    // leased: who holds it
	LastError    string
	Priority     int
	DedupID      string
	UniqueKey    string
	Retry        *Retry  // its own
	Timeline     []Event // only from show
}

// AllQueues is the name under which a list asks every queue. No queue can have it.
const AllQueues = "*"

// ListOptions say which messages to list.
type ListOptions struct {
	State  State     // 0: ready ones or, with a key, all that have not ended
	Key    string    // empty: any, and messages without one
	Type   string    // empty: any
	Tenant string    // empty: any
	Since  time.Time // sent then or later; zero: at any time
	Until  time.Time // sent before then; zero: at any time
	Max    int       // 1 to MaxBatch
	Page   string    // from the answer before
	ReadOptions
}

// Check refuses options that can't be meant.
func (o *ListOptions) Check() error {
	switch {
	case o.Max < 1 || o.Max > MaxBatch:
		return Errorf(InvalidArgument, "max is %d: want 1 to %d", o.Max, MaxBatch)
	case !o.Until.IsZero() && !o.Since.Before(o.Until):
		return Errorf(InvalidArgument, "until is %s, which is not after since: no message can be meant", o.Until.UTC().Format(time.RFC3339))
	}
	if err := CheckKey(o.Key); err != nil {
		return err
	}
	if err := checkText("type", o.Type, MaxType); err != nil {
		return err
	}
	return checkText("tenant", o.Tenant, MaxTenant)
}

// ListPlan tells what a list cost.
type ListPlan struct {
	Index  string // what it went by: arrival, time, lease, dead, finished or key
	Rows   int    // of the index, that were looked at: MaxExamined at the most
	Queues int    // that were asked
	Reads  int    // of groups
}

// Listed is a page of a list. It may have fewer messages than were asked for, or
// none, and another page, when so many rows were looked at that it had to end.
type Listed struct {
	Messages []Shown
	NextPage string // empty at the end
	Plan     ListPlan
	Freshness
}

// QueueInfo is a queue as its users see it.
type QueueInfo struct {
	Version  uint64 // grows with each change of the queue
	Name     string
	Settings Settings // with defaults filled in
	Paused   bool
	Shards   int

	// Only where one queue was asked for.
	Counts    Counts
	Receivers Receivers
	Totals    Totals
	OldestAge time.Duration // of the messages that may go out; 0: none may
	// Leaving are on their way to other queues: follow-ups, which no count has, and
	// dead letters, which are counted as dead as well.
	Leaving int64
	Pauses  []Pause // of the queue, as far as that was noted, and of keys and tenants
}

// Receivers are those who receive from a queue.
type Receivers struct {
	Waiting int       // how many wait for messages now
	Busy    int       // workers that hold some of a replica set
	Last    time.Time // when one last waited or asked; zero: none did, that the leader knows
}

// ShardInfo is a shard as its users see it.
type ShardInfo struct {
	ID        string // QUEUE/PATH
	Queue     string
	From, To  uint64 // points, both included
	Group     uint64
	Leader    string
	Followers []string
	Counts    Counts
}

// Preferred is a worker that keys of a queue prefer.
type Preferred struct {
	Worker string
	Share  float64 // how much of the keys, 0 to 1
}

// ShardOwners are the nodes that have a shard and the workers that its keys
// prefer.
type ShardOwners struct {
	ShardInfo // without counts
	Workers   []Preferred
}

// Location is where a key's messages are.
type Location struct {
	Hash      uint64
	Shard     string
	Group     uint64
	Leader    string
	Followers []string
}

// GroupInfo is a replica set as a server sees it.
type GroupInfo struct {
	Group   uint64
	Leader  string
	Term    uint64
	Applied uint64
	// Voters and Learners there are now, AliveVoters of the voters on nodes that
	// are alive; WantedVoters are to be. While the voters change, AliveVoters counts
	// the old ones or the new ones, whichever fewer are alive.
	Voters, Learners, WantedVoters, AliveVoters int
}

// WorkerInfo is a worker's session as its users see it.
type WorkerInfo struct {
	Worker  string
	Session uint64
	State   string        // alive, draining, suspect or dead
	Reason  string        // why it is suspect or dead
	Silent  time.Duration // since it was heard last, or has been watched; 0: it is dead
	Holds   int           // messages that are leased to it
	Queues  []string
	Slots   int
	Node    string // to which it is connected
	TTL     time.Duration
}

// ListedWorkers is a page of a list of workers.
type ListedWorkers struct {
	Workers   []WorkerInfo
	NextPage  string   // empty at the end
	Unreached []uint64 // groups that could not be asked: what is held there is not counted
}

// Behind is a replica that has lacked much of its group's log for a while, or was
// not heard of, as the group's leader knows.
type Behind struct {
	Group   uint64
	Entries uint64 // that it lacks, as far as is known
	Since   time.Time
	Why     string // one of the below
	Leader  string // the node that says so
}

// Why a replica is behind.
const (
	BehindSilent   = "silent"   // its leader does not hear from it
	BehindSnapshot = "snapshot" // it needs a snapshot, or is being sent one
	BehindSlow     = "slow"     // it takes entries, and lacks too many
)

// NodeInfo is a node as its users see it.
type NodeInfo struct {
	ID        uint64
	Name      string
	State     string // alive, suspect or down
	Draining  bool   // it is to hold nothing
	ClockOff  bool   // its wall clock is far from the others': it is to lead nothing
	Boot      uint64 // how often its data directory was started
	Labels    map[string]string
	Listen    string // where clients reach it
	Advertise string // where other nodes reach it
	Version   string
	Replicas  int // groups that it has a replica of
	Leads     int // groups that it leads
	// Behind are those of its replicas that do not keep up, by group; at most 100.
	Behind []Behind
}

// OperationInfo is an operation as its users see it.
type OperationInfo struct {
	ID    uint64
	Kind  string
	Title string // what it does, in words
	State string // running, cancelling, paused, done, failed or cancelled
	Step  string
	Waits string // for what the step waits, in words
	Err   *Error // why it failed
	By    string // who began it
	// ChangedBy is who last paused it, let it go on or cancelled it; empty: nobody did.
	ChangedBy string
	Rate      int    // of a redrive: messages a second; 0: as fast as it goes
	To        string // node of a move, queue that a redrive's messages are to live in; empty: where they are
	// Of a redrive: messages that it chose before it began, has revived, and has
	// passed over because they were not dead any more or can't live.
	Chosen, Redriven, Skipped int64
	CreatedAt                 time.Time
	ChangedAt                 time.Time
}

// ServerInfo is what a server tells of itself.
type ServerInfo struct {
	Version   string
	ClusterID string
	Node      string
	Listen    string
	DataDir   string
	StartedAt time.Time
	Now       time.Time
	Voters    int
	Groups    []GroupInfo

	DiskFree, DiskTotal, DiskReserve uint64 // bytes
	BelowReserve                     bool
	FsyncP50, FsyncP99               time.Duration
	MemoryLimit, MemoryUsed          uint64 // bytes
}
