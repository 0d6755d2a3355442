// Package cidr reads the ranges that a cluster's pods and services have: one, or one of each family, the first of which is primary.
package cidr

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ParseList reads one range, or two of different families with a comma between them.
func ParseList(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, part := range strings.Split(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q is no address range such as 10.42.0.0/16 or fd42::/56", part)
		case p != p.Masked():
			return nil, fmt.Errorf("%q is no address range: it begins at %s", part, p.Masked())
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("%q is an IPv4 range written as IPv6; write it as IPv4", part)
		}
		out = append(out, p)
	}
	switch {
	case len(out) > 2:
		return nil, fmt.Errorf("%d ranges are too many; give one, or one of each family", len(out))
	case len(out) == 2 && out[0].Addr().Is4() == out[1].Addr().Is4():
		return nil, fmt.Errorf("%s and %s are of one family; give one range, or one of each family", out[0], out[1])
	}
	return out, nil
}

// MustParseList is ParseList of a text that was checked before.
func MustParseList(text string) []netip.Prefix {
	out, err := ParseList(text)
	if err != nil {
		panic(errors.New("a list of ranges was not checked: " + err.Error()))
	}
	return out
}

// Overlap returns a range of each list that have addresses in common.
func Overlap(a, b []netip.Prefix) (x, y netip.Prefix, ok bool) {
	for _, x := range a {
		for _, y := range b {
			if x.Overlaps(y) {
				return x, y, true
			}
		}
	}
	return x, y, false
}

// Strings are the ranges as the API writes them.
func Strings(list []netip.Prefix) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}
