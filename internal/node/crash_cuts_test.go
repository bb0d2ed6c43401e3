//go:build !race

package node

// defaultCuts is how many power cuts TestCrashClones makes by itself.
const defaultCuts = 2_000
