package announce

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// groups are those of a link that a speaker listens in. The kernel joins them, so that it tells network cards and switches.
type groups struct {
	link   int
	fd     int // -1 until there is one
	joined map[netip.Addr]bool
}

func newGroups(link int) *groups { return &groups{link: link, fd: -1, joined: map[netip.Addr]bool{}} }

// set joins and leaves.
func (g *groups) set(want map[netip.Addr]bool) (err error) {
	if len(want) > 0 && g.fd < 0 {
		if g.fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open a socket for groups: %w", err)
		}
	}
	var errs []error
	for a := range want {
		if g.joined[a] {
			continue
		}
		if err := g.change(unix.IPV6_JOIN_GROUP, a); err != nil {
			errs = append(errs, fmt.Errorf("join group %s: %w", a, err))
			continue
		}
		g.joined[a] = true
	}
	for a := range g.joined {
		if !want[a] {
			_ = g.change(unix.IPV6_LEAVE_GROUP, a) // a link that is gone has none
			delete(g.joined, a)
		}
	}
	return errors.Join(errs...)
}

func (g *groups) change(option int, a netip.Addr) error {
	return unix.SetsockoptIPv6Mreq(g.fd, unix.IPPROTO_IPV6, option, &unix.IPv6Mreq{Multiaddr: a.As16(), Interface: uint32(g.link)})
}

// close leaves them all.
func (g *groups) close() {
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
	}
	g.fd = -1
	clear(g.joined)
}
