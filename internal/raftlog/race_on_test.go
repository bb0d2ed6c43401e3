//go:build race

package raftlog

// racing says that the race detector is on, which makes each of the many logs that are
// opened take ten times as long: there are fewer then. .ci/run runs all without it.
const racing = true
