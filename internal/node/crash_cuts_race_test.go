//go:build race

package node

// defaultCuts is less with the race detector, which makes each ten times as
// long.
const defaultCuts = 200
