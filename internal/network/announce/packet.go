package announce

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Operations of ARP (RFC 826).
const (
	request uint16 = 1
	reply   uint16 = 2
)

const (
	frameSize = 14 + 28 // Ethernet's header and ARP for IPv4
	offType   = 12
	offARP    = 14
	offOp     = offARP + 6
	offSender = offARP + 8  // hardware address, then IP
	offTarget = offARP + 18 // likewise
)

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ethernetIPv4 is what every ARP packet begins with: hardware Ethernet, protocol IPv4, the sizes of their addresses.
var ethernetIPv4 = [6]byte{0, 1, 8, 0, 6, 4}

// packet is one ARP packet in its Ethernet frame.
type packet struct {
	to        net.HardwareAddr // of the frame
	op        uint16
	senderMAC net.HardwareAddr
	sender    netip.Addr
	targetMAC net.HardwareAddr
	target    netip.Addr
}

func (p packet) frame() []byte {
	f := make([]byte, frameSize)
	copy(f, p.to)
	copy(f[6:], p.senderMAC)
	binary.BigEndian.PutUint16(f[offType:], unix.ETH_P_ARP)
	copy(f[offARP:], ethernetIPv4[:])
	binary.BigEndian.PutUint16(f[offOp:], p.op)
	copy(f[offSender:], p.senderMAC)
	copy(f[offSender+6:], p.sender.AsSlice())
	copy(f[offTarget:], p.targetMAC)
	copy(f[offTarget+6:], p.target.AsSlice())
	return f
}

// parse reads a frame; ok is false for what is no ARP for IPv4. The packet shares the frame's bytes.
func parse(f []byte) (p packet, ok bool) {
	if len(f) < frameSize || binary.BigEndian.Uint16(f[offType:]) != unix.ETH_P_ARP || [6]byte(f[offARP:offARP+6]) != ethernetIPv4 {
		return p, false
	}
	return packet{
		to: f[:6], op: binary.BigEndian.Uint16(f[offOp:]),
		senderMAC: f[offSender : offSender+6], sender: netip.AddrFrom4([4]byte(f[offSender+6:])),
		targetMAC: f[offTarget : offTarget+6], target: netip.AddrFrom4([4]byte(f[offTarget+6:])),
	}, true
}

// answer is the reply to a request for an address that is at mac.
func (p packet) answer(mac net.HardwareAddr) packet {
	return packet{to: p.senderMAC, op: reply, senderMAC: mac, sender: p.target, targetMAC: p.senderMAC, target: p.sender}
}

// gratuitous tells everybody on the link where an address is (RFC 5227, 2.3), as a request and as a reply: some hosts heed only one of them.
func gratuitous(addr netip.Addr, mac net.HardwareAddr) [2]packet {
	ask := packet{to: everybody, op: request, senderMAC: mac, sender: addr, targetMAC: make(net.HardwareAddr, 6), target: addr}
	tell := packet{to: everybody, op: reply, senderMAC: mac, sender: addr, targetMAC: everybody, target: addr}
	return [2]packet{ask, tell}
}

// filter lets requests pass that ask for an address from low to high.
func filter(low, high netip.Addr) ([]unix.SockFilter, error) {
	return assemble(
		bpf.LoadAbsolute{Off: offOp, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(request), SkipTrue: 4},
		bpf.LoadAbsolute{Off: offTarget + 6, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: word(low), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: word(high), SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	)
}

func assemble(program ...bpf.Instruction) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(program)
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, err
}

func word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
