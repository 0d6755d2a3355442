package controller

import (
	"slices"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	known := []string{"a", "b", "c"}
	for _, tt := range []struct{ selection, want, fails string }{
		{selection: "", want: "a b c"},
		{selection: "*", want: "a b c"},
		{selection: "*,-b", want: "a c"},
		{selection: "-b,*", want: "a c"},
		{selection: "b", want: "b"},
		{selection: "-b", want: ""},
		{selection: " a , c ", want: "a c"},
		{selection: "*,-x", fails: `no controller "x"; there are a, b, c`},
	} {
		got, err := choose(tt.selection, known)
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%q: error %v, want %q", tt.selection, err, tt.fails)
			}
			continue
		}
		var on []string
		for name, is := range got {
			if is {
				on = append(on, name)
			}
		}
		slices.Sort(on)
		if strings.Join(on, " ") != tt.want || err != nil {
			t.Errorf("%q: chose %v, %v; want %s", tt.selection, on, err, tt.want)
		}
	}
}
