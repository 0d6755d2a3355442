package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn is one connection. The goroutine that serves it reads; whoever has something to say writes, see write.go.
type conn struct {
	s       *Server
	tls     *tls.Conn
	raw     *gather // beneath tls
	handler http.Handler
	ctx     context.Context // of all its requests
	cancel  context.CancelFunc
	state   tls.ConnectionState
	remote  string
	framer  *http2.Framer // reads from the connection, writes into pending

	mu       sync.Mutex // guards all below
	streams  map[uint32]*stream
	last     uint32 // the highest number of a stream so far
	handlers int    // that run: also those of streams that the client has given up
	window   int64  // how much data the client takes, of all streams
	initial  int64  // and of a new one
	unread   inflow // what the client may send
	maxFrame int    // that the client takes
	fields   *hpack.Encoder
	block    bytes.Buffer // where fields encodes
	pending  []byte       // frames that are to be written
	writing  bool         // somebody writes
	held     bool         // raw holds back what was written, because more comes
	waiting  int          // who waits for something to change
	err      error        // why nothing can be written any more
	leaving  bool         // the client has been told to go, or is to be
	told     bool         // it has been told

	watchdog *time.Timer
	heard    time.Time // when the last frame came
	quiet    time.Time // since when there is no request, if there is none
	asked    bool      // a ping waits for its answer
}

// run reads until the connection ends.
func (c *conn) run() {
	defer c.cancel()
	defer c.tls.Close()
	err := c.begin()
	for err == nil {
		err = c.next()
	}
	var bad http2.ConnectionError
	if errors.As(err, &bad) {
		c.goAway(http2.ErrCode(bad))
		c.written()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(errEnded)
	c.watchdog.Stop()
}

// begin exchanges the first words.
func (c *conn) begin() error {
	c.mu.Lock()
	c.watchdog = time.AfterFunc(c.s.Stall, c.watch)
	_ = c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.s.MaxStreams)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.s.MaxHeaderBytes},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
	)
	_ = c.framer.WriteWindowUpdate(0, connWindow-defaultWindow)
	c.unread.left = connWindow
	c.flush()
	c.mu.Unlock()

	_ = c.tls.SetReadDeadline(time.Now().Add(prefacePatient))
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.tls, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return errors.New("no HTTP/2 preface")
	}
	f, err := c.framer.ReadFrame()
	if err != nil {
		return err
	}
	if _, ok := f.(*http2.SettingsFrame); !ok {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	_ = c.tls.SetReadDeadline(time.Time{})
	if err := c.take(f); err != nil {
		return err
	}
	if c.leaving { // the server stops
		c.goAway(http2.ErrCodeNo)
	}
	return nil
}

// next reads a frame and does what it says. Its error ends the connection.
func (c *conn) next() error {
	f, err := c.framer.ReadFrame()
	var bad http2.StreamError
	switch {
	case errors.As(err, &bad):
	case errors.Is(err, http2.ErrFrameTooLarge):
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	case err != nil:
		return err
	default:
		if err = c.take(f); err == nil || !errors.As(err, &bad) {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse(bad)
	return c.err
}

// refuse ends a stream that did something wrong.
func (c *conn) refuse(bad http2.StreamError) {
	if st := c.streams[bad.StreamID]; st != nil {
		st.over(bad)
	}
	_ = c.framer.WriteRSTStream(bad.StreamID, bad.Code)
	c.flushLater()
}

// take does what a frame says.
func (c *conn) take(f http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.asked = time.Now(), false
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.WindowUpdateFrame:
		return c.grow(f)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.RSTStreamFrame:
		if f.StreamID > c.last {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if st := c.streams[f.StreamID]; st != nil {
			st.over(http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode})
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.framer.WritePing(true, f.Data)
			c.flushLater()
		}
	case *http2.GoAwayFrame: // the client begins nothing more
		c.leaving = true
		c.endIfDone()
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return c.err // priorities and what is not known are passed over
}

func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if f.NumSettings() > 100 || f.HasDuplicates() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.fields.SetMaxDynamicTableSize(s.Val)
		case http2.SettingMaxFrameSize:
			c.maxFrame = int(s.Val)
		case http2.SettingInitialWindowSize:
			more := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, st := range c.streams {
				if st.window += more; st.window > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.wake()
		}
		return nil
	})
	if err != nil {
		return err
	}
	_ = c.framer.WriteSettingsAck()
	c.flushLater()
	return c.err
}

// grow lets more be sent.
func (c *conn) grow(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.wake()
		return nil
	}
	if f.StreamID > c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if st := c.streams[f.StreamID]; st != nil {
		if st.window += int64(f.Increment); st.window > maxWindow {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
		}
		st.wake()
	}
	return nil
}

// watch is called when the client may have been silent for too long, or there may have been no request for too long.
func (c *conn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now := time.Now()
	silent, idle := now.Sub(c.heard), now.Sub(c.quiet)
	switch {
	case silent >= c.s.Stall && c.asked:
		c.fail(fmt.Errorf("http2: the client at %s has not answered for %s", c.remote, silent.Round(time.Second)))
		return
	case len(c.streams) == 0 && idle >= c.s.Idle:
		c.sayGoAway(http2.ErrCodeNo)
		return
	case silent >= c.s.Stall:
		c.asked = true
		_ = c.framer.WritePing(false, [8]byte{'s', 'k', 'i', 'f', 'f'})
		c.flushLater()
		c.watchdog.Reset(c.s.Patience)
		return
	}
	next := c.s.Stall - silent
	if len(c.streams) == 0 {
		next = min(next, c.s.Idle-idle)
	}
	c.watchdog.Reset(next)
}

// goAway tells the client to go, and ends the connection once all that it has asked for is answered; at once if it has done something wrong.
func (c *conn) goAway(code http2.ErrCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sayGoAway(code)
}

func (c *conn) sayGoAway(code http2.ErrCode) {
	if c.told || c.err != nil {
		return
	}
	c.leaving, c.told = true, true
	_ = c.framer.WriteGoAway(c.last, code, nil)
	c.flushLater()
	if code == http2.ErrCodeNo {
		c.endIfDone()
	}
}

// endIfDone closes a connection whose client has been told to go once nothing is left to answer. The client has a moment to close its end, so that it
// reads what has been written.
func (c *conn) endIfDone() {
	if !c.leaving || len(c.streams) > 0 || c.err != nil {
		return
	}
	go func() {
		_ = c.tls.SetReadDeadline(time.Now().Add(farewell))
		c.written()
		_ = c.tls.CloseWrite()
	}()
}

// written waits a moment until nobody writes any more.
func (c *conn) written() {
	busy := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.writing && c.err == nil
	}
	for end := time.Now().Add(farewell); busy() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// fail ends the connection, whatever goes on there.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.cancel()
	for _, st := range c.streams {
		st.over(err)
	}
	if !errors.Is(err, errEnded) {
		_ = c.raw.Close() // which ends the reading
	}
}
