package class

import (
	"slices"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// Trial asks whether a node would do without some of its pods. Nothing is changed by it.
type Trial struct {
	class *Class
	node  int
	gone  []*cluster.Pod
	freed filter.Freed
	less  []int64 // by axis
}

// On begins a trial of node i, with all its pods there. The trial is good until the next call.
func (c *Class) On(i int, t *Trial) {
	t.class, t.node, t.gone, t.freed = c, i, t.gone[:0], filter.Freed{}
	t.less = resized(t.less, len(c.axes))
	clear(t.less)
}

// Without imagines a pod of the node away.
func (t *Trial) Without(p *cluster.Pod) {
	t.gone = append(t.gone, p)
	t.shift(p, 1)
}

// With puts a pod back.
func (t *Trial) With(p *cluster.Pod) {
	at := slices.Index(t.gone, p)
	t.gone = slices.Delete(t.gone, at, at+1)
	t.shift(p, -1)
}

func (t *Trial) shift(p *cluster.Pod, sign int64) {
	t.freed.Add(p, sign)
	for k, a := range t.class.axes {
		if a.where[t.node] != cluster.NoDomain {
			t.less[k] += sign * a.share(p)
		}
	}
}

// Refusal says why the node would not do even so; nil if it would.
func (t *Trial) Refusal() *filter.Refusal {
	c, n, i := t.class, t.class.nodes, t.node
	if !c.passes(i) {
		r, _ := c.Why(i)
		return r
	}
	if c.load[filter.Ports] != nil && t.portsTaken() {
		return c.load[filter.Ports](i)
	}
	if c.load[filter.Room] != nil {
		if r := filter.RoomWithout(c.pod, n, i, &t.freed); r != nil {
			return r
		}
	}
	if r := filter.VolumesWithout(c.pod, n, i, t.gone); r != nil {
		return r
	}
	if r, _ := c.decide(func(a *axis) (int64, int64) {
		if d := a.topology.Of[i]; d != cluster.NoDomain {
			return a.inDomain(d), t.less[slices.Index(c.axes, a)]
		}
		return missing, 0
	}); r != nil {
		return &r.Refusal
	}
	if c.last != nil {
		return c.last(i)
	}
	return nil
}

func (t *Trial) portsTaken() bool {
	for _, p := range t.class.nodes.On[t.node] {
		for _, port := range p.Ports {
			if filter.Collides(t.class.pod.Ports, port) && !slices.Contains(t.gone, p) {
				return true
			}
		}
	}
	return false
}
