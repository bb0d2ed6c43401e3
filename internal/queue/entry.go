package queue

import (
	"encoding/binary"
)

// Command is one encoded command: its head, and its bodies apart, so that they
// are copied once, into the entry.
//
//	head: type (1) | lane (1) | what the lane says | fields
type Command struct {
	Head   []byte
	Bodies [][]byte
}

// An entry is what the leader puts into the log: commands that met in one
// moment, and the leader's clocks, because replicas never read one.
//
//	format (1) | flags (1) | group time | wall time | number of commands
//	per command: type (1) | lane (1) | length | what the lane says | fields
//	number of bodies | their lengths | the bodies
//
// Bodies come last and are named by their ordinal, so whoever does not need
// them need not pass over them.
const entryFormat = 1

// How a command is numbered by its sender.
const (
	laneNone     = 0 // not at all: a lone voter with its gateway in the process
	laneNumbered = 1 // node | boot | seq | floor
)

// Command types. The numbers are in every log: they are never used again.
const (
	cmdSend          = 1
	cmdLease         = 2
	cmdSettle        = 3
	cmdExpire        = 4
	cmdWake          = 5
	cmdRedrive       = 6
	cmdConfigure     = 7
	cmdDrop          = 8
	cmdTick          = 9
	cmdReleaseLeases = 10
	cmdExpireSession = 11
	cmdForget        = 12
	cmdSplit         = 13
	cmdSpinOff       = 14
	cmdPurge         = 15
	cmdCancel        = 16
	cmdRedriveSome   = 17
	cmdDeliver       = 18
	cmdDelivered     = 19
	cmdSendAtomic    = 20
	cmdSettleSend    = 21
)

// AppendEntry joins commands to one entry. groupTime and wall are milliseconds.
// C is Command under any name: the host of the replica carries it under its own.
func AppendEntry[C ~struct {
	Head   []byte
	Bodies [][]byte
}](b []byte, groupTime, wall int64, joined []C) []byte {
	b = append(b, entryFormat, 0)
	b = putInt(putInt(b, groupTime), wall)
	b = binary.AppendUvarint(b, uint64(len(joined)))
	bodies := 0
	for _, j := range joined {
		c := Command(j)
		b = append(b, c.Head[0], c.Head[1])
		b = putString(b, c.Head[2:])
		bodies += len(c.Bodies)
	}
	b = binary.AppendUvarint(b, uint64(bodies))
	for _, j := range joined {
		c := Command(j)
		for _, body := range c.Bodies {
			b = binary.AppendUvarint(b, uint64(len(body)))
		}
	}
	for _, j := range joined {
		c := Command(j)
		for _, body := range c.Bodies {
			b = append(b, body...)
		}
	}
	return b
}

// entry is a decoded entry.
type entry struct {
	groupTime, wall int64
	commands        decoder // n commands
	n               int
	bodies          [][]byte
}

// decodeEntry checks the frame of an entry; the commands are read as they are
// applied.
func decodeEntry(b []byte, bodies [][]byte) (e entry, err error) {
	d := decoder{b: b}
	if d.byte() != entryFormat || d.byte() != 0 {
		d.fail()
	}
	e.groupTime, e.wall = d.int(), d.int()
	e.n = d.count(3)
	e.commands.b = d.b
	for range e.n {
		d.byte()
		d.byte()
		d.bytes()
	}
	e.commands.b = e.commands.b[:len(e.commands.b)-len(d.b)]
	n := d.count(1)
	lengths := d
	for range n {
		d.uint()
	}
	for range n {
		bodies = append(bodies, d.take(lengths.uint()))
	}
	e.bodies = bodies
	return e, d.end("an entry")
}

// Tick stamps group time where nothing else does.
func Tick() Command { return Command{Head: []byte{cmdTick, laneNone}} }

// AppendCommand writes a command for another node.
func AppendCommand(b []byte, c Command) []byte {
	b = putString(b, c.Head)
	b = binary.AppendUvarint(b, uint64(len(c.Bodies)))
	for _, body := range c.Bodies {
		b = putString(b, body)
	}
	return b
}

// DecodeCommand reads what AppendCommand wrote. The command's parts are parts of
// b. It reads the whole command, because one that Apply can't read would stop
// every replica of the group.
func DecodeCommand(b []byte) (Command, error) {
	d := decoder{b: b}
	c := Command{Head: d.bytes()}
	for range d.count(1) {
		c.Bodies = append(c.Bodies, d.bytes())
	}
	if err := d.end("a command"); err != nil {
		return Command{}, err
	}
	if err := c.check(); err != nil {
		return Command{}, err
	}
	return c, nil
}

// check reads a command as Apply will.
func (c Command) check() error {
	d := decoder{b: c.Head}
	kind, bodies := d.byte(), 0
	switch d.byte() {
	case laneNone:
	case laneNumbered:
		decodeLane(&d)
	default:
		d.fail()
	}
	switch kind {
	case cmdSend, cmdSendAtomic:
		bodies = skipSend(&d)
	case cmdLease:
		(&Lease{}).decode(&d)
	case cmdSettle, cmdSettleSend:
		bodies = skipSettle(&d, kind)
	case cmdExpire, cmdReleaseLeases:
		decodeLeaseRefs(&d)
	case cmdWake:
		(&Wake{}).decode(&d)
	case cmdRedrive:
		(&Redrive{}).decode(&d)
	case cmdDeliver:
		(&Deliver{}).decode(&d)
	case cmdDelivered:
		(&Delivered{}).decode(&d)
	case cmdRedriveSome:
		(&RedriveSome{}).decode(&d)
	case cmdCancel:
		(&Cancel{}).decode(&d)
	case cmdConfigure:
		(&Configure{}).decode(&d)
	case cmdDrop, cmdPurge:
		d.uint()
	case cmdTick:
	case cmdExpireSession:
		(&ExpireSession{}).decode(&d)
	case cmdForget:
		(&Forget{}).decode(&d)
	case cmdSplit:
		(&Split{}).decode(&d)
	case cmdSpinOff:
		(&SpinOff{}).decode(&d)
	default:
		d.fail()
	}
	if bodies != len(c.Bodies) {
		d.fail()
	}
	return d.end("a command")
}

// skipSend reads a Send and returns how many bodies are its own.
func skipSend(d *decoder) (bodies int) {
	d.uint()
	n := d.count(minSent)
	for range n {
		(&Sent{}).decode(d)
	}
	return n
}

// skipSettle reads a Settle, likewise.
func skipSettle(d *decoder, kind byte) (bodies int) {
	for range d.count(minSettlement) {
		var s settlement
		s.decode(d, kind)
		bodies += len(s.followUps)
	}
	return bodies
}
