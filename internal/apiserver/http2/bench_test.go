package http2_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	skiff "skiff.dev/skiff/internal/apiserver/http2"
)

// BenchmarkServe compares with net/http's own server: what a process spends that is both ends, the same client at one.
func BenchmarkServe(b *testing.B) {
	body := make([]byte, 13<<20)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache, private")
		w.Header().Set("Audit-Id", "5a4e3b1c-0f4d-4a55-8f6b-0d1f6d1a8f5e")
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
		switch r.URL.Path {
		case "/get":
			_, _ = w.Write(body[:1500])
		case "/list":
			for rest := body; len(rest) > 0; {
				n := min(len(rest), 16<<10-9)
				_, _ = w.Write(rest[:n])
				rest = rest[n:]
			}
		case "/events":
			for range 1000 {
				_, _ = w.Write(body[:1500])
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	for _, what := range []struct {
		path string
		each int
	}{{"/get", 1}, {"/events", 1000}, {"/list", 1}} {
		for _, own := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/own=%v", what.path[1:], own), func(b *testing.B) {
				ask := client(b, serve(b, handler, own), what.path)
				ask()
				before := spent()
				for b.Loop() {
					ask()
				}
				b.ReportMetric(float64((spent()-before).Nanoseconds())/1000/float64(b.N*what.each), "cpu-µs/each")
			})
		}
	}
}

func serve(b *testing.B, h http.Handler, own bool) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	hs := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(b)}, DynamicRecordSizingDisabled: true}}
	serve := func() error { return hs.ServeTLS(l, "", "") }
	if own {
		s := &skiff.Server{MaxStreams: 100, MaxHeaderBytes: 1 << 20, Idle: time.Minute, Stall: time.Minute, Patience: time.Minute}
		serve = func() error { return s.Serve(hs, l) }
	}
	go func() { _ = serve() }()
	b.Cleanup(func() { hs.Close() })
	return l.Addr().String()
}

// client asks for a path again and again on one connection, as cheaply as may be, and lets the server send as much as it likes.
func client(b *testing.B, addr, path string) (ask func()) {
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	c := newRaw(conn)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	_ = c.fr.WriteWindowUpdate(0, 1<<30)
	c.fr.SetReuseFrames()
	id, owed := uint32(1), 0
	return func() {
		c.headers(id, true, ":path", path)
		for {
			f, err := c.fr.ReadFrame()
			if err != nil {
				b.Fatal(err)
			}
			d, ok := f.(*http2.DataFrame)
			if !ok {
				continue
			}
			if owed += len(d.Data()); owed > 1<<28 {
				_ = c.fr.WriteWindowUpdate(0, uint32(owed))
				owed = 0
			}
			if d.StreamEnded() {
				break
			}
		}
		id += 2
	}
}

// spent is the CPU time of this process.
func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
