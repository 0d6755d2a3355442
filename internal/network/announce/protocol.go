package announce

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// protocol is how the hosts on a link find out where an address is, for one family of addresses.
type protocol struct {
	name      string
	etherType uint16
	// filter lets the questions pass that may be about these addresses: the kernel does not wake this process for the rest of the link's.
	filter func(addrs map[netip.Addr]int) ([]unix.SockFilter, error)
	// answer is the frame that replies to a question about an address that is here, at mac; nil for all else.
	answer func(frame []byte, here func(netip.Addr) bool, mac net.HardwareAddr) []byte
	// tell are the frames that tell everybody on the link where an address is.
	tell func(a netip.Addr, mac net.HardwareAddr) [][]byte
	// group is the one to which questions about an address are sent; zero where they are sent to everybody.
	group func(netip.Addr) netip.Addr
}

func protocolOf(a netip.Addr) *protocol {
	if a.Is4() {
		return &arp
	}
	return &ndp
}

var arp = protocol{
	name: "ARP", etherType: unix.ETH_P_ARP,
	filter: func(addrs map[netip.Addr]int) ([]unix.SockFilter, error) {
		low, high := netip.AddrFrom4([4]byte{255, 255, 255, 255}), netip.AddrFrom4([4]byte{})
		for a := range addrs {
			if a.Less(low) {
				low = a
			}
			if high.Less(a) {
				high = a
			}
		}
		return filter(low, high)
	},
	answer: func(frame []byte, here func(netip.Addr) bool, mac net.HardwareAddr) []byte {
		p, ok := parse(frame)
		if !ok || p.op != request || p.sender == p.target || !here(p.target) {
			return nil
		}
		return p.answer(mac).frame()
	},
	tell: func(a netip.Addr, mac net.HardwareAddr) (out [][]byte) {
		for _, p := range gratuitous(a, mac) {
			out = append(out, p.frame())
		}
		return out
	},
	group: func(netip.Addr) netip.Addr { return netip.Addr{} },
}
