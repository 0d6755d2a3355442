package announce

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Neighbour discovery (RFC 4861): a question is a neighbour solicitation, its answer a neighbour advertisement, both ICMPv6.
const (
	solicitation  = 135
	advertisement = 136

	flagSolicited = 0x40 // of an advertisement: somebody asked
	flagOverride  = 0x20 // what was known before is no longer so

	optionSource = 1 // the sender's hardware address
	optionTarget = 2 // that of the address spoken of

	offIPv6   = 14
	offICMP   = offIPv6 + 40
	offSpoken = offICMP + 8 // the address spoken of
	sizeAsked = offSpoken + 16
	sizeTold  = sizeAsked + 8 // with the hardware address

	hopLimit = 255 // so that a packet from beyond the link is known
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")
	ndp         = protocol{name: "NDP", etherType: unix.ETH_P_IPV6, filter: filterNDP, answer: answerNDP, tell: tellNDP, group: solicitedNode}
	solicitedBy = netip.MustParseAddr("ff02::1:ff00:0")
)

// solicitedNode is the group in which a host listens for questions about one of its addresses.
func solicitedNode(a netip.Addr) netip.Addr {
	group, of := solicitedBy.As16(), a.As16()
	copy(group[13:], of[13:])
	return netip.AddrFrom16(group)
}

// question reads a solicitation: what is asked for, by whom, and the hardware address to which the answer goes. Checksums are not looked at: between
// hosts on one machine they are not there.
func question(f []byte) (target, from netip.Addr, back net.HardwareAddr, ok bool) {
	if len(f) < sizeAsked || binary.BigEndian.Uint16(f[offType:]) != unix.ETH_P_IPV6 || f[offIPv6+6] != unix.IPPROTO_ICMPV6 || f[offIPv6+7] != hopLimit ||
		f[offICMP] != solicitation || f[offICMP+1] != 0 {
		return target, from, nil, false
	}
	back = f[6:12]
	for o := f[sizeAsked:]; len(o) >= 8; {
		size := int(o[1]) * 8
		if size == 0 || size > len(o) {
			return target, from, nil, false
		}
		if o[0] == optionSource && size == 8 {
			back = o[2:8]
		}
		o = o[size:]
	}
	from, target = netip.AddrFrom16([16]byte(f[offIPv6+8:])), netip.AddrFrom16([16]byte(f[offSpoken:]))
	return target, from, back, true
}

func answerNDP(frame []byte, here func(netip.Addr) bool, mac net.HardwareAddr) []byte {
	target, from, back, ok := question(frame)
	if !ok || !here(target) {
		return nil
	}
	if from.IsUnspecified() { // somebody means to take the address; who has it tells everybody
		return advertise(target, mac, allNodes, groupMAC(allNodes), 0)
	}
	return advertise(target, mac, from, back, flagSolicited)
}

func tellNDP(a netip.Addr, mac net.HardwareAddr) [][]byte {
	return [][]byte{advertise(a, mac, allNodes, groupMAC(allNodes), 0)}
}

// groupMAC is where Ethernet carries a group's packets (RFC 2464).
func groupMAC(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// advertise that an address is at mac.
func advertise(a netip.Addr, mac net.HardwareAddr, to netip.Addr, toMAC net.HardwareAddr, flags byte) []byte {
	f := make([]byte, sizeTold)
	copy(f, toMAC)
	copy(f[6:], mac)
	binary.BigEndian.PutUint16(f[offType:], unix.ETH_P_IPV6)
	ip := f[offIPv6:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], sizeTold-offICMP)
	ip[6], ip[7] = unix.IPPROTO_ICMPV6, hopLimit
	copy(ip[8:], a.AsSlice())
	copy(ip[24:], to.AsSlice())
	f[offICMP], f[offICMP+4] = advertisement, flags|flagOverride
	copy(f[offSpoken:], a.AsSlice())
	f[sizeAsked], f[sizeAsked+1] = optionTarget, 1
	copy(f[sizeAsked+2:], mac)
	binary.BigEndian.PutUint16(f[offICMP+2:], checksum(f))
	return f
}

// checksum of a frame's ICMPv6 packet, with the pseudo-header of RFC 8200.
func checksum(f []byte) uint16 {
	sum := uint32(len(f)-offICMP) + unix.IPPROTO_ICMPV6
	for i := offIPv6 + 8; i < len(f); i += 2 { // both addresses, then the packet
		sum += uint32(binary.BigEndian.Uint16(f[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// low24 is what the group of an address is made of.
func low24(a netip.Addr) uint32 {
	b := a.As16()
	return binary.BigEndian.Uint32(b[12:]) & 0xffffff
}

// filterNDP goes by the end of the address, as groups do.
func filterNDP(addrs map[netip.Addr]int) ([]unix.SockFilter, error) {
	low, high := uint32(0xffffff), uint32(0)
	for a := range addrs {
		low, high = min(low, low24(a)), max(high, low24(a))
	}
	return assemble(
		bpf.LoadAbsolute{Off: offIPv6 + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 7},
		bpf.LoadAbsolute{Off: offICMP, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: solicitation, SkipTrue: 5},
		bpf.LoadAbsolute{Off: offSpoken + 12, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffffff},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: low, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: high, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	)
}
