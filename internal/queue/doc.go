// Package queue is the life of a message: a pure function from a group's rows
// and an entry of its log to new rows and answers. It has no clock, no
// randomness, no goroutine and no map order in it, so every replica and every
// replay reaches the same rows.
//
//	         send                lease                 ack
//	──────────────▶ ready ───────────────▶ leased ───────────────▶ finished
//	   │              ▲ ▲                   │ │ │
//	   │ delay   wake │ │ release, expiry   │ │ │ nack: attempts used up, reject
//	   └─▶ scheduled ─┘ └───────────────────┘ │ └───────▶ dead ─── redrive ──▶ ready
//	           ▲         nack, release: delay │
//	           └──────────────────────────────┘
//
// A message is in one state, and its state and lease change in one entry. What
// decides is, in this order: the state row if there is one; a lease row: it is
// leased for the first time; a due time in its head: it is scheduled; else it
// is ready. So a message that is sent, leased and acked once never has a state
// row.
//
// A message that waits ends by itself when its time passes (expires): it is expired,
// which is a header among the finished ones, or dead, as its queue wants it.
//
// # The line of a key
//
// Unsettled messages of a key stand in a line, by sequence number. Only the head
// of the line may be handed out, and only while no message of the key is leased
// (the line's row says both) and the key does not rest (pace.go). One invariant carries
// this: a message has a ready row exactly if it is ready, unkeyed or head of its line, and
// its key is not locked and does not rest. Whatever changes one of these restores the invariant in the same
// entry (offer, advance, withdraw). A lease may take later messages of the line along, to
// the same holder (batch.go); they are given back before an earlier one of them comes
// back. Where a queue lets later messages overtake one
// that failed, that one leaves the line until its next attempt is due.
//
// # Who chooses
//
// Nothing is chosen here. The leader names (message, state counter); Apply
// checks that the ready row with that counter is there and swaps it for a
// lease row. So strategies of dispatch change without a change of the format.
//
// # Who holds
//
// A lease is held until a deadline, or by a session. A session is attached to
// the group by its first lease and ended by an entry that compares the group
// with the catalog; from that entry on its leases settle nothing, and others end
// them, some at a time, as the worker's loss and not as failed attempts. The
// group keeps the highest version of the catalog that it has heard of and
// attaches nothing that was looked up in an older one, so a late request can't
// bring a dead session back.
//
// # What changes hands
//
// Ownership is checked here, for each cell that a command names: a shard is
// split by one entry, and whoever asks the wrong group is told so.
//
// A shard is spun off into a group of its own likewise: from one entry on all
// that it holds is there, under the same ids, tokens and counters.
//
// # What an ack sends
//
// An ack may have follow-ups, messages that are sent in its entry or not at all: those
// whose cell is in this group are there with it, others leave by the outbox.
//
// # What comes twice
//
// A command with a lane is applied once: its answer is kept until its sender has
// heard it.
package queue
