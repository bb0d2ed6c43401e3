package queue

// MaxDedups is how many dedup ids a cell remembers, MaxPaced how many keys have a pace,
// MaxInboxes from how many cells messages come to it.
const (
	MaxDedups  = maxDedups
	MaxPaced   = maxPaced
	MaxInboxes = maxInboxes
)

// CountDedups lets a cell count n dedup ids, which would take long to send.
func (m *Machine) CountDedups(queue uint32, cell int, n uint64) { m.cell(queue, cell).dedups = n }

// DescribeRow is Describe for a row that reads; damage is a panic.
var DescribeRow = describe

// CountPaced lets a cell count n keys that have a pace.
func (m *Machine) CountPaced(queue uint32, cell int, n uint64) { m.cell(queue, cell).paced = n }

// CountInboxes lets a cell count n cells that messages have come from.
func (m *Machine) CountInboxes(queue uint32, cell int, n int64) { m.cell(queue, cell).inboxes = n }
