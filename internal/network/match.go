package network

import (
	"net"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of four bytes each. What a lookup reads or writes as one key lies in registers that follow one another.
const (
	reg0 uint32 = unix.NFT_REG32_00 + iota
	reg1
	reg2
	reg3
)

// masqueradeMark is the bit of the packet mark that asks for masquerade after routing; it is the one Kubernetes always used for this.
const masqueradeMark = 0x4000

const ctStatusDNAT = 1 << 5

// exprs makes one expression list out of several.
func exprs(parts ...[]expr.Any) (out []expr.Any) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func one(e expr.Any) []expr.Any { return []expr.Any{e} }

func isFamily(f family) []expr.Any { return metaIs(expr.MetaKeyNFPROTO, []byte{byte(f)}) }

// loadSource and loadDestination load an address into as many registers as it takes.
func (f family) loadSource(reg uint32) expr.Any {
	at := uint32(12)
	if f == v6 {
		at = 8
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: f.size()}
}

func (f family) loadDestination(reg uint32) expr.Any {
	at := uint32(16)
	if f == v6 {
		at = 24
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: f.size()}
}

func loadDestinationPort(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// loadFrontend loads what a packet is sent to: its address, and then two registers.
func (f family) loadFrontend() []expr.Any {
	w := f.width()
	return []expr.Any{f.loadDestination(reg0), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0 + w}, loadDestinationPort(reg1 + w)}
}

// within matches a packet of a range's family whose address lies, or with not does not lie, in the range.
func within(load func(uint32) expr.Any, not bool, p netip.Prefix) []expr.Any {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	size := p.Addr().BitLen() / 8
	return []expr.Any{
		load(reg0),
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: uint32(size), Mask: net.CIDRMask(p.Bits(), 8*size), Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: reg0, Data: p.Masked().Addr().AsSlice()},
	}
}

func from(p netip.Prefix) []expr.Any    { return within(familyOf(p.Addr()).loadSource, false, p) }
func notFrom(p netip.Prefix) []expr.Any { return within(familyOf(p.Addr()).loadSource, true, p) }
func to(p netip.Prefix) []expr.Any      { return within(familyOf(p.Addr()).loadDestination, false, p) }
func notTo(p netip.Prefix) []expr.Any   { return within(familyOf(p.Addr()).loadDestination, true, p) }

// isLocal matches a packet whose source or destination is, or with not is not, an address of this host.
func isLocal(source, not bool) []expr.Any {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return []expr.Any{
		&expr.Fib{Register: reg0, ResultADDRTYPE: true, FlagSADDR: source, FlagDADDR: !source},
		&expr.Cmp{Op: op, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func metaIs(key expr.MetaKey, data []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg0}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: data}}
}

func number(n uint32) []byte { return binaryutil.NativeEndian.PutUint32(n) }

// wasRedirected matches connections whose destination was changed.
func wasRedirected() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: number(ctStatusDNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

func isMarked() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: number(masqueradeMark), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

func mark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: number(^uint32(masqueradeMark)), Xor: number(masqueradeMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg0},
	}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return one(&expr.Verdict{Kind: kind, Chain: chain})
}

func gotoChain(chain string) []expr.Any { return verdict(expr.VerdictGoto, chain) }

// redirect changes the destination to an address in registers, and the port in the one after it.
func (f family) redirect(addr uint32) []expr.Any {
	return one(&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f), RegAddrMin: addr, RegProtoMin: addr + f.width()})
}
