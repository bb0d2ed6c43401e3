// Package message is the dictionary of the house: the words that every room
// uses for queues, messages and what can go wrong with them. It holds names,
// ids, tokens, settings, limits and error codes, and no behaviour but how they
// are checked and written down.
package message
