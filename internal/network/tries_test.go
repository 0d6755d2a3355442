package network

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestTriesAreLedAnew has a client whose first packet is lost on its way to an endpoint that leaves its service before the client tries again.
func TestTriesAreLedAnew(t *testing.T) {
	for name, c := range map[string]struct {
		family
		service string
	}{"IPv4": {v4, "10.43.0.20"}, "IPv6": {v6, "fd43::20"}} {
		t.Run(name, func(t *testing.T) {
			w := with6(t, c.family)
			stays, leaves, client := w.pod("stays", ""), w.pod("leaves", ""), w.pod("client", "")
			stays.serve("stays", 8080)
			end := leaves.deaf(8080)
			w.client.put(service("s", c.service, nil), endpoints("s", leaves.addr))
			eventually(t, "the service is programmed", func() bool { serves, _, _ := w.net.rules.withdrawn(leaves.addrs); return serves })
			froms := map[string]*namespace{"a pod": client, "the node": nil}
			answers := make(chan error, len(froms))
			for _, from := range froms {
				go func() { answers <- from.patient(c.service, "stays") }()
			}
			to := triesTo{netip.AddrPortFrom(leaves.addr, 8080): true}
			eventually(t, "both try", func() bool { return tracked(t, c.family, to) == len(froms) })
			w.client.put(endpoints("s", stays.addr))
			eventually(t, "their tries are forgotten", func() bool { return tracked(t, c.family, to) == 0 })
			end() // nobody listens there any more
			for range froms {
				if err := <-answers; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// deaf listens at a port, accepts nothing, and has no room for a connection more.
func (n *namespace) deaf(port int) (end func()) {
	n.t.Helper()
	var fd int
	n.in(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			if err = unix.Bind(fd, &unix.SockaddrInet6{Port: port}); err == nil {
				err = unix.Listen(fd, 0)
			}
		}
		if err != nil {
			n.t.Error(err)
		}
	})
	c, err := net.Dial("tcp", netip.AddrPortFrom(n.addr, uint16(port)).String())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return func() { _ = unix.Close(fd) }
}

// patient asks a service once, and gives it time to try again.
func (n *namespace) patient(service, want string) (err error) {
	n.in(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", net.JoinHostPort(service, "80"), 10*time.Second); err != nil {
			return
		}
		defer c.Close()
		var got [5]byte
		if _, err = c.Read(got[:]); err == nil && string(got[:]) != want {
			err = fmt.Errorf("answered by %q", got)
		}
	})
	return err
}

// TestAboutToConnect: the sender of a first packet that was answered may send its request any time, unless it has been silent.
func TestAboutToConnect(t *testing.T) {
	socket := func(state uint8, port uint16, retrans uint8) *netlink.InetDiagTCPInfoResp {
		return &netlink.InetDiagTCPInfoResp{InetDiagMsg: &netlink.Socket{State: state, Retrans: retrans, ID: netlink.SocketID{SourcePort: port}}}
	}
	for name, c := range map[string]struct {
		sockets []*netlink.InetDiagTCPInfoResp
		want    bool
	}{
		"nobody":         {[]*netlink.InetDiagTCPInfoResp{socket(netlink.TCP_LISTEN, 80, 0)}, false},
		"somebody":       {[]*netlink.InetDiagTCPInfoResp{socket(netlink.TCP_LISTEN, 80, 0), socket(netlink.TCP_SYN_RECV, 80, 0)}, true},
		"somebody gone":  {[]*netlink.InetDiagTCPInfoResp{socket(netlink.TCP_LISTEN, 80, 0), socket(netlink.TCP_SYN_RECV, 80, 1)}, false},
		"the pod itself": {[]*netlink.InetDiagTCPInfoResp{socket(netlink.TCP_LISTEN, 80, 0), socket(netlink.TCP_SYN_SENT, 81, 0)}, false},
	} {
		if got := anyWaits(c.sockets); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
