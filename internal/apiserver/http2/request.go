package http2

import (
	"context"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// headers begin a request, or end its body.
func (c *conn) headers(f *http2.MetaHeadersFrame) error {
	if st := c.streams[f.StreamID]; st != nil {
		if st.ended || !f.StreamEnded() {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
		return st.endBody() // what a trailer says is passed over
	}
	if f.StreamID%2 == 0 || f.StreamID <= c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.last = f.StreamID
	switch {
	case c.told || c.err != nil:
		return c.err // the client knows that this one is not answered
	case c.handlers >= c.s.MaxStreams: // also those of streams that were given up: they may not be begun faster than handlers end
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeRefusedStream}
	}
	st := &stream{c: c, id: f.StreamID, window: c.initial, ended: f.StreamEnded(), length: -1, header: make(http.Header, 8)}
	st.changed.L = &c.mu
	r, err := c.request(st, f)
	if err != nil {
		return err
	}
	handler := c.handler
	if f.Truncated {
		handler = http.HandlerFunc(tooLong)
	}
	c.streams[st.id] = st
	c.handlers++
	go c.answer(handler, st, r)
	return nil
}

func tooLong(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the request's headers are too long", http.StatusRequestHeaderFieldsTooLarge)
}

// request makes a request of its headers.
func (c *conn) request(st *stream, f *http2.MetaHeadersFrame) (*http.Request, error) {
	bad := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	method, path, scheme, host := f.PseudoValue("method"), f.PseudoValue("path"), f.PseudoValue("scheme"), f.PseudoValue("authority")
	if method == "" || method == http.MethodConnect || path == "" || scheme != "https" && scheme != "http" || f.PseudoValue("protocol") != "" {
		return nil, bad
	}
	at, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, bad
	}
	header := headerOf(f)
	if host == "" {
		host = header.Get("Host")
	}
	delete(header, "Host")
	delete(header, "Trailer")
	st.head = method == http.MethodHead
	st.body = body{st: st, declared: -1, more: httpguts.HeaderValuesContainsToken(header["Expect"], "100-continue")}
	if st.body.more {
		delete(header, "Expect")
	}
	r := &http.Request{
		Method: method, URL: at, RequestURI: path, Proto: "HTTP/2.0", ProtoMajor: 2, Header: header, Host: host, RemoteAddr: c.remote, TLS: &c.state,
		Body: http.NoBody,
	}
	if !f.StreamEnded() {
		if st.body.declared, err = declared(header); err != nil {
			return nil, bad
		}
		st.body.unread.left = streamWindow
		r.Body, r.ContentLength = &st.body, st.body.declared
	}
	ctx, cancel := context.WithCancel(c.ctx)
	st.cancel = cancel
	return r.WithContext(ctx), nil
}

// declared is the length that a body is said to have; -1: it isn't said.
func declared(h http.Header) (int64, error) {
	given := h["Content-Length"]
	if len(given) == 0 {
		return -1, nil
	}
	n, err := strconv.ParseUint(given[0], 10, 63)
	return int64(n), err
}

// headerOf collects the fields that are no pseudo-fields.
func headerOf(f *http2.MetaHeadersFrame) http.Header {
	fields := f.RegularFields()
	out := make(http.Header, len(fields))
	values := make([]string, len(fields))
	for i, hf := range fields {
		name := http.CanonicalHeaderKey(hf.Name)
		if have := out[name]; have != nil {
			out[name] = append(have, hf.Value)
			continue
		}
		values[i] = hf.Value
		out[name] = values[i : i+1 : i+1]
	}
	if cookies := out["Cookie"]; len(cookies) > 1 {
		out["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	return out
}

// answer runs a request's handler.
func (c *conn) answer(h http.Handler, st *stream, r *http.Request) {
	returned := false
	defer func() {
		if returned {
			st.finish(nil)
			return
		}
		why := recover()
		if why == nil {
			why = "the handler's goroutine ended"
		} else if why != http.ErrAbortHandler && c.s.Log != nil {
			c.s.Log.Error("a request panicked", "path", r.URL.Path, "panic", why, "stack", string(debug.Stack()))
		}
		st.finish(why)
	}()
	h.ServeHTTP(st, r)
	returned = true
}

// stream is one request and its answer; it is the answer's writer.
type stream struct {
	c      *conn
	id     uint32
	cancel context.CancelFunc // of the request's context

	// Of the handler's goroutine.
	header  http.Header
	frozen  http.Header // as it was when it was written
	code    int
	head    bool   // HEAD: the answer has no body
	length  int64  // that the handler said its body has; -1: it didn't
	written int64  // of the body
	buf     []byte // what has not been sent, behind room for a frame's head; nil: nothing

	// With the connection's lock held.
	changed  sync.Cond
	waiting  int   // who waits for changed
	window   int64 // how much the client takes
	sent     bool  // the answer's head
	ended    bool  // the client has sent all of its request
	finished bool  // the handler has returned
	gone     error // why nothing more can be sent or read
	body     body
	readBy   *time.Timer
	writeBy  *time.Timer
}

// wait waits for a change, with the lock held.
func (st *stream) wait() {
	st.waiting++
	st.c.waiting++
	st.changed.Wait()
	st.waiting--
	st.c.waiting--
}

func (st *stream) wake() {
	if st.waiting > 0 {
		st.changed.Broadcast()
	}
}

// over ends a stream that is not answered to its end: the client has given it up, or it or the connection is broken.
func (st *stream) over(err error) {
	if st.gone != nil {
		return
	}
	st.gone = err
	st.cancel()
	st.body.breakOff(err)
	st.wake()
	st.c.drop(st)
}

// drop forgets a stream.
func (c *conn) drop(st *stream) {
	if c.streams[st.id] != st {
		return
	}
	delete(c.streams, st.id)
	c.read(len(st.body.buf))
	st.body.buf = nil
	if len(c.streams) == 0 {
		c.quiet = time.Now()
		c.endIfDone()
	}
}

// finish ends the answer when the handler has returned, or has panicked.
func (st *stream) finish(panicked any) {
	c := st.c
	if panicked == nil {
		st.end()
	}
	giveBack(st.buf)
	st.buf = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	st.finished = true
	for _, t := range []*time.Timer{st.readBy, st.writeBy} {
		if t != nil {
			t.Stop()
		}
	}
	if st.gone == nil && (panicked != nil || !st.ended) {
		code := http2.ErrCodeNo // the client need not send the rest of the body
		if panicked != nil {
			code = http2.ErrCodeInternal
		}
		_ = c.framer.WriteRSTStream(st.id, code)
	}
	c.flush()
	c.handlers--
	st.body.breakOff(http.ErrBodyReadAfterClose)
	c.drop(st)
	st.cancel()
}
