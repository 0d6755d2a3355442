// Package http2 serves HTTP/2 over TLS to an http.Handler.
//
// It stands where net/http's own server would: there each frame of an answer goes through the connection's goroutine and a second one that writes it, and
// an answer's head and body are records and system calls of their own. That was a third of what reading a pod cost, and more than half of what telling
// a watcher of an event did. Here whoever has something to say writes it: head and body as one record, together with what others on the connection have
// ready. A connection that is silent holds one goroutine and no buffers.
//
// Its invariant: frames leave a connection in the order in which they were made with its lock held, for that is the order of HPACK's table, and one
// goroutine at a time writes. Reading never waits for writing, so that two ends that both write cannot stop each other. Frames are parsed, and headers
// checked and compressed, by golang.org/x/net/http2. What net/http's server does for a handler, this one does; it has no server push and no CONNECT.
package http2

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	maxFrame       = 1 << 20 // that the client may send
	streamWindow   = 1 << 20 // what a client may send of a body before it is read
	connWindow     = 4 << 20 // of all bodies of a connection
	defaultWindow  = 65535
	maxWindow      = 1<<31 - 1
	headerTable    = 4 << 10
	prefacePatient = 10 * time.Second
	farewell       = time.Second // how long a client that was told to go has for closing the connection
)

// Server turns connections into requests. Its fields are set before the first connection.
type Server struct {
	MaxStreams     int           // requests of one connection at a time
	MaxHeaderBytes uint32        // of a request's headers
	Idle           time.Duration // a connection without requests is closed after this long
	Stall          time.Duration // of silence until the client is asked whether it is there; how long it may take to take what is written
	Patience       time.Duration // for its answer
	Log            *slog.Logger  // of handlers' panics

	mu      sync.Mutex
	conns   map[*conn]bool
	leaving bool
}

// Serve has hs serve a listener until it is shut down, and hand its HTTP/2 connections to s.
func (s *Server) Serve(hs *http.Server, l net.Listener) error {
	hs.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	hs.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": s.serve}
	hs.RegisterOnShutdown(s.leave)
	return hs.ServeTLS(gatherer{l}, "", "")
}

// leave asks all clients to go once what they have asked for is answered.
func (s *Server) leave() {
	s.mu.Lock()
	s.leaving = true
	all := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range all {
		c.goAway(http2.ErrCodeNo)
	}
}

// serve serves a connection until it ends.
func (s *Server) serve(hs *http.Server, t *tls.Conn, h http.Handler) {
	base := context.Background()
	if b, ok := h.(interface{ BaseContext() context.Context }); ok {
		base = b.BaseContext()
	}
	base = context.WithValue(base, http.LocalAddrContextKey, t.LocalAddr())
	base = context.WithValue(base, http.ServerContextKey, hs)
	c := &conn{
		s: s, tls: t, raw: t.NetConn().(*gather), handler: h, state: t.ConnectionState(), remote: t.RemoteAddr().String(), streams: map[uint32]*stream{},
		window: defaultWindow, initial: defaultWindow, maxFrame: 16 << 10, heard: time.Now(), quiet: time.Now(),
	}
	c.ctx, c.cancel = context.WithCancel(base)
	c.fields = hpack.NewEncoder(&c.block)
	c.framer = http2.NewFramer(pending{c}, t)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(headerTable, nil)
	c.framer.MaxHeaderListSize = s.MaxHeaderBytes
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.SetReuseFrames()
	s.add(c)
	defer s.remove(c)
	c.run()
}

func (s *Server) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[*conn]bool{}
	}
	s.conns[c] = true
	c.leaving = s.leaving
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// errEnded is why nothing can be written to a connection that has ended in order.
var errEnded = errors.New("http2: the connection has ended")
