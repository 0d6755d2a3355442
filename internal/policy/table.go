package policy

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/ledger"
)

// Table is what a node enforces. It is not safe for use by several goroutines.
type Table struct {
	policies   map[string]map[Key]*compiled // by namespace
	namespaces map[string]labels.Set
	pods       map[Key]*pod
	local      map[Key][]netip.Addr // the pods of this node
	decided    map[Key]decision     // of local pods; those that are missing have to be decided anew
	sets       map[string]*members  // those in use
	stale      bool                 // decisions are missing, or too many

	chains   ledger.Ledger[string, Chain]
	names    ledger.Ledger[string, struct{}] // of sets
	members  ledger.Ledger[Member, struct{}]
	isolated ledger.Ledger[Isolated, string]
}

// decision is what one local pod needs.
type decision struct {
	table  *Table
	in     [2]string // by direction: the chain that isolates it, or ""
	chains map[string]Chain
	sets   map[string]union
}

// union is a set's definition: the pods of several peers.
type union struct {
	name  string
	peers []peer
}

// members counts how many pods bring an address into a set.
type members struct {
	union
	count map[netip.Addr]int
}

var anyPod = peer{name: "any pod", spaces: labels.Everything(), pods: labels.Everything()}

func NewTable() *Table {
	return &Table{
		policies: map[string]map[Key]*compiled{}, namespaces: map[string]labels.Set{}, pods: map[Key]*pod{},
		local: map[Key][]netip.Addr{}, decided: map[Key]decision{}, sets: map[string]*members{},
		chains:   ledger.New[string](Chain.equal),
		names:    ledger.New[string](ledger.Same[struct{}]),
		members:  ledger.New[Member](ledger.Same[struct{}]),
		isolated: ledger.New[Isolated](ledger.Same[string]),
	}
}

// SetPolicy adds or replaces a policy.
func (t *Table) SetPolicy(p *networkingv1.NetworkPolicy) {
	if t.policies[p.Namespace] == nil {
		t.policies[p.Namespace] = map[Key]*compiled{}
	}
	t.policies[p.Namespace][Key{p.Namespace, p.Name}] = compile(p)
	t.forgetIn(p.Namespace)
}

func (t *Table) RemovePolicy(key Key) {
	delete(t.policies[key.Namespace], key)
	if len(t.policies[key.Namespace]) == 0 {
		delete(t.policies, key.Namespace)
	}
	t.forgetIn(key.Namespace)
}

// forgetIn has the local pods of a namespace decided anew.
func (t *Table) forgetIn(namespace string) {
	for key := range t.decided {
		if key.Namespace == namespace {
			t.forget(key)
		}
	}
}

func (t *Table) forget(key Key) {
	t.stale = true
	delete(t.decided, key)
}

// forgetNames has those decided anew whose policies look up ports' names in other pods.
func (t *Table) forgetNames() {
	for namespace, all := range t.policies {
		for _, c := range all {
			if c.names {
				t.forgetIn(namespace)
				break
			}
		}
	}
}

// SetNamespace tells a namespace's labels.
func (t *Table) SetNamespace(name string, l map[string]string) {
	if old, known := t.namespaces[name]; known && labels.Equals(old, l) {
		return
	}
	t.moveAll(name, -1)
	t.namespaces[name] = l
	t.moveAll(name, 1)
	t.forgetNames()
}

func (t *Table) RemoveNamespace(name string) {
	t.moveAll(name, -1)
	delete(t.namespaces, name)
}

func (t *Table) moveAll(namespace string, by int) {
	for _, p := range t.pods {
		if p.namespace == namespace {
			t.move(p, by)
		}
	}
}

// SetPod tells of a pod, wherever it runs.
func (t *Table) SetPod(p *corev1.Pod) {
	key := Key{p.Namespace, p.Name}
	t.replacePod(key, newPod(p))
}

func (t *Table) RemovePod(key Key) { t.replacePod(key, nil) }

func (t *Table) replacePod(key Key, now *pod) {
	old := t.pods[key]
	if old != nil && now != nil && old.equal(now) || old == nil && now == nil {
		return
	}
	if old != nil {
		t.move(old, -1)
		delete(t.pods, key)
	}
	if now != nil {
		t.pods[key] = now
		t.move(now, 1)
	}
	if _, here := t.local[key]; here {
		t.forget(key)
	}
	if old != nil && len(old.ports) > 0 || now != nil && len(now.ports) > 0 {
		t.forgetNames()
	}
}

// SetLocal tells which addresses a pod of this node has; none: it is gone.
func (t *Table) SetLocal(key Key, addrs ...netip.Addr) {
	if slices.Equal(t.local[key], addrs) {
		return
	}
	t.forget(key)
	if len(addrs) == 0 {
		delete(t.local, key)
		return
	}
	t.local[key] = addrs
}

// move counts a pod into the sets that it belongs to, or out of them.
func (t *Table) move(p *pod, by int) {
	for _, m := range t.sets {
		t.moveIn(m, p, by)
	}
}

func (t *Table) moveIn(m *members, p *pod, by int) {
	if len(p.addrs) == 0 || !slices.ContainsFunc(m.peers, func(at peer) bool { return t.matches(&at, p) }) {
		return
	}
	for _, a := range p.addrs {
		if m.count[a] += by; m.count[a] > 0 {
			t.members.Set(Member{m.name, a}, struct{}{})
		} else {
			delete(m.count, a)
			t.members.Remove(Member{m.name, a})
		}
	}
}

func (t *Table) matches(at *peer, p *pod) bool {
	if at.pods == nil || at.spaces == nil && at.namespace != p.namespace || !at.pods.Matches(p.labels) {
		return false
	}
	if at.spaces != nil {
		space, known := t.namespaces[p.namespace]
		if !known || !at.spaces.Matches(space) {
			return false
		}
	}
	return at.port.name == "" || slices.Contains(p.ports, at.port)
}

// decide brings the decisions of local pods up to date.
func (t *Table) decide() {
	if !t.stale {
		return
	}
	t.stale = false
	for key := range t.local {
		if _, done := t.decided[key]; !done {
			d := decision{table: t, chains: map[string]Chain{}, sets: map[string]union{}}
			for _, dir := range []Direction{Ingress, Egress} {
				d.in[dir] = d.isolate(key, t.pods[key], dir)
			}
			t.decided[key] = d
		}
	}
	chains, isolated, sets := map[string]Chain{}, map[Isolated]string{}, map[string]union{}
	for key, d := range t.decided {
		maps.Copy(chains, d.chains)
		maps.Copy(sets, d.sets)
		for dir, chain := range d.in {
			for _, a := range t.local[key] {
				if chain != "" {
					isolated[Isolated{Direction(dir), a}] = chain
				}
			}
		}
	}
	t.chains.Become(chains)
	t.isolated.Become(isolated)
	t.use(sets)
}

// use fills the sets that are new, and drops those that nobody looks into any more.
func (t *Table) use(sets map[string]union) {
	for name, m := range t.sets {
		if _, used := sets[name]; !used {
			for a := range m.count {
				t.members.Remove(Member{name, a})
			}
			t.names.Remove(name)
			delete(t.sets, name)
		}
	}
	for name, u := range sets {
		if t.sets[name] != nil {
			continue
		}
		m := &members{u, map[netip.Addr]int{}}
		t.sets[name] = m
		t.names.Set(name, struct{}{})
		for _, p := range t.pods {
			t.moveIn(m, p, 1)
		}
	}
}

// Delta is what changed. It is applied as a whole or not at all.
type Delta struct {
	Chains       map[string]Chain // all new: a chain's name says what it does
	GoneChains   []string
	Sets         []string
	GoneSets     []string
	Members      []Member
	GoneMembers  []Member // of sets that stay
	Isolated     map[Isolated]string
	OldIsolated  []Isolated // those of Isolated that led elsewhere
	GoneIsolated []Isolated
}

// Empty tells that there is nothing to do.
func (d *Delta) Empty() bool {
	return len(d.Chains)+len(d.GoneChains)+len(d.Sets)+len(d.GoneSets)+len(d.Members)+len(d.GoneMembers)+len(d.Isolated)+len(d.GoneIsolated) == 0
}

// Take hands out what changed since it was last called.
func (t *Table) Take() (d Delta) {
	t.decide()
	for at, was := range t.isolated.Was {
		if _, stays := t.isolated.Now[at]; stays && was.Held {
			d.OldIsolated = append(d.OldIsolated, at)
		}
	}
	d.Chains, d.GoneChains = t.chains.Take()
	d.Isolated, d.GoneIsolated = t.isolated.Take()
	d.OldIsolated = slices.DeleteFunc(d.OldIsolated, func(at Isolated) bool { _, changed := d.Isolated[at]; return !changed })
	sets, gone := t.names.Take()
	d.Sets, d.GoneSets = slices.Collect(maps.Keys(sets)), gone
	come, went := t.members.Take()
	d.Members = slices.Collect(maps.Keys(come))
	d.GoneMembers = slices.DeleteFunc(went, func(m Member) bool { return t.sets[m.Set] == nil })
	return d
}

// All is the whole table as one delta from nothing, and takes all changes.
func (t *Table) All() Delta {
	t.Take()
	return Delta{
		Chains: t.chains.Now, Isolated: t.isolated.Now,
		Sets: slices.Collect(maps.Keys(t.names.Now)), Members: slices.Collect(maps.Keys(t.members.Now)),
	}
}
