package nodeipam

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// mostRanges bounds the book-keeping for very large clusters' prefixes.
const mostRanges = 1 << 16

// ranges is the book of who holds which part of the cluster's prefix.
type ranges struct {
	cluster netip.Prefix
	mask    int
	total   int
	next    int              // where the search starts: a range just given back is not given out at once
	holder  map[int]string   // by index
	held    map[string][]int // by node
}

func newRanges(cluster netip.Prefix, mask int) *ranges {
	r := &ranges{cluster: cluster.Masked(), mask: mask, holder: map[int]string{}, held: map[string][]int{}}
	if cluster.IsValid() && mask >= cluster.Bits() && mask <= cluster.Addr().BitLen() {
		r.total = mostRanges
		if width := mask - cluster.Bits(); width < bits.Len(mostRanges)-1 {
			r.total = 1 << width
		}
	}
	return r
}

// hold notes that a node has a range, wholly or partly within ours.
func (r *ranges) hold(p netip.Prefix, node string) {
	if r.total == 0 || !r.cluster.Overlaps(p) { // another family's never does
		return
	}
	first := r.index(p.Masked().Addr())
	last := first
	if p.Bits() < r.mask { // larger than ours: it covers several
		last = first + 1<<min(r.mask-p.Bits(), 30) - 1
	}
	for i := max(first, 0); i <= last && i < r.total; i++ {
		if _, taken := r.holder[i]; !taken {
			r.holder[i] = node
			r.held[node] = append(r.held[node], i)
		}
	}
}

// give returns the range a node holds already, or the next free one.
func (r *ranges) give(node string) (netip.Prefix, bool) {
	if held := r.held[node]; len(held) > 0 {
		return r.at(held[0]), true
	}
	for step := range r.total {
		i := (r.next + step) % r.total
		if _, taken := r.holder[i]; !taken {
			r.holder[i], r.held[node] = node, []int{i}
			r.next = (i + 1) % r.total
			return r.at(i), true
		}
	}
	return netip.Prefix{}, false
}

func (r *ranges) release(node string) {
	for _, i := range r.held[node] {
		delete(r.holder, i)
	}
	delete(r.held, node)
}

// at is the i-th range. Addresses are handled as one 128-bit number, of which IPv4 is the end.
func (r *ranges) at(i int) netip.Prefix {
	raw := r.cluster.Addr().As16()
	high, low := binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])
	shift := r.cluster.Addr().BitLen() - r.mask
	n := uint64(i)
	if shift < 64 {
		var carry uint64
		low, carry = bits.Add64(low, n<<shift, 0)
		high += carry
		if shift > 0 {
			high += n >> (64 - shift)
		}
	} else {
		high += n << (shift - 64)
	}
	binary.BigEndian.PutUint64(raw[:8], high)
	binary.BigEndian.PutUint64(raw[8:], low)
	addr := netip.AddrFrom16(raw)
	if r.cluster.Addr().Is4() {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, r.mask)
}

// index is the number of the range an address lies in; negative before the first.
func (r *ranges) index(a netip.Addr) int {
	raw, base := a.As16(), r.cluster.Addr().As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(raw[8:]), binary.BigEndian.Uint64(base[8:]), 0)
	high, under := bits.Sub64(binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(base[:8]), borrow)
	if under != 0 {
		return 0 // a range that begins before ours covers its first
	}
	shift := r.cluster.Addr().BitLen() - r.mask
	if shift >= 64 {
		return int(high >> (shift - 64))
	}
	return int(high<<(64-shift) | low>>shift)
}
