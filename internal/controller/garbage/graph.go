package garbage

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
)

// graph is who depends on whom. Most objects have neither owners nor dependents; for those it holds only the node itself.
//
// Invariants: a node's dependents are exactly the nodes that name it; an owner that a node names has a node, real or virtual (named, but
// not seen), until it is seen to go.
type graph struct {
	mu    sync.Mutex
	nodes map[types.UID]*node
}

// facts are what the graph keeps of an object.
type facts struct {
	uid             types.UID
	row             *api.Resource
	namespace, name string
	owners          []metav1.OwnerReference
	deleting        bool
	foreground      bool // is being deleted, after its dependents
	orphaning       bool // is being deleted, its dependents are to stay
}

type node struct {
	facts
	virtual    bool
	ref        metav1.OwnerReference // of a virtual node: how it was named
	dependents map[*node]struct{}
}

// view is a copy of a node for whoever works on it without the lock.
type view struct {
	facts
	virtual    bool
	ref        metav1.OwnerReference
	dependents []dependent
}

type dependent struct {
	facts
	blocks bool // the owner must wait for it
}

func newGraph() *graph { return &graph{nodes: map[types.UID]*node{}} }

func factsOf(row *api.Resource, obj crclient.Object) facts {
	f := facts{
		uid: obj.GetUID(), row: row, namespace: obj.GetNamespace(), name: obj.GetName(),
		owners: obj.GetOwnerReferences(), deleting: obj.GetDeletionTimestamp() != nil,
	}
	if f.deleting {
		f.foreground = slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents)
		f.orphaning = slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents)
	}
	return f
}

// observe takes an object's present facts in and returns the UIDs that deserve a look.
func (g *graph) observe(f facts, namespaced func(metav1.OwnerReference) (bool, bool)) (look []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[f.uid]
	var before facts
	if n == nil {
		n = &node{}
		g.nodes[f.uid] = n
	} else {
		before = n.facts
	}
	seenFirst := n.virtual || before.uid == ""
	n.facts, n.virtual = f, false

	for _, old := range before.owners {
		i := slices.IndexFunc(f.owners, func(ref metav1.OwnerReference) bool { return ref.UID == old.UID })
		owner := g.nodes[old.UID]
		if owner == nil {
			continue
		}
		if i < 0 {
			delete(owner.dependents, n)
			g.dropUnused(owner)
		}
		if owner.foreground && blocks(old) && (i < 0 || !blocks(f.owners[i])) {
			look = append(look, owner.uid)
		}
	}
	for _, ref := range f.owners {
		if slices.ContainsFunc(before.owners, func(old metav1.OwnerReference) bool { return old.UID == ref.UID }) {
			continue
		}
		owner := g.owner(ref, f, namespaced)
		owner.depend(n)
		switch {
		case owner.virtual:
			look = append(look, ref.UID)
		case owner.foreground, owner.name != ref.Name, owner.row.Kind != ref.Kind, owner.namespace != "" && owner.namespace != f.namespace:
			look = append(look, f.uid)
		}
	}
	if seenFirst { // dependents that named it wrongly while it was virtual
		for d := range n.dependents {
			if n.namespace != "" && d.namespace != n.namespace {
				look = append(look, d.uid)
			}
		}
	}
	if f.foreground && !before.foreground || f.orphaning && !before.orphaning {
		look = append(look, f.uid)
	}
	if f.deleting && !before.deleting {
		for _, ref := range f.owners {
			if owner := g.nodes[ref.UID]; owner != nil && owner.foreground {
				look = append(look, owner.uid)
			}
		}
	}
	return look
}

// owner returns the node a reference names, making a virtual one if it was never seen.
func (g *graph) owner(ref metav1.OwnerReference, dependent facts, namespaced func(metav1.OwnerReference) (bool, bool)) *node {
	if n := g.nodes[ref.UID]; n != nil {
		return n
	}
	n := &node{virtual: true, ref: ref, facts: facts{uid: ref.UID, name: ref.Name}}
	if in, known := namespaced(ref); in || !known {
		n.namespace = dependent.namespace
	}
	g.nodes[ref.UID] = n
	return n
}

// remove takes a node out because it is gone, and returns who deserves a look: its dependents, and owners that may have waited for it.
func (g *graph) remove(uid types.UID) (look []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	delete(g.nodes, uid)
	for d := range n.dependents {
		look = append(look, d.uid)
	}
	for _, ref := range n.owners {
		owner := g.nodes[ref.UID]
		if owner == nil {
			continue
		}
		delete(owner.dependents, n)
		g.dropUnused(owner)
		if owner.foreground {
			look = append(look, owner.uid)
		}
	}
	return look
}

// dropUnused forgets a virtual node that nothing names any more.
func (g *graph) dropUnused(n *node) {
	if n.virtual && len(n.dependents) == 0 {
		delete(g.nodes, n.uid)
	}
}

// elsewhere says whether an object with this UID was seen in a namespace other than this.
func (g *graph) elsewhere(uid types.UID, namespace string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	return n != nil && !n.virtual && n.namespace != "" && n.namespace != namespace
}

// unseen lists the owners that are named and were never seen.
func (g *graph) unseen() (out []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for uid, n := range g.nodes {
		if n.virtual {
			out = append(out, uid)
		}
	}
	return out
}

// look returns a copy of a node.
func (g *graph) look(uid types.UID) (view, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return view{}, false
	}
	v := view{facts: n.facts, virtual: n.virtual, ref: n.ref}
	for d := range n.dependents {
		blocking := slices.ContainsFunc(d.owners, func(ref metav1.OwnerReference) bool { return ref.UID == uid && blocks(ref) })
		v.dependents = append(v.dependents, dependent{facts: d.facts, blocks: blocking})
	}
	return v, true
}

func (n *node) depend(d *node) {
	if n.dependents == nil {
		n.dependents = map[*node]struct{}{}
	}
	n.dependents[d] = struct{}{}
}

func blocks(ref metav1.OwnerReference) bool {
	return ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
}
