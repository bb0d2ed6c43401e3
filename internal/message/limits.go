package message

import "time"

// Limits of what a client may ask for. Everything above is refused before
// anything is stored.
const (
	MaxQueueName      = 80  // bytes
	MaxKey            = 256 // bytes
	MaxType           = 128 // bytes
	MaxDedupID        = 256 // bytes; of a unique key as well
	MaxTenant         = 256 // bytes
	MaxDedupWindow    = 7 * 24 * time.Hour
	MaxWorker         = 256      // bytes
	MaxAttributes     = 32       // a message
	MaxAttributeName  = 128      // bytes
	MaxAttributeBytes = 64 << 10 // names and values of one message together
	MaxErrorText      = 1 << 10  // bytes of an attempt's error; longer ones are cut
	MaxWorkQueues     = 16       // of one worker
	MaxSlots          = 10_000   // messages that a worker handles at a time
	MaxBatch          = 1_000    // messages or settlements in one call
	MaxPerKey         = 100      // messages of one key in one lease
	MaxFollowUps      = 16       // messages that are sent with one ack
	MaxBatchBytes     = 16 << 20 // of one send call
	MaxBody           = 16 << 20 // highest value of Settings.MaxMessageBytes
	MaxEntryBytes     = 1 << 20  // of one log entry, unless a single message is larger
	MessageOverhead   = 128      // bytes that a message counts besides its body
	MaxDelay          = 10 * 365 * 24 * time.Hour
	MaxWait           = 60 * time.Second
	MinLease          = time.Second
	MaxLease          = 12 * time.Hour
	DefaultLease      = 30 * time.Second
	MaxAttemptsLimit  = 1_000     // highest value of Settings.MaxAttempts
	MaxInFlightLimit  = 250_000   // highest value of Settings.MaxInFlight
	MaxRate           = 1_000_000 // highest count of a Rate
	MaxRatePer        = 24 * time.Hour
	MaxPriority       = 9
	MaxKeepFinished   = 1_000_000
	MaxKeepFor        = 30 * 24 * time.Hour
	MaxBackoffList    = 32
	MaxExamined       = 10_000  // rows that one call of a list looks at
	MaxListedQueues   = 100     // and queues
	MaxHistory        = 20      // attempts of one message that are remembered
	MaxQueues         = 1 << 18 // in one cluster; the catalog of so many fits one answer between nodes
	Cells             = 16      // equal ranges of points that a queue starts with (design 3)
	MaxSequence       = 1 << 50 // a shard's counter; at the end sends and leases are refused
)
