package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// Who has connected when the end comes is answered, also if the request comes only then; who comes later is refused.
func TestEndAnswersWhoConnected(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- answerOn(ctx, listener) }()
	early := dial(t, listener)
	if resp, err := early.ask(); err != nil || resp.StatusCode != http.StatusOK || resp.Close {
		t.Fatalf("%v, %v", resp, err)
	}
	late := dial(t, listener)
	if resp, err := dial(t, listener).ask(); err != nil || resp.StatusCode != http.StatusOK { // late is accepted too, by then
		t.Fatalf("%v, %v", resp, err)
	}
	end()
	for { // until nobody is accepted any more
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	if resp, err := late.ask(); err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("a request after the end began: %v, %v", resp, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

type peer struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, l net.Listener) *peer {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &peer{c, bufio.NewReader(c)}
}

func (p *peer) ask() (*http.Response, error) {
	if _, err := fmt.Fprint(p, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err == nil {
		err = resp.Body.Close()
	}
	return resp, err
}
