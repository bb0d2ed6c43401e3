package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

const (
	maxBlock = 64 << 10 // of one child's output that is held back to stay together
	maxTail  = 900      // bytes of a child's standard error that go into the history
)

// shared is an output of several children at once.
type shared struct {
	mu  sync.Mutex
	out io.Writer
}

func newShared(out io.Writer) *shared { return &shared{out: out} }

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *shared) block() *block { return &block{to: s} }

// block is one child's output: it comes out in one piece, or in pieces of whole
// lines when it is longer than maxBlock.
type block struct {
	to  *shared
	buf []byte
}

func (b *block) Write(p []byte) (int, error) {
	b.buf = append(b.buf, p...)
	if len(b.buf) < maxBlock {
		return len(p), nil
	}
	whole := bytes.LastIndexByte(b.buf, '\n') + 1
	if whole == 0 {
		whole = len(b.buf) // a line longer than a block is broken
	}
	_, err := b.to.Write(b.buf[:whole])
	b.buf = append(b.buf[:0], b.buf[whole:]...)
	return len(p), err
}

// end writes what is left.
func (b *block) end() {
	if len(b.buf) > 0 {
		_, _ = b.to.Write(b.buf)
	}
}

// tail keeps the end of what is written.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p[max(0, len(p)-maxTail):]...)
	t.buf = t.buf[max(0, len(t.buf)-maxTail):]
	return len(p), nil
}

func (t *tail) String() string {
	return strings.TrimSpace(strings.ToValidUTF8(string(t.buf), ""))
}

// envText is text that may stand in the environment, where NUL ends a value.
func envText(s string) string { return strings.ReplaceAll(s, "\x00", "") }
