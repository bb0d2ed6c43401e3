// Package replica is the host of a node's replicas: many Raft groups over one
// log (raftlog) and one store of rows (state). It knows bytes and a
// StateMachine, not what a command means.
//
// # One loop, and a worker for each group
//
//	Propose, ReadIndex, Receive          (any goroutine; bounded boxes)
//	        │ mark the group, wake the loop
//	        ▼
//	loop    messages and ticks → one entry of all that waits → Ready of every
//	        marked group → committed entries that the disk has to the workers →
//	        ONE write and sync of the log for all groups → messages →
//	        the rest of the committed entries → Advance
//	        │ committed entries; bounded in bytes and count
//	        ▼
//	worker  Apply → one state batch with the applied row → results, readers
//
// While the log syncs, commands pile up and become the next entry, and the
// workers apply what the last sync made durable. Nothing in the loop waits for a
// worker: a group whose worker is full is left alone, with its messages, ticks
// and commands in their boxes, until the worker has caught up. Advance
// therefore means 'handed over', and these guards are the host's own: a
// configuration change is applied before Advance, a replica whose worker is
// behind does not campaign, and a read waits for the worker's index.
//
// A disk that stalls holds the whole loop, heartbeats and all, so that other
// nodes elect other leaders (no separate goroutine keeps a dead leader's
// followers quiet).
//
// # Snapshots
//
// A follower that needs entries which the log has forgotten, and a replica that
// was created with nothing, get the rows themselves:
//
//	leader    raft asks for a snapshot: a view of the rows, as of one applied
//	          index, is opened; beside the loop it is read and sent, at a bounded
//	          rate; the log is kept from its index on, to twice its budget, and
//	          proposals are slowed before it is full (pace.go); raft hears how
//	          it went
//	receiver  rows → tables under fresh handles → one ingest, durable → log
//	          record 'reset', synced → the replica begins anew at the snapshot, as
//	          after a restart, with a new Group and a new StateMachine → raft is
//	          given the message and answers → the old rows are deleted
//
// Raft itself never installs one: a replica that begins anew needs no second
// way into a state that a restart can reach as well.
//
// # Spin-off
//
// An entry can make a new group of some of the spaces, with a replica beside
// each of the group's own: no row is touched, for their handles change hands.
//
//	entry     the spaces, the new replica's first rows and its applied row, and
//	          a row that leads to it from the old group's root: one batch → flush
//	          → log record 'created' (or 'reset', if an empty one waits here),
//	          synced → it takes part → it has committed an entry of its own, so
//	          a majority has its rows: the row that led to it is deleted, and the
//	          old group's log may forget the entry
//	start     a row that leads to a replica without a record → the record
//
// All replicas of the new group begin where the old one's log stood, with the same
// rows, so any majority of them that has come so far can elect a leader.
//
// # What a proposer learns
//
// APPLIED: done gets the command's result. NOT_APPLIED: the error's code is
// NotLeader, Unavailable, ResourceExhausted or TooLarge, and the command will
// never be applied. UNKNOWN: the code is UnknownOutcome; it may have been or may
// yet be. That an entry was overwritten in this replica's log proves nothing;
// another entry committed at its index does, or one of a later term before it.
package replica
