//go:build faults

package faults

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands before a server and carries connections to it, which a test can
// cut. Both sides see them closed.
type proxy struct {
	to string
	l  net.Listener

	mu     sync.Mutex
	closed bool // to newcomers
	open   map[net.Conn]bool
	cuts   int // connections that were cut
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: to, l: l, open: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			serving.Go(func() { p.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.admit(false)
		p.cut()
		serving.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// admit says whether newcomers are let through or turned away.
func (p *proxy) admit(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = !yes
}

func (p *proxy) carry(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.open[c] = true
	p.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, s) // until either side is gone
		c.Close()
	})
	_, _ = io.Copy(s, c)
	s.Close()
	back.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

// cut closes every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
		p.cuts++
	}
	clear(p.open)
}
