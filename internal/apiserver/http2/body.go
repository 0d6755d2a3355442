package http2

import (
	"fmt"
	"io"
	"net/http"

	"golang.org/x/net/http2"
)

// inflow is what the other side may send, and what of that has been read without its having been told.
type inflow struct{ left, owed int64 }

// took notes that n bytes came; false if they may not.
func (f *inflow) took(n int64) bool {
	if n > f.left {
		return false
	}
	f.left -= n
	return true
}

// gave notes that n bytes were read, and returns how much to let the other side send more: nothing until it is worth a frame.
func (f *inflow) gave(n int64, most int64) uint32 {
	f.owed += n
	if f.owed < most/2 {
		return 0
	}
	more := f.owed
	f.left, f.owed = f.left+more, 0
	return uint32(more)
}

// read notes that n bytes of the connection's window are free again. Called with the lock held; who calls flushes.
func (c *conn) read(n int) {
	if more := c.unread.gave(int64(n), connWindow); more > 0 && c.err == nil {
		_ = c.framer.WriteWindowUpdate(0, more)
		c.flushLater()
	}
}

// data takes a frame of a request's body.
func (c *conn) data(f *http2.DataFrame) error {
	if f.StreamID > c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	n := int64(f.Length)
	if !c.unread.took(n) {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	st := c.streams[f.StreamID]
	if st == nil || st.ended {
		c.read(int(n))
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	b, data := &st.body, f.Data()
	b.got += int64(len(data))
	switch {
	case !b.unread.took(n):
		c.read(int(n))
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	case b.declared >= 0 && b.got > b.declared:
		c.read(int(n))
		b.breakOff(fmt.Errorf("the body is longer than the %d bytes that it was said to have", b.declared))
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	case b.err != nil: // nobody reads it
		c.read(int(n))
	default:
		if b.buf == nil && b.declared > 0 {
			b.buf = make([]byte, 0, min(b.declared, streamWindow))
		}
		b.buf = append(b.buf, data...)
		c.read(int(n) - len(data)) // the padding
		st.wake()
	}
	if f.StreamEnded() {
		return st.endBody()
	}
	return nil
}

// endBody notes that all of the request has come.
func (st *stream) endBody() error {
	st.ended = true
	if b := &st.body; b.declared >= 0 && b.got != b.declared {
		b.breakOff(fmt.Errorf("the body has %d bytes, not the %d that it was said to have", b.got, b.declared))
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	st.body.breakOff(io.EOF)
	return nil
}

// body is a request's body. The connection's lock guards it.
type body struct {
	st       *stream
	buf      []byte // what came and has not been read
	err      error  // what comes after that
	declared int64  // length; -1: not said
	got      int64
	unread   inflow
	more     bool // the client waits for being told to send it
}

// breakOff ends a body: nothing comes after what is there.
func (b *body) breakOff(err error) {
	if b.err == nil {
		b.err = err
	}
	b.st.wake()
}

// Read waits for some of the body.
func (b *body) Read(p []byte) (int, error) {
	st, c := b.st, b.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.more && len(b.buf) == 0 && b.err == nil {
		b.more = false
		if !st.sent {
			c.putHeaders(st.id, http.StatusContinue, nil, false)
			c.flush()
		}
	}
	for len(b.buf) == 0 && b.err == nil && len(p) > 0 {
		st.wait()
	}
	if len(b.buf) == 0 {
		return 0, b.err
	}
	n := copy(p, b.buf)
	if b.buf = b.buf[n:]; len(b.buf) == 0 {
		b.buf = nil
	}
	c.read(n)
	if more := b.unread.gave(int64(n), streamWindow); more > 0 && !st.ended && st.gone == nil {
		_ = c.framer.WriteWindowUpdate(st.id, more)
		c.flush()
	}
	return n, nil
}

// Close says that nobody reads the rest.
func (b *body) Close() error {
	c := b.st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read(len(b.buf))
	b.buf = nil
	b.breakOff(http.ErrBodyReadAfterClose)
	return nil
}
