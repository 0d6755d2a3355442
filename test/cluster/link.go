package cluster

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Link is a switch: hosts that are plugged into it see one another, as 172.31.0.11 and fd31::11, .12 and so on.
type Link struct {
	t      T
	handle netns.NsHandle
	plugs  int
}

// NewLink makes a link that goes with the test. Its hosts count as one when it comes to how many there may be at a time: a test that waits for
// its second host while another has the last place would wait for ever.
func NewLink(t T) *Link {
	t.Helper()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	l := &Link{t: t}
	name := fmt.Sprintf("skifftest-%d-%d", os.Getpid(), hosts.Add(1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if l.handle, err = netns.NewNamed(name); err != nil { // enters it too
		t.Fatal(err)
	}
	release := hold(func() { _ = netns.DeleteNamed(name) })
	t.Cleanup(func() {
		defer release()
		l.handle.Close()
		if err := netns.DeleteNamed(name); err != nil {
			t.Errorf("delete network namespace %s: %v", name, err)
		}
	})
	err = makeSwitch()
	if back := netns.Set(own); back != nil {
		panic(back) // this thread would carry a foreign namespace into other goroutines
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// makeSwitch makes a bridge, which also answers as the hosts' gateway.
func makeSwitch() error {
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}}); err != nil {
		return err
	}
	bridge, err := netlink.LinkByName("switch")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 31, 0, 1), Mask: net.CIDRMask(24, 32)}}); err != nil {
		return err
	}
	return netlink.LinkSetUp(bridge)
}

// NewHost makes a host that is plugged into the link.
func (l *Link) NewHost(t T) *Host {
	t.Helper()
	l.plugs++
	port := fmt.Sprintf("port%d", l.plugs)
	h := newHost(t, fmt.Sprintf("172.31.0.%d", 10+l.plugs), fmt.Sprintf("fd31::%d", 10+l.plugs), func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: port, PeerNamespace: netlink.NsFd(int(l.handle)),
		})
	})
	h.port = func(up bool) error { return l.set(port, up) }
	if err := l.set(port, true); err != nil {
		t.Fatal(err)
	}
	return h
}

// set connects a port with the others, or cuts it off.
func (l *Link) set(port string, up bool) error {
	inside, err := netlink.NewHandleAt(l.handle)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(port)
	if err != nil {
		return err
	}
	if !up {
		return inside.LinkSetDown(link)
	}
	bridge, err := inside.LinkByName("switch")
	if err != nil {
		return err
	}
	if err := inside.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return inside.LinkSetUp(link)
}

// IP is the host's address.
func (h *Host) IP() string { return h.ip }

// IP6 is its other one; empty on a machine without IPv6.
func (h *Host) IP6() string { return h.ip6 }

// Cut pulls the host's plug, and Mend puts it back.
func (h *Host) Cut() { h.plugged(false) }

// Mend undoes Cut.
func (h *Host) Mend() { h.plugged(true) }

func (h *Host) plugged(up bool) {
	h.t.Helper()
	if err := h.port(up); err != nil {
		h.t.Fatal(err)
	}
}

// Neighbour is the hardware address that the host has for an address on its link.
func (h *Host) Neighbour(ip string) (mac net.HardwareAddr, err error) {
	err = h.Do(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range all {
			if n.IP.String() == ip && len(n.HardwareAddr) > 0 {
				mac = n.HardwareAddr
			}
		}
		if err == nil && mac == nil {
			err = fmt.Errorf("%s knows no %s on its link", h.ip, ip)
		}
		return err
	})
	return mac, err
}
