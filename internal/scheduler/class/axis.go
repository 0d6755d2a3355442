package class

import (
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// source is one column of pods by node that an axis adds up.
type source struct {
	on      *[]int32
	weight  int64
	counter *cluster.Counter // or
	term    *cluster.Term
}

// axis is pods counted by the domains of one topology, over the nodes that count for the class.
//
// Invariant, once repaired: sum[d] is the sum of at[i] over the nodes with where[i] = d, and nodes[d] is how many those are.
type axis struct {
	topology *cluster.Topology
	sources  []source
	need     uint8               // facts a node must have to count
	all      []*cluster.Topology // whose labels it must have
	own      bool                // every node counts for itself alone: a host, as upstream scores it

	at    []int64 // by node
	where []int32
	sum   []int64 // by domain
	nodes []int32
	total int64

	levels map[int64]int32 // how many domains have a sum; nil unless the lowest is asked for
	lowest int64
	count  int  // domains that count
	stale  bool // both

	// An axis whose topology is distinct is part of the group's key as a value, others as a domain: else every pod would move all nodes of its
	// domain from group to group, or there would be a group a node.
	direct bool
	capped bool // whether there are pods is all that matters
	part   int  // of the group's key
	marks  []uint32
}

func (a *axis) reset(size int) {
	a.at, a.where = resized(a.at, size), resized(a.where, size)
	clear(a.at)
	for i := range a.where {
		a.where[i] = cluster.NoDomain
	}
	a.sum, a.nodes, a.total, a.stale = a.sum[:0], a.nodes[:0], 0, true
	clear(a.levels)
	a.direct = a.own || a.topology.Distinct()
}

// update brings node i's share up to date. facts are what the class knows of it.
func (a *axis) update(i int, facts uint8) {
	d, v := cluster.NoDomain, int64(0)
	if facts&(a.need|present) == a.need|present {
		d = a.topology.Of[i]
		for _, t := range a.all {
			if t.Of[i] == cluster.NoDomain {
				d = cluster.NoDomain
			}
		}
		if d != cluster.NoDomain || a.own {
			for _, s := range a.sources {
				v += s.weight * int64((*s.on)[i])
			}
		}
	}
	if d == a.where[i] && v == a.at[i] {
		return
	}
	if old := a.where[i]; old != cluster.NoDomain {
		a.change(old, -a.at[i], -1)
	}
	a.where[i], a.at[i] = d, v
	if d != cluster.NoDomain {
		for int(d) >= len(a.sum) {
			a.sum, a.nodes = append(a.sum, 0), append(a.nodes, 0)
		}
		a.change(d, v, 1)
	}
}

func (a *axis) change(d int32, by int64, nodes int32) {
	if a.levels != nil && a.nodes[d] > 0 {
		if a.levels[a.sum[d]]--; a.levels[a.sum[d]] == 0 {
			delete(a.levels, a.sum[d])
		}
		a.stale = true
	}
	a.sum[d] += by
	a.nodes[d] += nodes
	a.total += by
	if a.levels != nil && a.nodes[d] > 0 {
		a.levels[a.sum[d]]++
		a.stale = true
	}
}

// least is the lowest sum of a domain that counts, and domains is how many there are.
func (a *axis) least() (lowest int64, domains int) {
	if !a.stale {
		return a.lowest, a.count
	}
	a.stale, a.lowest, a.count = false, 0, 0
	for level, n := range a.levels {
		if a.count == 0 || level < a.lowest {
			a.lowest = level
		}
		a.count += int(n)
	}
	return a.lowest, a.count
}

// inDomain is the count of a domain, which may not have been seen yet.
func (a *axis) inDomain(d int32) int64 {
	if int(d) >= len(a.sum) {
		return 0
	}
	return a.sum[d]
}

// missing is the value of nodes without the label.
const missing = int64(-1) << 62

// keyPart is what node i has for this axis in its group's key.
func (a *axis) keyPart(i int) int64 {
	d := a.topology.Of[i]
	switch {
	case d == cluster.NoDomain && a.direct:
		return missing
	case !a.direct:
		return int64(d)
	case a.own:
		return a.at[i]
	}
	v := a.inDomain(d)
	if a.capped {
		v = min(v, 1)
	}
	return v
}

// value is the axis' count for the nodes of a group.
func (a *axis) value(g *group) int64 {
	part := g.key[a.part]
	if a.direct {
		return part
	}
	if part == int64(cluster.NoDomain) {
		return missing
	}
	return a.inDomain(int32(part))
}

// share is what a placed pod adds to the axis.
func (a *axis) share(p *cluster.Pod) (v int64) {
	for _, s := range a.sources {
		if s.counter != nil && s.counter.Counts(p) || s.term != nil && s.term.Carries(p) {
			v += s.weight
		}
	}
	return v
}

// resized returns a slice of the given length that keeps what it held.
func resized[T any](s []T, size int) []T {
	if cap(s) < size {
		return append(make([]T, 0, size+size/8+16), s...)[:size]
	}
	return s[:size]
}
