// Package state keeps the rows of every replica of a node in one Pebble store
// without a write-ahead log: the Raft log is the log. A crash falls back to the
// last flush, and the entries after it are applied again.
//
// # Spaces and handles
//
// A replica's rows lie in spaces: space 0 is its own, every other one holds the
// rows of one cell. On a node a space has a handle, a number that is never used
// again there, and every key begins with it:
//
//	handle (8 bytes, big-endian) | key
//
// Space 0 has the root handle, which the log's table of replicas names. Under
// it lie, set apart by one byte, the host's own rows and the space's:
//
//	root | 0 | 'a'          → the applied row
//	root | 0 | 's' | space  → handle
//	root | 0 | 'o' | child  → root of a child that was not taken yet
//	root | 1 | key          → a row of space 0
//
// The rows of an entry, the applied row and the handles of new spaces commit in
// one batch, so a replay after a crash may choose other handles. What no root
// reaches is deleted at start (Sweep).
package state
