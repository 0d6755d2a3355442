package main

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// connections counts a server's connections, by what it says of them.
type connections struct {
	open sync.WaitGroup
}

func (c *connections) note(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.open.Done()
	}
}

// wait returns when all are closed, or ctx has ended. There may be no new ones by then.
func (c *connections) wait(ctx context.Context) {
	done := make(chan struct{})
	go func() { c.open.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
