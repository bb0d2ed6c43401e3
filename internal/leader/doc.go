// Package leader is what only the leader of a group does: it stamps time into
// entries, keeps the messages that may go out in a window, hands them to the
// receivers that wait, ends leases whose deadline passed, wakes what is due,
// and brings the catalog's settings into its group.
//
// It decides nothing that counts: it proposes, and queue.Apply checks. It holds
// nothing that a new leader can't build again from the rows: Lead does so, after
// an entry of the new term was applied, and Follow forgets it.
package leader
