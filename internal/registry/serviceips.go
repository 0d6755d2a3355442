package registry

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// addresses are a range's as numbers: those a Service can have are first to last, and below dynamic is the band that is left to people who
// choose their own (KEP-3070).
type addresses struct {
	prefix               netip.Prefix
	first, dynamic, last uint64
}

// mostHostBits bounds what is counted of a large IPv6 range.
const mostHostBits = 62

func addressesOf(p netip.Prefix) addresses {
	size := uint64(1) << min(p.Addr().BitLen()-p.Bits(), mostHostBits)
	r := addresses{prefix: p.Masked(), first: 1, last: size - 1}
	if p.Addr().Is4() && size > 2 {
		r.last-- // the broadcast address
	}
	if size <= 2 { // a point-to-point range or a single address has nothing to leave out
		r.first = 0
	}
	if p.Addr().Is4() && size == 1 {
		r.last = 0
	}
	r.dynamic = r.first
	if band := min(max(16, size/16), 256); r.last > band {
		r.dynamic = band + 1
	}
	return r
}

// at is the i-th address.
func (r addresses) at(i uint64) netip.Addr {
	raw := r.prefix.Addr().As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(raw[8:]), i, 0)
	binary.BigEndian.PutUint64(raw[8:], low)
	binary.BigEndian.PutUint64(raw[:8], binary.BigEndian.Uint64(raw[:8])+carry)
	a := netip.AddrFrom16(raw)
	if r.prefix.Addr().Is4() {
		a = a.Unmap()
	}
	return a
}

// free picks an address at random above the band, in the band only when nothing else is left.
func (r addresses) free(taken func(netip.Addr) bool) (netip.Addr, bool) {
	span := r.last - r.dynamic + 1
	offset := rand.Uint64N(span)
	for i := range span {
		if a := r.at(r.dynamic + (offset+i)%span); !taken(a) {
			return a, true
		}
	}
	for i := r.first; i < r.dynamic; i++ {
		if a := r.at(i); !taken(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// gives: an address that a Service can have.
func (r addresses) gives(a netip.Addr) bool {
	return r.prefix.Contains(a) && (r.first == 0 || a != r.at(0) && (!a.Is4() || a != r.at(r.last+1)))
}

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}
