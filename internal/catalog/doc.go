// Package catalog says what exists and where: the cluster, its nodes, its
// groups with their replicas, its queues with their settings and range tables,
// its workers' sessions and its operations. It is the state machine of the meta
// group, a pure function of rows and entries, and an immutable View that
// everybody reads. Nodes without a replica of the meta group follow it by
// updates (Since, Follow).
//
// The catalog holds what is wanted and what is known to be so; others bring the
// one to the other. A decision is a compare-and-set (epochs, steps, boot
// numbers), so that whoever decides from an older View is refused with CONFLICT
// and looks again; a repeat after an answer was lost changes nothing.
//
// Entries and rows are JSON: they are few and small, people read them when
// something is wrong, and Go writes a struct's fields in one order. A field or
// command that a binary does not know stops it, because passing over it would
// make its copy differ from the others.
package catalog
