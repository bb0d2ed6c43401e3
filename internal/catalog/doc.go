// Package catalog says what exists and where: the cluster, its nodes, its
// groups with their replicas, and its queues with their settings and range
// tables. It is the state machine of the meta group, a pure function of rows
// and entries, and an immutable View that everybody reads.
//
// Entries and rows are JSON: they are few and small, people read them when
// something is wrong, and Go writes a struct's fields in one order. A field or
// command that a binary does not know stops it, because passing over it would
// make its copy differ from the others.
package catalog
