package http2

import (
	"net"
	"sync"
)

// gather is a connection beneath TLS, which writes each record by itself. Between hold and release they are collected, so that the records of a long
// answer are a few system calls, and as many packets fewer.
type gather struct {
	net.Conn

	mu      sync.Mutex // TLS also writes when it reads: a new key, an alert
	holding bool
	held    []byte
}

// gathered are buffers for what is held.
var gathered = sync.Pool{New: func() any { b := make([]byte, 0, ahead); return &b }}

// Write writes, or holds back as much as there is room for.
func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.holding {
		return g.Conn.Write(b)
	}
	if len(g.held)+len(b) > ahead {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > ahead {
		return g.Conn.Write(b)
	}
	if g.held == nil {
		g.held = (*gathered.Get().(*[]byte))[:0]
	}
	g.held = append(g.held, b...)
	return len(b), nil
}

// hold begins to hold back.
func (g *gather) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = true
}

// release writes what is held back.
func (g *gather) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = false
	return g.flush()
}

func (g *gather) flush() error {
	if g.held == nil {
		return nil
	}
	held := g.held
	g.held = nil
	_, err := g.Conn.Write(held)
	gathered.Put(&held)
	return err
}

// gatherer is a listener whose connections gather.
type gatherer struct{ net.Listener }

func (l gatherer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gather{Conn: c}, nil
}
