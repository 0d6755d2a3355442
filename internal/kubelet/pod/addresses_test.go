package pod

import (
	"slices"
	"testing"
)

func TestPrimaryAddressFirst(t *testing.T) {
	for _, c := range []struct{ pod, node, want []string }{
		{[]string{"10.42.0.5", "fd42::5"}, []string{"192.0.2.1", "2001:db8::1"}, []string{"10.42.0.5", "fd42::5"}},
		{[]string{"10.42.0.5", "fd42::5"}, []string{"2001:db8::1", "192.0.2.1"}, []string{"fd42::5", "10.42.0.5"}},
		{[]string{"10.42.0.5", "fd42::5"}, []string{"2001:db8::1"}, []string{"fd42::5", "10.42.0.5"}},
		{[]string{"10.42.0.5"}, []string{"2001:db8::1"}, []string{"10.42.0.5"}},
		{nil, []string{"192.0.2.1"}, nil},
	} {
		if got := primaryFirst(c.pod, c.node); !slices.Equal(got, c.want) {
			t.Errorf("%v on a node with %v: %v, want %v", c.pod, c.node, got, c.want)
		}
	}
}
