// Package liveness decides who is alive: one monitor for nodes and for workers'
// sessions, run by the leader of the meta group. Gateways carry what they hear
// from workers to it in bundles; a bundle is its node's own beat as well. The
// monitor is a pure state machine: beats and times go in, commands for the
// catalog come out.
//
//	what a session shows                              it is dead
//	goodbye                                           at once
//	connection lost, and no higher attachment since   after 1 s (on_disconnect: wait: see silence)
//	silence                                           after its TTL
//
//	what a node shows                                 it is
//	silence of 3 s · 10 s · 10 min                    suspect · down · removed
//	a beat, while not removed                         alive
//
// A beat is answered in two steps, so that no deposed leader answers: Beat takes
// it in; then the caller confirms by a ReadIndex that it still leads, one for
// all beats that wait; then Answer says which may be answered. From the moment a
// death is proposed an incarnation gets no answer. A worker stops by itself
// 0.8 × TTL after it sent the newest beat that was answered; the monitor counts
// the TTL from a later moment, when it heard it, so the worker is first. Nobody
// compares two machines' clocks.
//
// The monitor counts the time that it has watched: its own pause expires nobody,
// because at most 500 ms of it count. A new leader has watched nobody yet, so
// everybody has a fresh TTL.
package liveness
