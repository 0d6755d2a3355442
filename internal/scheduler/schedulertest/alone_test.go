package schedulertest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/preempt"
)

// What the shapes are about holds for where their pods are put.
func TestShapes(t *testing.T) {
	const nodes, pods = 200, 1000
	for _, s := range Shapes {
		t.Run(s.Name, func(t *testing.T) {
			a := NewAlone(nodes)
			_, placed := a.Schedule(s, pods)
			if placed != pods {
				t.Fatalf("%d of %d placed", placed, pods)
			}
			perZone, perNode, most := map[string]int{}, map[string]map[string]int{}, 0
			for i := range a.Nodes.Len() {
				name := a.Nodes.Name(i)
				perNode[name] = map[string]int{}
				for _, p := range a.Nodes.On[i] {
					perZone[a.Nodes.Node[i].Labels[corev1.LabelTopologyZone]]++
					perNode[name][p.Labels["app"]]++
				}
				most = max(most, len(a.Nodes.On[i]))
			}
			switch s.Name {
			case "basic", "preferred spread":
				if most != pods/nodes {
					t.Errorf("%d pods on one node, want %d on each", most, pods/nodes)
				}
			case "hostname anti-affinity":
				if most > pods/nodes+1 { // scores are whole numbers: one pod more or less is no difference
					t.Errorf("%d pods on one node, want %d or so on each", most, pods/nodes)
				}
				for name, apps := range perNode {
					for app, n := range apps {
						if n > 1 {
							t.Errorf("%d of %s on %s", n, app, name)
						}
					}
				}
			case "zone spread":
				for zone, n := range perZone {
					if n != pods/zones {
						t.Errorf("%d in %s, want %d", n, zone, pods/zones)
					}
				}
			case "zone affinity":
				if len(perZone) != 1 {
					t.Errorf("want all in one zone: %v", perZone)
				}
			}
		})
	}
}

// quarter of a node.
var quarter = resource.MustParse("8")

// full fills every node with pods of priority 0 and returns a pod of priority 10.
func full(nodes int) (*Alone, *cluster.Pod) {
	a := NewAlone(nodes)
	for i := range nodes {
		for k := range 4 {
			p := Shapes[0].Pod(i*4 + k)
			p.UID, p.Spec.Priority = types.UID(p.Name), new(int32)
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = quarter
			a.Nodes.Place(cluster.PodOf(p), a.Nodes.Name(i))
		}
	}
	p := Shapes[0].Pod(nodes * 4)
	p.UID, p.Spec.Priority = "urgent", new(int32)
	*p.Spec.Priority = 10
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = quarter
	return a, cluster.PodOf(p)
}

// What a search for victims remembers of nodes that did not change is what it would find out anew, while others come and go.
func TestPreemptionRemembers(t *testing.T) {
	const nodes = 40
	a, urgent := full(nodes)
	random := rand.New(rand.NewPCG(1, 2))
	search := func(f *preempt.Finder) string {
		choice, reasons := f.Find(urgent, a.Classes.Of(urgent))
		if choice == nil {
			return fmt.Sprint(reasons)
		}
		var victims []int32
		for _, v := range choice.Victims {
			victims = append(victims, v.Priority)
		}
		return fmt.Sprint(victims)
	}
	for step := range 400 {
		i := random.IntN(nodes)
		if on := a.Nodes.On[i]; len(on) > 0 {
			a.Nodes.Displace(on[random.IntN(len(on))].UID)
		}
		for len(a.Nodes.On[i]) < 4 {
			p := Shapes[0].Pod(10000 + step*4 + len(a.Nodes.On[i]))
			p.UID, p.Spec.Priority = types.UID(p.Name), new(int32(random.IntN(12)))
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = quarter
			a.Nodes.Place(cluster.PodOf(p), a.Nodes.Name(i))
		}
		fresh := preempt.Finder{Nodes: a.Nodes, Waiting: a.finder.Waiting, Budgets: a.finder.Budgets}
		if got, want := search(&a.finder), search(&fresh); got != want {
			t.Fatalf("step %d: %s, and without memory %s", step, got, want)
		}
	}
}

// BenchmarkPreempt finds the victims for one pod on a full cluster.
func BenchmarkPreempt(b *testing.B) {
	for _, nodes := range []int{5000, 50000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			a, p := full(nodes)
			f := preempt.Finder{Nodes: a.Nodes, Waiting: func(*cluster.Pod) bool { return false }, Budgets: func(string) []preempt.Budget { return nil }}
			a.Classes.Of(p)
			used := cpu()
			for b.Loop() {
				a.Nodes.Set(touched(a.Nodes.Node[0])) // or the verdict would be remembered
				c := a.Classes.Of(p)
				c.Verdict()
				if choice, reasons := f.Find(p, c); choice == nil || len(choice.Victims) != 1 {
					b.Fatalf("choice %v, %v", choice, reasons)
				}
			}
			b.ReportMetric((cpu()-used).Seconds()*1e3/float64(b.N), "cpu-ms/pod")
		})
	}
}

// touched is a node with another label.
func touched(n *corev1.Node) *corev1.Node {
	n = n.DeepCopy()
	n.Labels["touched"] = time.Now().String()
	return n
}
