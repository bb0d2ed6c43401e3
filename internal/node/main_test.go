package node

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// smallSegment is the size of a file of the log, and of a table of rows in memory. A
// file of the log is filled with zeros before it is used: in memory, with the race
// detector, that took most of the time of most tests.
const smallSegment = 256 << 10
