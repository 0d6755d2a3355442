package http2

import (
	"fmt"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Header is what WriteHeader will send; what is changed after that are trailers.
func (st *stream) Header() http.Header {
	if st.code != 0 && st.frozen == nil {
		st.frozen = st.header
		st.header = st.header.Clone()
	}
	return st.header
}

// WriteHeader decides the answer's code and headers. They are sent with the first of the body, so that they are one record.
func (st *stream) WriteHeader(code int) {
	switch {
	case code < 100 || code > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", code))
	case st.code != 0:
		return
	case code < 200:
		st.inform(code)
		return
	}
	st.code = code
	if given := st.header["Content-Length"]; len(given) > 0 {
		n, err := strconv.ParseUint(given[0], 10, 63)
		if err != nil {
			delete(st.header, "Content-Length")
			return
		}
		st.length = int64(n)
	}
}

// inform sends a head before the answer's.
func (st *stream) inform(code int) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.gone == nil {
		c.putHeaders(st.id, code, st.header, false)
		c.flush()
	}
}

func hasBody(code int) bool {
	return code >= 200 && code != http.StatusNoContent && code != http.StatusNotModified
}

func (st *stream) Write(p []byte) (int, error) { return write(st, p) }

func (st *stream) WriteString(s string) (int, error) { return write(st, s) }

// write collects the body in frames that fill a record, and sends those that are full.
func write[T string | []byte](st *stream, p T) (int, error) {
	if st.code == 0 {
		st.WriteHeader(http.StatusOK)
	}
	if !hasBody(st.code) {
		return 0, http.ErrBodyNotAllowed
	}
	if st.written += int64(len(p)); st.length >= 0 && st.written > st.length {
		return 0, http.ErrContentLength
	}
	if st.head {
		return len(p), nil
	}
	for done := 0; ; {
		if st.buf == nil {
			st.buf = borrow()[:frameHead]
		}
		n := copy(st.buf[len(st.buf):cap(st.buf)], p[done:])
		st.buf = st.buf[:len(st.buf)+n]
		if done += n; done == len(p) {
			return done, nil
		}
		if err := st.push(full); err != nil {
			return done, err
		}
	}
}

// Flush sends what there is of the answer.
func (st *stream) Flush() { _ = st.FlushError() }

// FlushError is Flush, and says whether the client can still be reached.
func (st *stream) FlushError() error {
	if st.code == 0 {
		st.WriteHeader(http.StatusOK)
	}
	err := st.push(flushed)
	giveBack(st.buf) // a watch that is silent holds none
	st.buf = nil
	return err
}

// end sends the rest of an answer.
func (st *stream) end() {
	if st.code == 0 {
		st.WriteHeader(http.StatusOK)
	}
	if st.length < 0 && !st.head && hasBody(st.code) && !st.begun() {
		st.sends()["Content-Length"] = []string{strconv.FormatInt(st.written, 10)}
	}
	trailers := st.trailers()
	why := last
	if trailers != nil {
		why = flushed
	}
	if err := st.push(why); err != nil || trailers == nil {
		return
	}
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putHeaders(st.id, 0, trailers, true)
	c.flush()
}

func (st *stream) begun() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.sent
}

// sends are the headers as WriteHeader found them.
func (st *stream) sends() http.Header {
	if st.frozen != nil {
		return st.frozen
	}
	return st.header
}

// reason is why a part of an answer is sent.
type reason int

const (
	flushed reason = iota // the handler wants it to be sent
	full                  // the buffer can take no more: the next part comes soon
	last                  // it is all
)

// push sends what the buffer holds, after the answer's head if that has not been sent.
func (st *stream) push(why reason) error {
	if st.buf == nil {
		st.buf = borrow()[:frameHead]
	}
	empty := len(st.buf) == frameHead
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.gone != nil {
		return st.gone
	}
	if !st.sent {
		st.complete()
		st.sent = true
		only := empty && why == last
		c.putHeaders(st.id, st.code, st.sends(), only)
		if only {
			c.flush()
			return st.gone
		}
	}
	if empty && why != last {
		c.flush()
		return st.gone
	}
	err := st.send(st.buf, why)
	st.buf = st.buf[:frameHead]
	return err
}

// complete adds the headers that every answer has.
func (st *stream) complete() {
	h := st.sends()
	if how := h["Connection"]; how != nil {
		delete(h, "Connection")
		if len(how) > 0 && strings.EqualFold(how[0], "close") {
			st.c.sayGoAway(http2.ErrCodeNo)
		}
	}
	if _, given := h["Date"]; !given {
		h["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	}
	if _, given := h["Content-Type"]; !given && len(st.buf) > frameHead && len(h["Content-Encoding"]) == 0 {
		h["Content-Type"] = []string{http.DetectContentType(st.buf[frameHead:])}
	}
}

// send sends a frame's worth of the body, in pieces if the client does not take it whole. The first bytes of frame are room for its head.
func (st *stream) send(frame []byte, why reason) error {
	c := st.c
	for st.gone == nil {
		rest := len(frame) - frameHead
		n := int(min(int64(rest), int64(c.maxFrame), st.window, c.window))
		if rest > 0 && n <= 0 || c.writing && len(c.pending) >= ahead {
			if !c.writing && (c.held || len(c.pending) > 0) {
				c.flush()
			} else {
				st.wait()
			}
			continue
		}
		piece := frame[:frameHead+n]
		putHead(piece, st.id, why == last && n == rest)
		st.window -= int64(n)
		c.window -= int64(n)
		if c.writing || len(c.pending)+len(piece) <= record {
			_, _ = pending{c}.Write(piece)
		} else {
			c.write(piece, why == full || n < rest)
		}
		if n == rest {
			if why != full {
				c.flush()
			}
			return st.gone
		}
		frame = frame[n:]
	}
	return st.gone
}

// trailers are the headers that the handler announced as such, and has set since.
func (st *stream) trailers() http.Header {
	var out http.Header
	add := func(name string, values []string) {
		if out == nil {
			out = http.Header{}
		}
		out[name] = values
	}
	for name, values := range st.header {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(textproto.CanonicalMIMEHeaderKey(rest), values)
		}
	}
	for name := range announced(st.sends()) {
		if values := st.Header()[name]; len(values) > 0 {
			add(name, values)
		}
	}
	return out
}

// announced are the names of the trailers that a head names.
func announced(h http.Header) map[string]bool {
	var out map[string]bool
	for _, list := range h["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			if out == nil {
				out = map[string]bool{}
			}
			out[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return out
}

// names are the headers that most answers have, as HTTP/2 spells them.
var names = map[string]string{
	"Audit-Id": "audit-id", "Cache-Control": "cache-control", "Content-Length": "content-length", "Content-Type": "content-type", "Date": "date",
	"X-Kubernetes-Pf-Flowschema-Uid": "x-kubernetes-pf-flowschema-uid", "X-Kubernetes-Pf-Prioritylevel-Uid": "x-kubernetes-pf-prioritylevel-uid",
}

// once are headers whose values do not come again: they are kept out of the table of those that do.
var once = []string{"Audit-Id", "Content-Length"}

// putHeaders makes the frames of a head; code 0 is none: they are trailers. Called with the lock held.
func (c *conn) putHeaders(stream uint32, code int, h http.Header, end bool) {
	c.block.Reset()
	if code > 0 {
		_ = c.fields.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(code)})
	}
	later := announced(h)
	for name, values := range h {
		if code > 0 && (later[name] || strings.HasPrefix(name, http.TrailerPrefix)) || !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		lower, ok := names[name]
		if !ok {
			lower = strings.ToLower(name)
		}
		for _, v := range values {
			if httpguts.ValidHeaderFieldValue(v) && (lower != "transfer-encoding" || v == "trailers") {
				_ = c.fields.WriteField(hpack.HeaderField{Name: lower, Value: v, Sensitive: slices.Contains(once, name)})
			}
		}
	}
	block := c.block.Bytes()
	first := block[:min(len(block), c.maxFrame)]
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0; {
		next := block[:min(len(block), c.maxFrame)]
		block = block[len(next):]
		_ = c.framer.WriteContinuation(stream, len(block) == 0, next)
	}
}

// SetReadDeadline ends the reading of the body at a time; the zero time takes that back.
func (st *stream) SetReadDeadline(at time.Time) error {
	return st.deadline(&st.readBy, at, func() { st.body.breakOff(os.ErrDeadlineExceeded) })
}

// SetWriteDeadline gives the stream up at a time; the zero time takes that back.
func (st *stream) SetWriteDeadline(at time.Time) error {
	return st.deadline(&st.writeBy, at, func() {
		if st.gone == nil {
			_ = st.c.framer.WriteRSTStream(st.id, http2.ErrCodeInternal)
			st.c.flushLater()
			st.over(os.ErrDeadlineExceeded)
		}
	})
}

// deadline has something done with the lock held, at a time.
func (st *stream) deadline(t **time.Timer, at time.Time, do func()) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if *t != nil {
		(*t).Stop()
		*t = nil
	}
	switch wait := time.Until(at); {
	case at.IsZero() || st.finished:
	case wait <= 0:
		do()
	default:
		*t = time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if !st.finished {
				do()
			}
		})
	}
	return nil
}

// EnableFullDuplex is there for http.ResponseController: bodies and answers always flow at once.
func (st *stream) EnableFullDuplex() error { return nil }
