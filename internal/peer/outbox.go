package peer

import "sync"

// outbox is what waits to be written to one connection: whole frames, one after
// another, which the connection's writer takes all at once.
//
// Frames are copied in, so that nobody waits for the network to get a buffer
// back and one write carries many of them.
type outbox struct {
	mu       sync.Mutex
	work     sync.Cond // something waits, or closed
	room     sync.Cond // something was written, or closed
	waiting  []byte
	spare    []byte // the buffer that was written last
	writing  int    // bytes that the writer has taken and not written yet
	messages int    // among what waits
	taken    uint64 // bytes taken so far: what lies below may have left
	quiet    int    // ticks since the writer took anything
	err      error  // why it is closed; nothing is added or taken any more
}

// keptBuffer is how large a buffer is kept in any case. A larger one is kept
// while it is used well: the first ping after a burst lets go of it.
const keptBuffer = 1 << 20

func (o *outbox) init() {
	o.work.L, o.room.L = &o.mu, &o.mu
}

// fitsLocked says whether n more bytes may wait.
func (o *outbox) fitsLocked(n int) bool {
	return len(o.waiting)+o.writing+n <= MaxQueued
}

// addLocked appends a frame whose payload is the parts, and returns its place
// in the stream of bytes.
func (o *outbox) addLocked(k kind, id uint64, parts ...[]byte) (at uint64) {
	begin := o.beginLocked()
	for _, part := range parts {
		o.waiting = append(o.waiting, part...)
	}
	return o.sealLocked(begin, k, id)
}

// beginLocked begins a frame whose payload the caller appends to waiting.
func (o *outbox) beginLocked() (begin int) {
	begin = len(o.waiting)
	o.waiting = beginFrame(o.waiting)
	return begin
}

func (o *outbox) sealLocked(begin int, k kind, id uint64) (at uint64) {
	sealFrame(o.waiting[begin:], k, id)
	o.work.Signal()
	return o.taken + uint64(begin)
}

// add waits until a frame fits below limit, adds it, and returns nil; or the
// reason for which the outbox is closed.
func (o *outbox) add(limit int, k kind, id uint64, parts ...[]byte) error {
	n := headerBytes
	for _, part := range parts {
		n += len(part)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(o.waiting)+o.writing > 0 && len(o.waiting)+o.writing+n > limit {
		o.room.Wait()
	}
	if o.err == nil {
		o.addLocked(k, id, parts...)
	}
	return o.err
}

// withdrawLocked takes back the frame at a place, unless some of it may have
// left: then it returns false.
func (o *outbox) withdrawLocked(at uint64) bool {
	if at < o.taken {
		return false
	}
	b := o.waiting[at-o.taken:]
	b[4] = byte(framePing)
	sealHeader(b)
	return true
}

// take waits for something to write; false: closed.
func (o *outbox) take() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(o.waiting) == 0 {
		o.work.Wait()
	}
	if o.err != nil {
		return nil, false
	}
	b := o.waiting
	o.waiting, o.spare = o.spare[:0], nil
	o.writing, o.messages, o.quiet = len(b), 0, 0
	o.taken += uint64(len(b))
	return b, true
}

// wrote gives back what take returned.
func (o *outbox) wrote(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = 0
	if cap(b) <= keptBuffer || len(b) >= cap(b)/4 {
		o.spare = b
	}
	o.room.Broadcast()
}

// tick is called at each tick of the watch: an outbox that had nothing to write
// for a while shows that it is there.
func (o *outbox) tick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.quiet++
	if o.err == nil && o.quiet >= pingAfter && len(o.waiting)+o.writing == 0 {
		o.addLocked(framePing, 0)
	}
}

// close ends the outbox; the first reason stays.
func (o *outbox) close(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.work.Broadcast()
	o.room.Broadcast()
}

// reason is why the outbox was closed.
func (o *outbox) reason() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
