package host

import (
	"errors"
	"net"
	"sync"
)

// both makes one listener of two; the second may be nil.
func both(first, second net.Listener) net.Listener {
	if second == nil {
		return first
	}
	j := &joined{Listener: first, second: second, conns: make(chan net.Conn), closed: make(chan struct{})}
	go j.accept(first)
	go j.accept(second)
	return j
}

type joined struct {
	net.Listener // the first: its address is the pair's
	second       net.Listener
	conns        chan net.Conn
	once         sync.Once
	closed       chan struct{}
}

func (j *joined) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		select {
		case j.conns <- conn:
		case <-j.closed:
			conn.Close()
			return
		}
	}
}

func (j *joined) Accept() (net.Conn, error) {
	select {
	case conn := <-j.conns:
		return conn, nil
	case <-j.closed:
		return nil, net.ErrClosed
	}
}

func (j *joined) Close() error {
	j.once.Do(func() { close(j.closed) })
	return errors.Join(j.Listener.Close(), j.second.Close())
}
