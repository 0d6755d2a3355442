package schedulertest

import (
	"testing"
)

// All pods that count find a place, and no two pods, nodes or workloads have one name.
func TestWorkloads(t *testing.T) {
	const share = 50
	names := map[string]bool{}
	for _, w := range Workloads(share) {
		if names[w.Name] {
			t.Errorf("two are %s", w.Name)
		}
		names[w.Name] = true
		t.Run(w.Name, func(t *testing.T) {
			taken := map[string]bool{}
			take := func(name string) {
				if taken[name] {
					t.Errorf("two are %s", name)
				}
				taken[name] = true
			}
			for k, step := range w.Steps {
				switch s := step.(type) {
				case Nodes:
					for i := range s.Count {
						take(s.Node(i).Name)
					}
				case Pods:
					for i := range s.Count {
						p := s.Pod(s.In(k), i)
						take(p.Namespace + "/" + p.Name)
					}
				}
			}
			if !w.Bare() {
				return
			}
			if _, placed := w.Run(); placed != w.Measured() {
				t.Errorf("%d of %d found a place", placed, w.Measured())
			}
		})
	}
}
