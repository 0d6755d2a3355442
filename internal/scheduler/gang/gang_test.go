package gang

import (
	"fmt"
	"math/rand"
	"testing"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
)

var key = types.NamespacedName{Namespace: "a", Name: "g"}

func object(least int32) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{}
	if least > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: least}
	} else {
		g.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	}
	return g
}

func TestWhatAGroupLacks(t *testing.T) {
	const few = "waiting for minCount pods from a gang to appear in scheduling queue"
	for name, c := range map[string]struct {
		object          *schedulingv1beta1.PodGroup
		waiting, placed int
		lacks           string
		started         bool
	}{
		"no group":              {nil, 3, 0, `waiting for pods's pod group "g" to appear in scheduling queue`, false},
		"basic":                 {object(0), 1, 0, "", false},
		"too few":               {object(3), 2, 0, few, false},
		"enough":                {object(3), 3, 0, "", false},
		"some have nodes":       {object(3), 2, 1, "", true},
		"too few are left":      {object(3), 1, 1, few, true},
		"as many as are needed": {object(3), 1, 3, "", false},
	} {
		b := NewBook()
		g := b.Set(key, c.object)
		for i := range c.waiting {
			g = b.Wait(types.UID(fmt.Sprintf("w%d", i)), key)
		}
		for i := range c.placed {
			g = b.Place(types.UID(fmt.Sprintf("p%d", i)), key)
		}
		if g.Lacks() != c.lacks || g.Started() != c.started {
			t.Errorf("%s: lacks %q, started %v", name, g.Lacks(), g.Started())
		}
	}
}

// Whatever comes and goes, a pod is in one place, and nothing is kept of groups that nobody names.
func TestBookKeepsOrder(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 200 {
		b, state := NewBook(), map[types.UID]string{}
		there := map[types.NamespacedName]bool{}
		for range 60 {
			uid, key := types.UID(fmt.Sprint(r.Intn(8))), types.NamespacedName{Name: fmt.Sprint(r.Intn(3))}
			if g := b.Of(uid); g != nil {
				key = g.NamespacedName // the field is immutable
			}
			switch r.Intn(5) {
			case 0:
				b.Wait(uid, key)
				state[uid] = key.Name + " waiting"
			case 1:
				b.Place(uid, key)
				state[uid] = key.Name + " placed"
			case 2:
				b.Remove(uid)
				delete(state, uid)
			case 3:
				b.Set(key, object(2))
				there[key] = true
			case 4:
				b.Set(key, nil)
				delete(there, key)
			}
			named, total := map[types.NamespacedName]bool{}, 0
			for k := range there {
				named[k] = true
			}
			for uid, want := range state {
				g := b.Of(uid)
				got := g.Name + " placed"
				if g.Waits(uid) {
					got = g.Name + " waiting"
				}
				if got != want {
					t.Fatalf("pod %s is %s, want %s", uid, got, want)
				}
				named[g.NamespacedName] = true
			}
			for _, g := range b.groups {
				total += len(g.Waiting()) + g.Placed()
			}
			if total != len(state) || len(b.groups) != len(named) {
				t.Fatalf("%d pods in %d groups, want %d in %d", total, len(b.groups), len(state), len(named))
			}
		}
	}
}
