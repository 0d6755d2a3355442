package announce

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Who begins to answer says so at once, and again for hosts that missed it.
var tellAgain = []time.Duration{time.Second, 3 * time.Second}

const reopenAfter = time.Second

// speaker answers on one link, in one family.
type speaker struct {
	*protocol
	index int
	alive func() bool // a node that is not may have a successor
	log   *slog.Logger
	stop  chan struct{}
	ended chan struct{}

	mu    sync.Mutex
	addrs map[netip.Addr]int // how many services have it; more than one for a moment only
	sock  *os.File           // nil while the link cannot be used
	mac   net.HardwareAddr
	in    *groups
}

// speak starts a speaker without addresses.
func speak(index int, by *protocol, alive func() bool, log *slog.Logger) *speaker {
	s := &speaker{protocol: by, in: newGroups(index), index: index, alive: alive, log: log, stop: make(chan struct{}), ended: make(chan struct{}), addrs: map[netip.Addr]int{}}
	if err := s.open(); err != nil {
		log.Error("cannot answer for services' addresses; trying again", "err", err)
	}
	go s.run()
	return s
}

func (s *speaker) close() {
	close(s.stop)
	s.mu.Lock()
	if s.sock != nil {
		_ = s.sock.Close()
	}
	s.in.close()
	s.mu.Unlock()
	<-s.ended
}

func (s *speaker) add(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs[a]++
	if s.sock == nil {
		return
	}
	if err := s.refilter(s.sock); err != nil {
		s.log.Error("cannot answer for a service's address", "address", a, "err", err)
	}
	s.sayWhere(a)
	for _, later := range tellAgain {
		time.AfterFunc(later, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sayWhere(a)
		})
	}
}

// drop an address; what is left is how many the link still has.
func (s *speaker) drop(a netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addrs[a]--; s.addrs[a] <= 0 {
		delete(s.addrs, a)
	}
	_ = s.listenIn() // leaving a group always succeeds
	return len(s.addrs)
}

// sayWhere tells the link where an address is, if it is here. The lock is held.
func (s *speaker) sayWhere(a netip.Addr) {
	if s.addrs[a] == 0 || s.sock == nil || !s.alive() {
		return
	}
	for _, frame := range s.tell(a, s.mac) {
		_, _ = s.sock.Write(frame) // a link that fails wakes the reader, which tells it all again
	}
}

func (s *speaker) tellAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.addrs {
		s.sayWhere(a)
	}
}

// open the socket, and tell the link of all addresses.
func (s *speaker) open() error {
	link, err := net.InterfaceByIndex(s.index)
	if err != nil {
		return fmt.Errorf("find link %d: %w", s.index, err)
	}
	if len(link.HardwareAddr) != 6 {
		return fmt.Errorf("link %s is no Ethernet, so nobody there asks by %s", link.Name, s.name)
	}
	sock, err := listen(s.index)
	if err != nil {
		return fmt.Errorf("open a socket for %s on %s: %w", s.name, link.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop:
		return sock.Close()
	default:
	}
	if err := errors.Join(s.refilter(sock), bind(sock, s.index, s.etherType)); err != nil {
		_ = sock.Close()
		return fmt.Errorf("open a socket for %s on %s: %w", s.name, link.Name, err)
	}
	s.sock, s.mac = sock, link.HardwareAddr
	for a := range s.addrs {
		s.sayWhere(a)
	}
	return nil
}

// run answers until the speaker is closed, and opens the link again when it failed.
func (s *speaker) run() {
	defer close(s.ended)
	for {
		if s.sock != nil { // only this goroutine changes it from now on
			err := s.answer(s.sock)
			s.mu.Lock()
			_ = s.sock.Close()
			s.sock = nil
			s.mu.Unlock()
			select {
			case <-s.stop:
				return
			default:
				s.log.Warn("the link on which services' addresses are announced has failed; trying again", "err", err)
			}
		}
		select {
		case <-s.stop:
			return
		case <-time.After(reopenAfter):
			_ = s.open() // said once
		}
	}
}

func (s *speaker) answer(sock *os.File) error {
	buf := make([]byte, 256) // a question with all its options is shorter
	for {
		n, err := sock.Read(buf)
		if err != nil {
			return err
		}
		s.mu.Lock()
		here := func(a netip.Addr) bool { return s.addrs[a] > 0 && s.alive() }
		if answer := s.protocol.answer(buf[:n], here, s.mac); answer != nil {
			_, _ = sock.Write(answer)
		}
		s.mu.Unlock()
	}
}

// listenIn the groups to which questions about the addresses there are go. The lock is held.
func (s *speaker) listenIn() error {
	want := map[netip.Addr]bool{}
	for a := range s.addrs {
		if g := s.group(a); g.IsValid() {
			want[g] = true
		}
	}
	return s.in.set(want)
}

// refilter has the kernel pass questions about the addresses there are. The lock is held.
func (s *speaker) refilter(sock *os.File) error {
	if err := s.listenIn(); err != nil {
		return err
	}
	program, err := s.filter(s.addrs)
	if err != nil {
		return err
	}
	return control(sock, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
}

// listen opens a socket that gets nothing before it is bound.
func listen(index int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("neighbours on link %d", index)), nil
}

func bind(sock *os.File, index int, etherType uint16) error {
	networks := etherType>>8 | etherType<<8 // in the network's order
	return control(sock, func(fd int) error { return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networks, Ifindex: index}) })
}

func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if outer := conn.Control(func(fd uintptr) { err = do(int(fd)) }); outer != nil {
		return outer
	}
	return err
}
