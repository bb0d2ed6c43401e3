// Package placement chooses: which nodes hold a group, which of them leads it,
// which worker gets a key's messages. All of it is weighted rendezvous hashing
// with bounded load: every member has a score for every key, the highest one
// gets it, unless it has more than 1.25 of its share already; then the next one
// does. So who joins takes about its share from all others, who leaves gives its
// share to all others, and nothing else moves.
//
// What is chosen for groups is recorded in the catalog, and the record counts:
// Plan compares it with what there should be and says the next changes, few at a
// time. Nobody computes a group's place from the nodes there are.
package placement
