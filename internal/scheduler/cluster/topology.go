package cluster

import corev1 "k8s.io/api/core/v1"

// NoDomain is the domain of nodes without the label.
const NoDomain = int32(-1)

// Topology divides the nodes by one label: every value is a domain, a small number.
//
// Invariant: Members[d] is how many nodes Of maps to d; a domain without members has no number.
type Topology struct {
	Key     string
	Of      []int32 // by node
	Members []int32 // by domain
	Flips   uint64  // how often Distinct changed

	domains map[string]int32
	names   []string
	unused  []int32
	shared  int // domains with several members
	refs    int
}

// Distinct says that no two nodes share a domain, as with host names.
func (t *Topology) Distinct() bool { return t.shared == 0 }

// Name is the label's value.
func (t *Topology) Name(domain int32) string { return t.names[domain] }

// Topology returns the division by a label and keeps it up to date until Release.
func (n *Nodes) Topology(key string) *Topology {
	t := n.topologies[key]
	if t == nil {
		t = &Topology{Key: key, domains: map[string]int32{}}
		for i, node := range n.Node {
			t.Of = append(t.Of, NoDomain)
			t.move(i, node)
		}
		n.topologies[key] = t
	}
	t.refs++
	return t
}

// Release gives a topology back.
func (n *Nodes) Release(t *Topology) {
	if t.refs--; t.refs == 0 {
		delete(n.topologies, t.Key)
	}
}

// move puts node i into the domain its label says; node may be nil.
func (t *Topology) move(i int, node *corev1.Node) {
	to, has := "", false
	if node != nil {
		to, has = node.Labels[t.Key]
	}
	old := t.Of[i]
	if old == NoDomain && !has || old != NoDomain && has && t.names[old] == to {
		return
	}
	distinct := t.Distinct()
	if old != NoDomain {
		t.leave(old)
	}
	t.Of[i] = NoDomain
	if has {
		t.Of[i] = t.enter(to)
	}
	if t.Distinct() != distinct {
		t.Flips++
	}
}

func (t *Topology) enter(name string) int32 {
	d, known := t.domains[name]
	if !known {
		if last := len(t.unused) - 1; last >= 0 {
			d = t.unused[last]
			t.unused = t.unused[:last]
			t.names[d] = name
		} else {
			d = int32(len(t.names))
			t.names, t.Members = append(t.names, name), append(t.Members, 0)
		}
		t.domains[name] = d
	}
	if t.Members[d]++; t.Members[d] == 2 {
		t.shared++
	}
	return d
}

func (t *Topology) leave(d int32) {
	switch t.Members[d]--; t.Members[d] {
	case 1:
		t.shared--
	case 0:
		delete(t.domains, t.names[d])
		t.unused = append(t.unused, d)
	}
}
