package http2

import (
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	frameHead = 9
	// record is how much a TLS record carries; a data frame that fills one is one system call.
	record = 16 << 10
	// ahead is how much may wait to be written before those who have more wait too.
	ahead = 64 << 10
	// tooFar is how much a client may make wait that sends what must be answered and reads nothing.
	tooFar = 1 << 20
)

// frames are buffers of a record's size that connections and streams share: what is silent holds none.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, record); return &b }}

func borrow() []byte { return (*frames.Get().(*[]byte))[:0] }

func giveBack(b []byte) {
	if cap(b) >= record && cap(b) <= ahead {
		frames.Put(&b)
	}
}

// pending is where the framer writes to: what is to be written. Used with the connection's lock held.
type pending struct{ c *conn }

func (p pending) Write(b []byte) (int, error) {
	if p.c.pending == nil {
		p.c.pending = borrow()
	}
	p.c.pending = append(p.c.pending, b...)
	return len(b), nil
}

// flush writes what is pending, unless somebody writes already, who will. Called with the lock held, which it gives up meanwhile.
func (c *conn) flush() { c.write(nil, false) }

// write writes what is pending and then one more frame; more says that another comes soon, and both may wait for it. While somebody writes already, the
// frame must be nil.
func (c *conn) write(frame []byte, more bool) {
	if c.writing || c.err != nil || len(frame) == 0 && len(c.pending) == 0 && !c.held {
		return
	}
	c.writing = true
	c.writeOut(frame, more)
	if len(c.pending) > 0 && c.err == nil {
		go c.pump() // others' came meanwhile, which are no reason for the caller to stay
		return
	}
	c.writing = false
}

// flushLater has what is pending written by somebody else: the one who reads must not wait.
func (c *conn) flushLater() {
	if len(c.pending) > tooFar {
		c.fail(http2.ConnectionError(http2.ErrCodeEnhanceYourCalm))
	}
	if c.writing || c.err != nil || len(c.pending) == 0 {
		return
	}
	c.writing = true
	go c.pump()
}

// pump writes until nothing is pending. It has taken the right to write.
func (c *conn) pump() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) > 0 && c.err == nil {
		c.writeOut(nil, false)
	}
	c.writing = false
}

// writeOut writes to the connection, without the lock.
func (c *conn) writeOut(frame []byte, more bool) {
	out := c.pending
	c.pending = nil
	if more && !c.held {
		c.held = true
		c.raw.hold()
	}
	release := c.held && !more
	c.mu.Unlock()
	_ = c.raw.SetWriteDeadline(time.Now().Add(c.s.Stall))
	var err error
	if len(out) > 0 {
		_, err = c.tls.Write(out)
	}
	if len(frame) > 0 && err == nil {
		_, err = c.tls.Write(frame)
	}
	if release && err == nil {
		err = c.raw.release()
	}
	giveBack(out)
	c.mu.Lock()
	if release {
		c.held = false
	}
	if err != nil {
		c.fail(err)
	}
	c.wake()
}

// wake wakes those who wait to write: the connection's window has grown, or there is room again.
func (c *conn) wake() {
	if c.waiting == 0 {
		return
	}
	for _, st := range c.streams {
		st.wake()
	}
}

// putHead writes a data frame's head into its first bytes.
func putHead(frame []byte, stream uint32, end bool) {
	n := len(frame) - frameHead
	frame[0], frame[1], frame[2], frame[3], frame[4] = byte(n>>16), byte(n>>8), byte(n), byte(http2.FrameData), 0
	if end {
		frame[4] = byte(http2.FlagDataEndStream)
	}
	frame[5], frame[6], frame[7], frame[8] = byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream)
}
