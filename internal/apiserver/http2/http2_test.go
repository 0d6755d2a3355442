package http2_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	skiff "skiff.dev/skiff/internal/apiserver/http2"
)

// fixture is a server with one handler, and a client that speaks HTTP/2 only.
type fixture struct {
	*testing.T
	addr   string
	http   *http.Server
	client *http.Client
}

func start(t *testing.T, h http.HandlerFunc, change ...func(*skiff.Server)) *fixture {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &skiff.Server{MaxStreams: 100, MaxHeaderBytes: 64 << 10, Idle: time.Minute, Stall: time.Minute, Patience: time.Minute}
	for _, f := range change {
		f(s)
	}
	hs := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(hs, l) }()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, ExpectContinueTimeout: 10 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		hs.Close()
		<-done
	})
	return &fixture{t, l.Addr().String(), hs, &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// do asks and reads the answer to its end.
func (f *fixture) do(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	f.Helper()
	r, err := http.NewRequest(method, "https://"+f.addr+path, body)
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := f.client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	if resp.ProtoMajor != 2 {
		f.Fatalf("%s", resp.Proto)
	}
	return resp, string(raw)
}

func TestAnswers(t *testing.T) {
	big := strings.Repeat("0123456789", 300_000)
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.Host != "", " ", r.ContentLength, " ", r.Header.Get("X-A"), " ", r.TLS != nil, " ", r.RequestURI))
			_, _ = io.Copy(w, r.Body)
		case "/code":
			w.WriteHeader(http.StatusTeapot)
			w.Header().Set("Late", "yes")
			_, _ = io.WriteString(w, "tea")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("a body of 204: %v", err)
			}
		case "/big":
			_, _ = io.WriteString(w, big)
		case "/short":
			w.Header().Set("Content-Length", "2")
			if _, err := io.WriteString(w, "three"); !errors.Is(err, http.ErrContentLength) {
				t.Errorf("more than was announced: %v", err)
			}
			_, _ = io.WriteString(w, "") // it has written more by then
		case "/trailer":
			w.Header().Set("Trailer", "Sum")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("Sum", "42")
			w.Header().Set(http.TrailerPrefix+"More", "43")
		case "/hop":
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Header().Set("Bad", "a\nb")
			w.Header().Add("Many", "1")
			w.Header().Add("Many", "2")
		}
	})
	t.Run("echo", func(t *testing.T) {
		resp, body := f.do("POST", "/echo?q=%41", strings.NewReader("hello"), "X-A", "b")
		if want := "POST true 5 b true /echo?q=%41"; resp.Header.Get("X-Seen") != want || body != "hello" {
			t.Errorf("%q, %q", resp.Header.Get("X-Seen"), body)
		}
		if resp.Header.Get("Date") == "" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.ContentLength != 5 {
			t.Errorf("%v, %d", resp.Header, resp.ContentLength)
		}
	})
	t.Run("echo of much", func(t *testing.T) {
		if _, body := f.do("POST", "/echo", strings.NewReader(big)); body != big {
			t.Errorf("%d bytes, want %d", len(body), len(big))
		}
	})
	t.Run("echo of unknown length", func(t *testing.T) {
		resp, body := f.do("POST", "/echo", io.MultiReader(strings.NewReader(big[:100_000]), strings.NewReader(big)))
		if len(body) != 100_000+len(big) || !strings.Contains(resp.Header.Get("X-Seen"), " -1 ") {
			t.Errorf("%d bytes, %v", len(body), resp.Header)
		}
	})
	t.Run("a code, then a header", func(t *testing.T) {
		resp, body := f.do("GET", "/code", nil)
		if resp.StatusCode != http.StatusTeapot || body != "tea" || resp.Header.Get("Late") != "" {
			t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
		}
	})
	t.Run("no content", func(t *testing.T) {
		if resp, body := f.do("GET", "/none", nil); resp.StatusCode != http.StatusNoContent || body != "" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if resp, body := f.do("HEAD", "/big", nil); resp.StatusCode != 200 || body != "" {
			t.Errorf("%d %d bytes", resp.StatusCode, len(body))
		}
	})
	t.Run("trailers", func(t *testing.T) {
		resp, body := f.do("GET", "/trailer", nil)
		if body != "body" || resp.Trailer.Get("Sum") != "42" || resp.Trailer.Get("More") != "43" || resp.Header.Get("Sum") != "" {
			t.Errorf("%q %v %v", body, resp.Header, resp.Trailer)
		}
	})
	t.Run("headers that HTTP/2 has not", func(t *testing.T) {
		resp, _ := f.do("GET", "/hop", nil)
		if resp.Header.Get("Transfer-Encoding") != "" || resp.Header.Get("Bad") != "" || len(resp.Header["Many"]) != 2 {
			t.Errorf("%v", resp.Header)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				want := big[:i*7000]
				if _, body := f.do("POST", "/echo", strings.NewReader(want)); body != want {
					t.Errorf("%d bytes, want %d", len(body), len(want))
				}
			})
		}
		all.Wait()
	})
	t.Run("headers that are too long", func(t *testing.T) {
		c := f.dial()
		var many []string
		for i := range 10 {
			many = append(many, fmt.Sprint("x-long-", i), strings.Repeat("x", 7<<10))
		}
		c.headers(1, true, many...)
		if code := c.status(1); code != "431" {
			t.Errorf("%q", code)
		}
	})
}

func TestContinue(t *testing.T) {
	f := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	told := false
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { told = told || code == 100; return nil },
	})
	r, _ := http.NewRequestWithContext(ctx, "POST", "https://"+f.addr, strings.NewReader("body"))
	r.Header.Set("Expect", "100-continue")
	resp, err := f.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if raw, _ := io.ReadAll(resp.Body); string(raw) != "body" || !told {
		t.Errorf("%q, told %v", raw, told)
	}
}

func TestStreaming(t *testing.T) {
	next, gone := make(chan string), make(chan error, 1)
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		for text := range next {
			_, _ = io.WriteString(w, text)
			_ = flush.Flush()
		}
		<-r.Context().Done()
		_, err := io.WriteString(w, "x")
		gone <- errors.Join(err, flush.Flush())
	})
	resp, err := f.client.Get("https://" + f.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", "bc", strings.Repeat("d", 100_000)} {
		next <- text
		got := make([]byte, len(text))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != text {
			t.Fatalf("%d bytes: %v", len(got), err)
		}
	}
	resp.Body.Close()
	close(next)
	if err := <-gone; err == nil {
		t.Error("a client that has gone away can still be written to")
	}
}

// A long answer's records are gathered, but none waits longer than it must: not for the client's window, nor for a flush, nor for another answer.
func TestGathered(t *testing.T) {
	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	more := make(chan struct{})
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/much":
			for range 20 {
				_, _ = w.Write(piece)
			}
		case "/begun":
			for range 3 {
				_, _ = w.Write(piece)
			}
			if r.URL.RawQuery == "flush" {
				_ = http.NewResponseController(w).Flush()
			}
			<-more
		}
	})
	read := func(t *testing.T, c *raw, id uint32, got, want int) {
		t.Helper()
		_, err := c.until(func(f http2.Frame) bool {
			if d, ok := f.(*http2.DataFrame); ok && d.StreamID == id {
				for _, b := range d.Data() {
					if b != piece[got%16] {
						t.Fatalf("byte %d of stream %d is %q", got, id, b)
					}
					got++
				}
			}
			return got == want
		})
		if err != nil {
			t.Fatalf("%d bytes of %d: %v", got, want, err)
		}
	}
	t.Run("a window", func(t *testing.T) {
		c := f.dial()
		c.headers(1, true, ":path", "/much")
		read(t, c, 1, 0, 65535)
		_ = c.fr.WriteWindowUpdate(0, 1<<20)
		_ = c.fr.WriteWindowUpdate(1, 1<<20)
		read(t, c, 1, 65535, 20*len(piece))
	})
	t.Run("a flush", func(t *testing.T) {
		c := f.dial()
		c.headers(1, true, ":path", "/begun?flush")
		read(t, c, 1, 0, 3*len(piece))
		more <- struct{}{}
	})
	t.Run("another answer, and the end of a request that the client gives up", func(t *testing.T) {
		c := f.dial()
		c.headers(1, true, ":path", "/begun")
		c.headers(3, true, ":path", "/nothing")
		if _, err := c.until(func(f http2.Frame) bool {
			return f.Header().StreamID == 3 && f.Header().Flags.Has(http2.FlagHeadersEndStream)
		}); err != nil {
			t.Fatal(err)
		}
		_ = c.fr.WriteRSTStream(1, http2.ErrCodeCancel)
		more <- struct{}{}
		c.headers(5, true, ":path", "/nothing")
		if _, err := c.until(func(f http2.Frame) bool {
			return f.Header().StreamID == 5 && f.Header().Flags.Has(http2.FlagHeadersEndStream)
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPanic(t *testing.T) {
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ok" {
			return
		}
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := f.client.Get("https://" + f.addr)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("an answer that broke off looks whole")
	}
	f.do("GET", "/ok", nil)
}

// A client that takes nothing holds up neither others on its connection nor, once its time is over, the handler.
func TestDeadlines(t *testing.T) {
	ended := make(chan error, 1)
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		conn := http.NewResponseController(w)
		switch r.URL.Path {
		case "/flood":
			_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			for {
				if _, err := w.Write(make([]byte, 100_000)); err != nil {
					ended <- err
					return
				}
			}
		case "/read":
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err := io.ReadAll(r.Body)
			ended <- err
		}
	})
	c := f.dial()
	c.headers(1, true, ":path", "/flood")
	c.headers(3, true, ":path", "/other")
	if code := c.status(3); code != "200" {
		t.Errorf("beside a stream that is not read: %q", code)
	}
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	c.headers(5, false, ":path", "/read")
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a body that does not come: %v", err)
	}
}

func TestShutdown(t *testing.T) {
	started, finish := make(chan bool), make(chan bool)
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-finish
		_, _ = io.WriteString(w, "done")
	})
	answer := make(chan string)
	go func() {
		_, body := f.do("GET", "/", nil)
		answer <- body
	}()
	<-started
	down := make(chan error)
	go func() { down <- f.http.Shutdown(context.Background()) }()
	select {
	case err := <-down:
		t.Fatalf("it did not wait for a request: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(finish)
	if got := <-answer; got != "done" {
		t.Errorf("%q", got)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

func TestSilence(t *testing.T) {
	quick := func(s *skiff.Server) {
		s.Stall, s.Patience, s.Idle = 50*time.Millisecond, 50*time.Millisecond, time.Minute
	}
	t.Run("a client that does not answer is dropped", func(t *testing.T) {
		c := start(t, func(http.ResponseWriter, *http.Request) {}, quick).dial()
		c.pongs = false
		if _, err := c.until(func(http2.Frame) bool { return false }); err == nil {
			t.Error("it was not dropped")
		}
	})
	t.Run("an idle connection is closed", func(t *testing.T) {
		c := start(t, func(http.ResponseWriter, *http.Request) {}, quick, func(s *skiff.Server) { s.Idle = 200 * time.Millisecond }).dial()
		f, err := c.until(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok })
		if err != nil || f.(*http2.GoAwayFrame).ErrCode != http2.ErrCodeNo {
			t.Errorf("%v %v", f, err)
		}
	})
}

// raw is a client that writes the frames it is told to.
type raw struct {
	*testing.T
	conn  *tls.Conn
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	pongs bool
}

func (f *fixture) dial() *raw {
	f.Helper()
	conn, err := tls.Dial("tcp", f.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := newRaw(conn)
	c.T = f.T
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = c.fr.WriteSettings()
	return c
}

func newRaw(conn *tls.Conn) *raw {
	c := &raw{conn: conn, fr: http2.NewFramer(conn, conn), pongs: true}
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	return c
}

func (c *raw) headers(id uint32, end bool, pairs ...string) {
	fields := map[string]string{":method": "GET", ":path": "/", ":scheme": "https", ":authority": "h"}
	names := []string{":method", ":path", ":scheme", ":authority"}
	for i := 0; i < len(pairs); i += 2 {
		if _, known := fields[pairs[i]]; !known {
			names = append(names, pairs[i])
		}
		fields[pairs[i]] = pairs[i+1]
	}
	c.block.Reset()
	for _, name := range names {
		if fields[name] != "" {
			_ = c.enc.WriteField(hpack.HeaderField{Name: name, Value: fields[name]})
		}
	}
	block := c.block.Bytes()
	first := block[:min(len(block), 16<<10)]
	_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0; {
		next := block[:min(len(block), 16<<10)]
		block = block[len(next):]
		_ = c.fr.WriteContinuation(id, len(block) == 0, next)
	}
}

// until reads frames until one is it.
func (c *raw) until(is func(http2.Frame) bool) (http2.Frame, error) {
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			return nil, err
		}
		if p, ok := f.(*http2.PingFrame); ok && c.pongs && !p.IsAck() {
			_ = c.fr.WritePing(true, p.Data)
		}
		if is(f) {
			return f, nil
		}
	}
}

func (c *raw) status(id uint32) string {
	f, err := c.until(func(f http2.Frame) bool { h, ok := f.(*http2.MetaHeadersFrame); return ok && h.StreamID == id })
	if err != nil {
		return err.Error()
	}
	return f.(*http2.MetaHeadersFrame).PseudoValue("status")
}

// What breaks the protocol ends the stream or the connection with the code that RFC 9113 asks for, and nothing else.
func TestBrokenProtocol(t *testing.T) {
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}, func(s *skiff.Server) { s.MaxStreams = 4 })
	cases := []struct {
		name   string
		do     func(c *raw)
		conn   bool // the connection ends, not the stream
		code   http2.ErrCode
		stream uint32
	}{
		{"an even stream", func(c *raw) { c.headers(2, true) }, true, http2.ErrCodeProtocol, 0},
		{"a stream twice", func(c *raw) { c.headers(3, true); c.status(3); c.headers(1, true) }, true, http2.ErrCodeProtocol, 0},
		{"data of no stream", func(c *raw) { _ = c.fr.WriteData(1, true, []byte("x")) }, true, http2.ErrCodeProtocol, 0},
		{"a window of no stream", func(c *raw) { _ = c.fr.WriteWindowUpdate(9, 1) }, true, http2.ErrCodeProtocol, 0},
		{"a reset of no stream", func(c *raw) { _ = c.fr.WriteRSTStream(9, http2.ErrCodeCancel) }, true, http2.ErrCodeProtocol, 0},
		{"a window that overflows", func(c *raw) { _ = c.fr.WriteWindowUpdate(0, 1<<31-1) }, true, http2.ErrCodeFlowControl, 0},
		{"a push", func(c *raw) {
			_ = c.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, true, http2.ErrCodeProtocol, 0},
		{"a frame that is too long", func(c *raw) {
			_ = c.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20+1))
		}, true, http2.ErrCodeFrameSize, 0},
		{"settings that are wrong", func(c *raw) { _ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) }, true, http2.ErrCodeProtocol, 0},
		{"no path", func(c *raw) { c.headers(1, true, ":path", "") }, false, http2.ErrCodeProtocol, 1},
		{"CONNECT", func(c *raw) { c.headers(1, true, ":method", "CONNECT") }, false, http2.ErrCodeProtocol, 1},
		{"a scheme of its own", func(c *raw) { c.headers(1, true, ":scheme", "gopher") }, false, http2.ErrCodeProtocol, 1},
		{"a path that is none", func(c *raw) { c.headers(1, true, ":path", "no path") }, false, http2.ErrCodeProtocol, 1},
		{"more data than declared", func(c *raw) {
			c.headers(1, false, "content-length", "1")
			_ = c.fr.WriteData(1, false, []byte("xyz"))
		}, false, http2.ErrCodeProtocol, 1},
		{"less data than declared", func(c *raw) {
			c.headers(1, false, "content-length", "5")
			_ = c.fr.WriteData(1, true, []byte("xyz"))
		}, false, http2.ErrCodeProtocol, 1},
		{"data after the end", func(c *raw) {
			c.headers(1, true)
			c.status(1)
			_ = c.fr.WriteData(1, true, []byte("xyz"))
		}, false, http2.ErrCodeStreamClosed, 1},
		{"too many at once", func(c *raw) {
			for id := uint32(1); id <= 9; id += 2 {
				c.headers(id, false)
			}
		}, false, http2.ErrCodeRefusedStream, 9},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := f.dial()
			c.T = t
			tc.do(c)
			got, err := c.until(func(f http2.Frame) bool {
				switch f := f.(type) {
				case *http2.GoAwayFrame:
					return tc.conn
				case *http2.RSTStreamFrame:
					return !tc.conn && f.StreamID == tc.stream
				}
				return false
			})
			if err != nil {
				t.Fatal(err)
			}
			code := http2.ErrCodeNo
			switch got := got.(type) {
			case *http2.GoAwayFrame:
				code = got.ErrCode
			case *http2.RSTStreamFrame:
				code = got.ErrCode
			}
			if code != tc.code {
				t.Errorf("%v, want %v", code, tc.code)
			}
		})
	}
	f.do("GET", "/", nil)
}

// Streams that are begun and given up at once cost no more than the handlers that may run at a time, and no memory.
func TestRapidReset(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	f := start(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
	}, func(s *skiff.Server) { s.MaxStreams = 10 })
	c := f.dial()
	go func() {
		for id := uint32(1); id < 20_000; id += 2 {
			c.headers(id, true)
			_ = c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		_ = c.fr.WritePing(false, [8]byte{1})
	}()
	if _, err := c.until(func(f http2.Frame) bool { p, ok := f.(*http2.PingFrame); return ok && p.IsAck() }); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if most > 10 {
		t.Errorf("%d handlers ran at once", most)
	}
}

// A client that asks for answers and reads none is cut off before they fill memory.
func TestFloodOfPings(t *testing.T) {
	f := start(t, func(http.ResponseWriter, *http.Request) {})
	c := f.dial()
	ping := bytes.Repeat([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 4000)
	for range 2000 {
		if _, err := c.conn.Write(ping); err != nil {
			return
		}
	}
	t.Error("136 MB of pings were taken from a client that reads nothing")
}
