// Package gang knows which pods are to be scheduled together (KEP-4671): those that name one PodGroup.
//
// The pods of a group wait until the PodGroup is there and, if its policy is gang, as many pods as it asks for at least. Then all that have no node are tried in
// one go, and either so many get one that with those that had one before it is enough, or none does. The book keeps who is where and says what a group
// waits for; trying is the scheduler's. Its invariant: a pod is in at most one group, and there either waiting or placed. Only the scheduler's own
// goroutine uses it.
package gang

import (
	"fmt"
	"maps"
	"slices"
	"time"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
)

// Group is a PodGroup and its pods.
type Group struct {
	types.NamespacedName
	Object *schedulingv1beta1.PodGroup // nil while it is not there

	Held  string    // what its waiting pods were last found to wait for
	Begun bool      // what Started last said
	Tries int       // that have failed since one went well
	Due   time.Time // no try before
	Told  string    // on the PodGroup's condition

	waiting, placed map[types.UID]bool
}

// Gang says that the group's pods get nodes together or not at all.
func (g *Group) Gang() bool { return g.Object != nil && g.Object.Spec.SchedulingPolicy.Gang != nil }

// Least is how many pods must have nodes for any of them to get one.
func (g *Group) Least() int {
	if g.Gang() {
		return int(g.Object.Spec.SchedulingPolicy.Gang.MinCount)
	}
	return 1
}

// Renew forgets how earlier tries went, because the PodGroup is another now.
func (g *Group) Renew() { g.Tries, g.Due, g.Told = 0, time.Time{}, "" }

// Waiting are the pods that have no node, in no order.
func (g *Group) Waiting() []types.UID { return slices.Collect(maps.Keys(g.waiting)) }

// Waits says that a pod is among those.
func (g *Group) Waits(pod types.UID) bool { return g.waiting[pod] }

// Placed counts the pods that have a node, or were given one that is being written.
func (g *Group) Placed() int { return len(g.placed) }

// Started says that some of a gang have nodes, and too few: it was interrupted, and is to be gone on with before anything else takes the room.
func (g *Group) Started() bool { return g.Gang() && len(g.placed) > 0 && len(g.placed) < g.Least() }

// Lacks is what the group's waiting pods wait for before they are tried, in upstream's words; "" for nothing.
func (g *Group) Lacks() string {
	switch {
	case g.Object == nil:
		return fmt.Sprintf("waiting for pods's pod group %q to appear in scheduling queue", g.Name)
	case len(g.waiting)+len(g.placed) < g.Least():
		return "waiting for minCount pods from a gang to appear in scheduling queue"
	}
	return ""
}

// There says how far that is.
func (g *Group) There() string {
	if g.Object == nil {
		return fmt.Sprintf("PodGroup %s is not there", g.Name)
	}
	return fmt.Sprintf("PodGroup %s has %d of the %d pods that it needs at least", g.Name, len(g.waiting)+len(g.placed), g.Least())
}

// Short is why a try has failed that could place too few, in upstream's words.
func (g *Group) Short(scheduled, remaining int) string {
	return fmt.Sprintf("minCount (%d) cannot be satisfied: %d scheduled, %d remaining", g.Least(), scheduled, remaining)
}

// Book of all groups that are there or that pods name.
type Book struct {
	groups map[types.NamespacedName]*Group
	of     map[types.UID]*Group
}

// NewBook returns an empty one.
func NewBook() *Book {
	return &Book{groups: map[types.NamespacedName]*Group{}, of: map[types.UID]*Group{}}
}

func (b *Book) group(key types.NamespacedName) *Group {
	g := b.groups[key]
	if g == nil {
		g = &Group{NamespacedName: key, waiting: map[types.UID]bool{}, placed: map[types.UID]bool{}}
		b.groups[key] = g
	}
	return g
}

// Set takes in a PodGroup as it is now, nil if it is gone.
func (b *Book) Set(key types.NamespacedName, object *schedulingv1beta1.PodGroup) *Group {
	g := b.group(key)
	g.Object = object
	b.tidy(g)
	return g
}

// Of is the group that a pod is in, nil if in none.
func (b *Book) Of(pod types.UID) *Group { return b.of[pod] }

// Wait puts a pod that has no node into a group.
func (b *Book) Wait(pod types.UID, key types.NamespacedName) *Group {
	g := b.group(key)
	delete(g.placed, pod)
	g.waiting[pod], b.of[pod] = true, g
	return g
}

// Place puts a pod that has a node into a group.
func (b *Book) Place(pod types.UID, key types.NamespacedName) *Group {
	g := b.group(key)
	delete(g.waiting, pod)
	g.placed[pod], b.of[pod] = true, g
	return g
}

// Remove takes a pod out and says of which group that was; nil if it was in none.
func (b *Book) Remove(pod types.UID) *Group {
	g := b.of[pod]
	if g == nil {
		return nil
	}
	delete(b.of, pod)
	delete(g.waiting, pod)
	delete(g.placed, pod)
	b.tidy(g)
	return g
}

// tidy forgets a group that is not there and has no pods.
func (b *Book) tidy(g *Group) {
	if g.Object == nil && len(g.waiting)+len(g.placed) == 0 {
		delete(b.groups, g.NamespacedName)
	}
}
