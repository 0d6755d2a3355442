package nodeipam

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestRanges(t *testing.T) {
	for _, tt := range []struct {
		cluster string
		mask    int
		held    map[string]string
		want    []string // what nodes n0, n1, … get; "" none
	}{
		{cluster: "10.244.0.0/16", mask: 24, want: []string{"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"}},
		{cluster: "10.244.0.0/16", mask: 24, held: map[string]string{"x": "10.244.0.0/23", "y": "10.244.3.128/25"}, want: []string{"10.244.2.0/24", "10.244.4.0/24"}},
		{cluster: "10.244.0.0/16", mask: 24, held: map[string]string{"x": "192.168.0.0/24", "y": "10.0.0.0/8"}, want: []string{""}},
		{cluster: "10.0.0.0/30", mask: 31, want: []string{"10.0.0.0/31", "10.0.0.2/31", ""}},
		{cluster: "10.0.0.0/24", mask: 24, want: []string{"10.0.0.0/24", ""}},
		{cluster: "10.0.0.0/24", mask: 16, want: []string{""}},
		{cluster: "fd00:1::/48", mask: 64, held: map[string]string{"x": "fd00:1:0:1::/64"}, want: []string{"fd00:1::/64", "fd00:1:0:2::/64"}},
		{cluster: "fd00::/100", mask: 120, want: []string{"fd00::/120", "fd00::100/120"}},
	} {
		t.Run(tt.cluster, func(t *testing.T) {
			r := newRanges(netip.MustParsePrefix(tt.cluster), tt.mask)
			for node, held := range tt.held {
				r.hold(netip.MustParsePrefix(held), node)
			}
			for i, want := range tt.want {
				got, ok := r.give(fmt.Sprintf("n%d", i))
				if ok != (want != "") || ok && got.String() != want {
					t.Errorf("n%d: %v %v, want %q", i, got, ok, want)
				}
				if again, _ := r.give(fmt.Sprintf("n%d", i)); ok && again != got {
					t.Errorf("n%d: %v at first, then %v", i, got, again)
				}
			}
		})
	}
	r := newRanges(netip.MustParsePrefix("10.0.0.0/31"), 32)
	first, _ := r.give("a")
	r.give("b")
	r.release("a")
	if again, ok := r.give("c"); !ok || again != first {
		t.Errorf("%v %v, want the range that was given back", again, ok)
	}
}
