package nodeipam

import (
	"net/netip"
	"slices"
	"testing"
)

func TestANodeGetsOneRangeOfEachFamilyOrNone(t *testing.T) {
	r := &reconciler{waiting: map[string]bool{}, books: []*ranges{
		newRanges(netip.MustParsePrefix("10.244.0.0/23"), 24), newRanges(netip.MustParsePrefix("fd00:1::/64"), 66),
	}}
	for _, tt := range []struct {
		node string
		want []string
	}{
		{"a", []string{"10.244.0.0/24", "fd00:1::/66"}},
		{"b", []string{"10.244.1.0/24", "fd00:1:0:0:4000::/66"}},
		{"a", []string{"10.244.0.0/24", "fd00:1::/66"}},
		{"c", nil},
	} {
		if got, ok := r.give(tt.node); !slices.Equal(got, tt.want) || ok != (tt.want != nil) {
			t.Errorf("%s: %v %v, want %v", tt.node, got, ok, tt.want)
		}
	}
	r.release("a")
	if got, _ := r.give("c"); !slices.Equal(got, []string{"10.244.0.0/24", "fd00:1:0:0:8000::/66"}) {
		t.Errorf("c after a went: %v", got)
	}
}
