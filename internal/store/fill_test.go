package store

import (
	"fmt"
	"strings"
	"testing"

	"skiff.dev/skiff/internal/api"
)

// What was stored before the start is all there, in order, whether its collection was opened before the load or later; a value that can't be decoded, or
// that makes its row panic, is left out and named.
func TestFill(t *testing.T) {
	const n = 3 * fillChunk
	row := *pods
	row.Default = func(obj api.Object) {
		if obj.GetName() == "panics" {
			panic("a row that panics")
		}
	}
	m := startEtcd(t)
	put := func(name, value string) {
		if _, err := m.Client().Put(t.Context(), "/registry/pods/default/"+name, value); err != nil {
			t.Fatal(err)
		}
	}
	name := func(i int) string { return fmt.Sprintf("p-%04d", i) }
	for i := range n {
		value, err := encode(pods, pod(name(i)))
		if err != nil {
			t.Fatal(err)
		}
		put(name(i), string(value))
	}
	value, err := encode(pods, pod("panics"))
	if err != nil {
		t.Fatal(err)
	}
	put("panics", string(value))
	put("garbage", "k8s\x00garbage")

	for when, early := range map[string]bool{"opened before the load": true, "opened after it": false} {
		s := New(Config{Client: m.Client(), Prefix: "/registry/", Sole: true, DetectMutation: true})
		if early {
			s.Collection(&row)
		}
		runPart(t, s)
		page, err := s.Collection(&row).List(t.Context(), ListOptions{})
		if err != nil || len(page.Entries) != n {
			t.Fatalf("%s: %d pods, want %d: %v", when, len(page.Entries), n, err)
		}
		for i, e := range page.Entries {
			if e.Key() != "default/"+name(i) || e.Object().GetName() != name(i) {
				t.Fatalf("%s: pod %d is %s", when, i, e.Key())
			}
		}
		bad := s.Corrupt()
		if len(bad) != 2 || bad["/registry/pods/default/garbage"] == nil || !strings.Contains(fmt.Sprint(bad["/registry/pods/default/panics"]), "a row that panics") {
			t.Errorf("%s: corrupt are %v", when, bad)
		}
	}
}
