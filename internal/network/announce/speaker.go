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

// speaker answers on one link.
type speaker struct {
	index int
	alive func() bool // a node that is not may have a successor
	log   *slog.Logger
	stop  chan struct{}
	ended chan struct{}

	mu    sync.Mutex
	addrs map[netip.Addr]int // how many services have it; more than one for a moment only
	sock  *os.File           // nil while the link cannot be used
	mac   net.HardwareAddr
}

// speak starts a speaker without addresses.
func speak(index int, alive func() bool, log *slog.Logger) *speaker {
	s := &speaker{index: index, alive: alive, log: log, stop: make(chan struct{}), ended: make(chan struct{}), addrs: map[netip.Addr]int{}}
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
	s.tell(a)
	for _, later := range tellAgain {
		time.AfterFunc(later, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tell(a)
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
	return len(s.addrs)
}

// tell the link where an address is, if it is here. The lock is held.
func (s *speaker) tell(a netip.Addr) {
	if s.addrs[a] == 0 || s.sock == nil || !s.alive() {
		return
	}
	for _, p := range gratuitous(a, s.mac) {
		_, _ = s.sock.Write(p.frame()) // a link that fails wakes the reader, which tells it all again
	}
}

func (s *speaker) tellAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.addrs {
		s.tell(a)
	}
}

// open the socket, and tell the link of all addresses.
func (s *speaker) open() error {
	link, err := net.InterfaceByIndex(s.index)
	if err != nil {
		return fmt.Errorf("find link %d: %w", s.index, err)
	}
	if len(link.HardwareAddr) != 6 {
		return fmt.Errorf("link %s is no Ethernet, so nobody there asks by ARP", link.Name)
	}
	sock, err := listen(s.index)
	if err != nil {
		return fmt.Errorf("open an ARP socket on %s: %w", link.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop:
		return sock.Close()
	default:
	}
	if err := errors.Join(s.refilter(sock), bind(sock, s.index)); err != nil {
		_ = sock.Close()
		return fmt.Errorf("open an ARP socket on %s: %w", link.Name, err)
	}
	s.sock, s.mac = sock, link.HardwareAddr
	for a := range s.addrs {
		s.tell(a)
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
	buf := make([]byte, 256)
	for {
		n, err := sock.Read(buf)
		if err != nil {
			return err
		}
		p, ok := parse(buf[:n])
		if !ok || p.op != request || p.sender == p.target {
			continue
		}
		s.mu.Lock()
		if s.addrs[p.target] > 0 && s.alive() {
			_, _ = sock.Write(p.answer(s.mac).frame())
		}
		s.mu.Unlock()
	}
}

// refilter has the kernel pass requests for the addresses there are. The lock is held.
func (s *speaker) refilter(sock *os.File) error {
	low, high := netip.AddrFrom4([4]byte{255, 255, 255, 255}), netip.AddrFrom4([4]byte{})
	for a := range s.addrs {
		if a.Less(low) {
			low = a
		}
		if high.Less(a) {
			high = a
		}
	}
	program, err := filter(low, high)
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
	return os.NewFile(uintptr(fd), fmt.Sprintf("arp on link %d", index)), nil
}

func bind(sock *os.File, index int) error {
	const arp = unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8 // in the network's order
	return control(sock, func(fd int) error { return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: index}) })
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
