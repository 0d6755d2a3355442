package policy

import (
	"net/netip"
	"slices"
)

// block is a range of addresses without some parts of it.
func block(whole netip.Prefix, except []netip.Prefix) []Range {
	out := []Range{rangeOf(whole)}
	for _, e := range except {
		hole := rangeOf(e)
		var left []Range
		for _, r := range out {
			left = append(left, r.without(hole)...)
		}
		out = left
	}
	return out
}

func rangeOf(p netip.Prefix) Range {
	last := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return Range{p.Masked().Addr(), end}
}

func (r Range) without(hole Range) (out []Range) {
	if hole.Last.Compare(r.First) < 0 || hole.First.Compare(r.Last) > 0 {
		return []Range{r}
	}
	if r.First.Compare(hole.First) < 0 {
		out = append(out, Range{r.First, hole.First.Prev()})
	}
	if hole.Last.Compare(r.Last) < 0 {
		out = append(out, Range{hole.Last.Next(), r.Last})
	}
	return out
}

// merge makes ranges sorted and disjoint.
func merge(all []Range) (out []Range) {
	slices.SortFunc(all, func(a, b Range) int { return a.First.Compare(b.First) })
	for _, r := range all {
		if n := len(out); n > 0 && out[n-1].First.BitLen() == r.First.BitLen() {
			last := &out[n-1]
			if next := last.Last.Next(); !next.IsValid() || r.First.Compare(next) <= 0 {
				if r.Last.Compare(last.Last) > 0 {
					last.Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// byFamily parts sorted ranges into those of IPv4 and those of IPv6.
func byFamily(all []Range) [][]Range {
	n := slices.IndexFunc(all, func(r Range) bool { return r.First.Is6() })
	if n < 0 {
		n = len(all)
	}
	return slices.DeleteFunc([][]Range{all[:n], all[n:]}, func(r []Range) bool { return len(r) == 0 })
}
