// Package raftlog is the Raft log of all groups of a node: one log, one write
// and one sync for all groups that have something to store at a moment. It
// knows groups, entries and hard states, and nothing of what entries mean.
//
// # Files
//
// A log is a directory of slot files NNNNNN.seg of one size. A slot is filled
// with zeros and synced once, and from then on used again and again in place:
// no rename, no truncation, no directory sync, so that a sync writes data and
// no metadata. One use of a slot is a segment:
//
//	0    head   magic, format, begin, store id, generation, generation and
//	            length of the segment before, mark, checksum
//	64   seal   generation of the segment after, mark, checksum; zeros while
//	            there is none
//	128  table  of all live replicas, destroyed groups, reserved handles, and
//	            the oldest generation that is needed
//	     moved  copies of entries whose sync was in doubt (after a crash)
//	begin       batches, to the end of the slot
//
// Head and seal share a sector, which a disk writes whole or not at all.
// Generations only grow; the newest is the boot number.
//
// # Records
//
//	mark 8 | length 4 | crc32c 4 | kind 1 | payload
//
// The mark is 8 random bytes drawn for each use of a slot and bound by the head
// to store and generation. The checksum covers mark, length, offset, kind and
// payload. So neither users' bytes nor what an earlier use left behind is ever
// taken for a record of this segment, nor one at another place.
//
//	batch      offset up to which the segment was synced before this batch
//	append     group, hard state?, entries: they replace the group's suffix
//	moved      group, entries: each replaces only itself
//	created    a new replica            destroyed  group, lowest next replica id
//	reset      an installed snapshot: base, configuration, root, hard state?
//	handles    reserved up to           table      see above
//
// Numbers in payloads are varints. A group's entries are cut into records of
// about 256 KiB, the unit that is verified when one is read back.
//
// # Switch
//
// When a segment is full it is synced; the next free slot gets head and table
// and is synced; the full one is sealed and synced; only then does anything
// follow. The seal is the commit: a segment that the one before does not name
// was never in use, and a name without its segment is damage. Segments are
// freed from the oldest on, as far as no entry in them is wanted: hard states
// and replicas, however old, are in the newest table.
//
// # Open
//
// From the oldest segment that is needed to the newest all that a later head
// calls valid must be valid. In the newest, the first mismatch is a torn tail,
// unless a later batch says that the place was synced: that is damage. Close
// writes such a batch, so after a clean stop nothing passes for torn. After a
// crash the very last write cannot be told from a torn one.
//
// What is not known to be synced, which a killed process may have left in the
// page cache only, is copied into a new segment and synced before Open returns;
// syncing the old file again would prove nothing if a sync had failed before.
package raftlog
