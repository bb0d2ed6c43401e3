package layout

import "strings"

// module is the import path of the project with the slash that ends it.
const module = "github.com/comanda-mq/comanda/"

// room is one line of the plan.
type room struct {
	// name is a folder below the root. "x/*" makes each folder in x a room of
	// its own, so that siblings do not know one another.
	name string
	// may lists the rooms, or folders of rooms, that this one may import,
	// separated by spaces. A room may always import itself.
	may string
	// why is told to whoever breaks the line.
	why string
}

// rooms is the plan of the house, top floor first. A file belongs to the first
// room that its path fits. Whoever adds or moves a room changes its line here in
// the commit that needs it, and says why there.
var rooms = []room{
	{"cmd", "client api server internal/node internal/demo internal/load internal/message internal/lifecycle", "a command parses flags and calls node, server or client"},
	{"comandatest", "server client api internal/clock", "users test with a server in fake time"},
	{"server", "client api internal/node internal/clock", "a whole server in the user's process"},
	{"client", "api", "users import the SDK: it must not drag the server along"},
	{"api", "", "the contract is generated and knows nobody"},
	{"internal/demo", "client api server internal/message internal/lifecycle", "the demo is a user like any other"},
	{"internal/load", "client api internal/message internal/clock", "workloads run against a driver"},
	{"internal/node", "internal api", "the only room that knows every part"},
	{"internal/protocol/native", "api internal/message internal/metrics internal/slowlog internal/clock internal/lifecycle", "it translates between api and the verbs that it declares"},
	{"internal/protocol/*", "internal/message internal/metrics internal/slowlog internal/clock internal/lifecycle", "a protocol declares its verbs; it sees no replica, no disk and no other protocol"},
	{"internal/dashboard", "internal/message internal/metrics internal/slowlog internal/clock internal/lifecycle", "pages call verbs like any protocol"},
	{"internal/gateway", "internal/operation internal/leader internal/replica internal/catalog internal/queue internal/placement internal/liveness internal/auth internal/peer internal/message internal/metrics internal/slowlog internal/clock internal/lifecycle internal/invariant", "what every node does for clients; it holds no rows and no protocol words"},
	{"internal/operation", "internal/replica internal/catalog internal/placement internal/message internal/metrics internal/clock internal/lifecycle internal/invariant", "long jobs; they send through an interface of their own"},
	{"internal/leader", "internal/replica internal/queue internal/catalog internal/liveness internal/placement internal/message internal/metrics internal/slowlog internal/clock internal/lifecycle internal/invariant", "what only a leader does; it sends through an interface of its own"},
	{"internal/replica", "internal/raftlog internal/state internal/message internal/metrics internal/clock internal/lifecycle internal/invariant", "consensus, log and state: it knows bytes and a StateMachine, not what a command means"},
	{"internal/peer", "internal/message internal/metrics internal/clock internal/lifecycle internal/invariant", "the transport carries bytes"},
	{"internal/raftlog", "internal/message internal/metrics internal/clock internal/lifecycle internal/invariant", "the log knows bytes, not queues"},
	{"internal/state", "internal/message internal/metrics internal/clock internal/lifecycle internal/invariant", "the store knows bytes, not queues"},
	{"internal/queue", "internal/message internal/invariant", "the state machine is pure"},
	{"internal/catalog", "internal/message internal/invariant", "the state machine is pure"},
	{"internal/liveness", "internal/catalog internal/message internal/invariant", "pure: beats and times go in, verdicts on what the catalog has come out"},
	{"internal/placement", "internal/catalog internal/message internal/invariant", "pure: hashing, and planning over the catalog"},
	{"internal/auth", "internal/message internal/clock", "one Authorize for all protocols"},
	{"internal/metrics", "internal/clock", "names and samples"},
	{"internal/slowlog", "internal/clock", "whoever does a part of an operation notes it"},
	{"internal/message", "", "the dictionary is a leaf"},
	{"internal/clock", "", "a tool that knows no queue"},
	{"internal/lifecycle", "", "a tool that knows no queue"},
	{"internal/invariant", "", "pure rooms use it too"},
	{"test/conform", "client api server comandatest", "foreign clients meet the server from outside"},
	{"test", "cmd client api server comandatest internal", "tests may look everywhere"},
	{"bench", "client api server internal/load internal/message", "comparisons run the same workloads through other drivers"},
	{"examples/*", "client api server comandatest", "an example shows what users can write"},
	{"tools", "", "pinned tools, no code"},
}

// modules are the rooms with a go.mod of their own, so that what they import
// never enters the product's go.mod.
var modules = []string{"tools", "bench", "test/conform", "examples/*"}

// pure rooms compute the same on every replica: they may not read a clock,
// start a goroutine or touch the world. The dictionary is among them because
// the others call it.
var pure = []string{"internal/queue", "internal/catalog", "internal/liveness", "internal/placement", "internal/message"}

// pureImports are the packages from outside that a pure room may import.
var pureImports = strings.Fields(`
	bytes cmp container/heap container/list encoding/base64 encoding/binary encoding/json
	encoding/hex errors fmt hash hash/crc32 hash/fnv iter maps
	math math/bits slices sort strconv strings time unicode unicode/utf8
	crypto/hmac crypto/sha256 crypto/subtle github.com/dchest/siphash`)

// clockWords are the words of package time that read or wait for the machine's
// clock or its time zone files.
var clockWords = strings.Fields("Now Since Until Sleep After AfterFunc NewTimer NewTicker Tick Timer Ticker Local LoadLocation")
