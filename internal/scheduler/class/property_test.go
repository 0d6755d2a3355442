package class

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
	"skiff.dev/skiff/internal/scheduler/profile"
	"skiff.dev/skiff/internal/scheduler/volume"
)

var (
	cases = flag.Int("cases", 2000, "random clusters of the property test")
	seed  = flag.Uint64("seed", 0, "run this one random cluster only")
)

// dice draws clusters.
type dice struct{ *rand.Rand }

func (d dice) one(percent int) bool { return d.IntN(100) < percent }

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

func (d dice) node(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i), Labels: map[string]string{}}, Status: corev1.NodeStatus{
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse(pick(d, "1", "2", "4")), "memory": resource.MustParse(pick(d, "2Gi", "4Gi")),
			"pods": resource.MustParse(pick(d, "3", "10", "110"))}}}
	if d.one(90) {
		n.Labels[corev1.LabelHostname] = n.Name
	} else if d.one(30) {
		n.Labels[corev1.LabelHostname] = "shared"
	}
	if d.one(85) {
		n.Labels[corev1.LabelTopologyZone] = pick(d, "z1", "z2", "z3")
	}
	if d.one(50) {
		n.Labels["disk"] = pick(d, "ssd", "hdd")
	}
	for range pick(d, 0, 0, 0, 0, 1, 2) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: pick(d, "t", "u"), Value: pick(d, "", "v"),
			Effect: pick(d, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule)})
	}
	if d.one(30) {
		n.Status.Allocatable["ephemeral-storage"] = resource.MustParse(pick(d, "1Gi", "3Gi"))
	}
	if d.one(30) {
		n.Status.Allocatable[gpu] = resource.MustParse(pick(d, "1", "3"))
	}
	for _, image := range []string{"a:1", "b:latest"} {
		if d.one(20) {
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{image}, SizeBytes: int64(pick(d, 50, 500, 3000)) << 20})
		}
	}
	for _, feature := range []string{restartsAll, bindsMounts} {
		if d.one(70) {
			n.Status.DeclaredFeatures = append(n.Status.DeclaredFeatures, feature)
		}
	}
	n.Spec.Unschedulable = d.one(5)
	return n
}

const gpu = corev1.ResourceName("e.com/gpu")

// backed is an annotation with the extended resource that devices stand for where nodes have none of it.
const backed = "e.com/backed"

func backing(p *cluster.Pod) {
	if name := p.Annotations[backed]; name != "" {
		p.Backed = []corev1.ResourceName{corev1.ResourceName(name)}
	}
}

func (d dice) selector() *metav1.LabelSelector {
	switch d.IntN(8) {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "b"}}}}
	case 3:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "rev", Operator: metav1.LabelSelectorOpExists}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(d, "a", "b", "c")}}
}

func (d dice) key() string { return pick(d, corev1.LabelHostname, corev1.LabelTopologyZone, "disk") }

func (d dice) term() corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{TopologyKey: d.key(), LabelSelector: d.selector()}
	switch d.IntN(6) {
	case 0:
		t.Namespaces = []string{pick(d, "x", "y")}
	case 1:
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(d, "red", "blue")}}
	case 2:
		t.NamespaceSelector = &metav1.LabelSelector{}
	}
	if d.one(15) {
		t.MatchLabelKeys = []string{"rev"}
	} else if d.one(15) {
		t.MismatchLabelKeys = []string{"rev"}
	}
	return t
}

func (d dice) pod(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pick(d, "x", "y"), Name: name, UID: types.UID(name), Labels: map[string]string{}}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: pick(d, "", "a:1", "b")}}
	p.Spec.Priority = new(int32)
	if d.one(80) {
		p.Labels["app"] = pick(d, "a", "b", "c")
	}
	if d.one(40) {
		p.Labels["rev"] = pick(d, "1", "2")
	}
	if d.one(70) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(pick(d, "100m", "300m", "1"))}
		if d.one(60) {
			p.Spec.Containers[0].Resources.Requests["memory"] = resource.MustParse(pick(d, "100Mi", "700Mi"))
		}
		if d.one(10) {
			p.Spec.Containers[0].Resources.Requests["ephemeral-storage"] = resource.MustParse(pick(d, "300Mi", "1Gi"))
		}
		if d.one(10) {
			p.Spec.Containers[0].Resources.Requests[gpu] = resource.MustParse(pick(d, "1", "2"))
			if d.one(50) {
				p.Annotations = map[string]string{backed: string(gpu)}
			}
		}
	}
	if d.one(25) {
		d.volumes(p)
	}
	if d.one(25) {
		d.unusual(p)
	}
	for range pick(d, 0, 0, 0, 0, 0, 0, 1, 2) {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: 80, HostPort: int32(pick(d, 0, 80, 80, 81)),
			Protocol: pick(d, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP), HostIP: pick(d, "", "0.0.0.0", "10.0.0.1", "10.0.0.2")})
	}
	if d.one(15) {
		p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	}
	if d.one(20) {
		p.Spec.Tolerations = []corev1.Toleration{pick(d, corev1.Toleration{Key: "t", Operator: corev1.TolerationOpExists}, corev1.Toleration{Key: "t", Value: "v"},
			corev1.Toleration{Key: "u", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
			corev1.Toleration{Key: "u", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectPreferNoSchedule},
			corev1.Toleration{Operator: corev1.TolerationOpExists})}
	}
	if d.one(10) {
		pick(d, restartingAll, binding)(p)
	}
	if d.one(50) {
		d.affinity(p)
	}
	for range pick(d, 0, 0, 1, 2) {
		c := corev1.TopologySpreadConstraint{MaxSkew: int32(1 + d.IntN(2)), TopologyKey: d.key(), LabelSelector: d.selector(),
			WhenUnsatisfiable: pick(d, corev1.DoNotSchedule, corev1.ScheduleAnyway)}
		if c.WhenUnsatisfiable == corev1.DoNotSchedule && d.one(20) {
			c.MinDomains = new(int32)
			*c.MinDomains = int32(1 + d.IntN(4))
		}
		policies := []*corev1.NodeInclusionPolicy{nil, new(corev1.NodeInclusionPolicy), new(corev1.NodeInclusionPolicy)}
		*policies[1], *policies[2] = corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
		c.NodeAffinityPolicy, c.NodeTaintsPolicy = pick(d, policies...), pick(d, policies...)
		if d.one(20) {
			c.MatchLabelKeys = []string{"rev"}
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
	return p
}

// unusual gives a pod requests that are not just its container's: init containers and sidecars, overhead, the pod's own, a resize that is not done.
func (d dice) unusual(p *corev1.Pod) {
	some := func() corev1.ResourceList {
		list := corev1.ResourceList{}
		if d.one(80) {
			list["cpu"] = resource.MustParse(pick(d, "50m", "200m", "700m", "1500m"))
		}
		if d.one(50) {
			list["memory"] = resource.MustParse(pick(d, "50Mi", "300Mi"))
		}
		return list
	}
	for range d.IntN(3) {
		c := corev1.Container{Name: fmt.Sprint("init", len(p.Spec.InitContainers)), Resources: corev1.ResourceRequirements{Requests: some()}}
		if d.one(50) {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	if d.one(30) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second", Resources: corev1.ResourceRequirements{Requests: some()}})
	}
	if d.one(30) {
		p.Spec.Overhead = some()
	}
	if d.one(30) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: some()}
		for name, q := range resourcehelper.AggregateContainerRequests(p, resourcehelper.PodResourcesOptions{}) { // as the API sets what isn't asked for
			if _, has := p.Spec.Resources.Requests[name]; !has && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) && len(p.Spec.Resources.Requests) > 0 {
				p.Spec.Resources.Requests[name] = q
			}
		}
	}
	if d.one(40) {
		given := func() corev1.ResourceList { // never nothing, which JSON would not tell from nothing known
			list := some()
			list["ephemeral-storage"] = resource.MustParse("10Mi")
			return list
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", AllocatedResources: given(), Resources: &corev1.ResourceRequirements{Requests: given()}}}
		if d.one(30) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: corev1.PodReasonInfeasible}}
		}
	}
}

func (d dice) affinity(p *corev1.Pod) {
	a := &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}, NodeAffinity: &corev1.NodeAffinity{}}
	p.Spec.Affinity = a
	if d.one(30) {
		a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, d.term())
		if d.one(20) {
			a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, d.term())
		}
	}
	if d.one(35) {
		a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{d.term()}
	}
	if d.one(30) {
		a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: int32(1 + d.IntN(100)), PodAffinityTerm: d.term()}}
	}
	if d.one(30) {
		a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: int32(1 + d.IntN(100)), PodAffinityTerm: d.term()}}
	}
	if d.one(20) {
		a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: d.nodeTerms()}
	}
	if d.one(30) {
		a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{{Weight: int32(1 + d.IntN(50)),
			Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}}}
	}
}

// twist changes one thing about a pod, so that it is all but like another: a class must tell them apart by that alone.
func (d dice) twist(p *corev1.Pod) {
	other, c := d.pod("other"), &p.Spec.Containers[0]
	name := pick(d, "cpu", "memory", gpu)
	switch q, has := c.Resources.Requests[name]; d.IntN(8) {
	case 0:
		if q.Add(q); has {
			c.Resources.Requests[name] = q
		}
	case 1:
		for i := range c.Ports {
			port := &c.Ports[i]
			pick(d, func() { port.HostPort = 161 - port.HostPort }, func() { port.Protocol = pick(d, corev1.ProtocolTCP, corev1.ProtocolUDP) },
				func() { port.HostIP = pick(d, "", "10.0.0.1", "10.0.0.2") })()
		}
	case 2:
		if p.Spec.NodeSelector != nil {
			p.Spec.NodeSelector["disk"] = pick(d, "ssd", "hdd")
		}
	case 3:
		for i := range p.Spec.Tolerations {
			t := &p.Spec.Tolerations[i]
			pick(d, func() { t.Key = pick(d, "t", "u") }, func() { t.Operator, t.Value = corev1.TolerationOpEqual, "" }, func() { t.Effect = pick(d, "", corev1.TaintEffectNoSchedule) },
				func() { t.Value = pick(d, "", "v"); t.Operator = corev1.TolerationOpEqual })()
		}
	case 4:
		p.Spec.Affinity = other.Spec.Affinity
	case 5:
		for i := range p.Spec.TopologySpreadConstraints {
			p.Spec.TopologySpreadConstraints[i].MaxSkew = int32(1 + d.IntN(3))
		}
	case 6:
		c.RestartPolicyRules, c.VolumeMounts = other.Spec.Containers[0].RestartPolicyRules, other.Spec.Containers[0].VolumeMounts
	default:
		c.Image = other.Spec.Containers[0].Image
	}
}

// nodeTerms select nodes by label, or bind to some by name.
func (d dice) nodeTerms() (list []corev1.NodeSelectorTerm) {
	if d.one(40) {
		for range 1 + d.IntN(2) {
			list = append(list, corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn,
				Values: []string{fmt.Sprintf("n%d", d.IntN(9))}}}})
		}
		return list
	}
	for range 1 + d.IntN(2) {
		list = append(list, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{pick(d,
			corev1.NodeSelectorRequirement{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"hdd"}},
			corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"z1"}},
			corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpExists})}})
	}
	return list
}

// step is one thing that happens to a cluster. Steps are kept apart from what draws them, so that a failing list of them can be shortened.
type step struct {
	text string
	do   func(w *world, n *cluster.Nodes, table *Table) error
}

func draw(d dice) (steps []step) {
	add := func(text string, do func(w *world, n *cluster.Nodes, table *Table) error) {
		steps = append(steps, step{text, do})
	}
	templates := []*corev1.Pod{}
	for i := range 2 + d.IntN(3) {
		templates = append(templates, d.pod(fmt.Sprintf("t%d", i)))
	}
	for i := range 2 + d.IntN(7) {
		node := d.node(i)
		add("node "+node.Name, func(w *world, n *cluster.Nodes, _ *Table) error { w.setNode(n, node); return nil })
	}
	if d.one(40) { // some storage to begin with, or few pods' claims are there
		for range 3 + d.IntN(8) {
			steps = append(steps, d.storageStep())
		}
	}
	for i := range 15 + d.IntN(30) {
		name := fmt.Sprintf("p%d", i)
		switch k := d.IntN(23); {
		case k >= 20:
			steps = append(steps, d.storageStep())
		case k < 11: // the same few pods again and again, as sets make them
			p := pick(d, templates...).DeepCopy()
			p.Name, p.UID = name, types.UID(name)
			if d.one(30) {
				p.Labels["pod"] = name
			}
			d.vary(p)
			if d.one(35) {
				d.twist(p)
			}
			add("schedule "+name+" like "+describe(p), func(w *world, n *cluster.Nodes, t *Table) error { return w.schedule(n, t, p) })
		case k < 13:
			p := d.pod(name)
			p.Spec.NodeName = fmt.Sprintf("n%d", d.IntN(10))
			add("place "+name, func(w *world, n *cluster.Nodes, _ *Table) error { w.place(n, p); return nil })
		case k < 15:
			at := d.IntN(100)
			add(fmt.Sprintf("delete pod %d", at), func(w *world, n *cluster.Nodes, _ *Table) error { w.remove(n, at); return nil })
		case k == 15:
			at := d.IntN(100)
			add(fmt.Sprintf("pod %d begins to end", at), func(w *world, n *cluster.Nodes, _ *Table) error { w.end(n, at); return nil })
		case k < 18:
			node := d.node(d.IntN(9))
			add("node "+node.Name, func(w *world, n *cluster.Nodes, _ *Table) error { w.setNode(n, node); return nil })
		case k == 18:
			gone := fmt.Sprintf("n%d", d.IntN(9))
			add("no node "+gone, func(w *world, n *cluster.Nodes, _ *Table) error { w.dropNode(n, gone); return nil })
		default:
			space, team := pick(d, "x", "y"), pick(d, "red", "blue")
			add("namespace "+space+" "+team, func(w *world, n *cluster.Nodes, _ *Table) error {
				w.spaces[space] = map[string]string{"team": team}
				n.SetNamespace(space, w.spaces[space])
				return nil
			})
		}
	}
	return steps
}

func describe(p *corev1.Pod) string {
	raw, _ := p.Spec.Marshal()
	return fmt.Sprintf("%s %v %x", p.Namespace, p.Labels, len(raw))
}

func (w *world) setNode(n *cluster.Nodes, node *corev1.Node) {
	w.nodes = slices.DeleteFunc(w.nodes, func(m *corev1.Node) bool { return m.Name == node.Name })
	w.nodes = append(w.nodes, node)
	n.Set(node)
}

func (w *world) dropNode(n *cluster.Nodes, name string) {
	w.nodes = slices.DeleteFunc(w.nodes, func(m *corev1.Node) bool { return m.Name == name })
	n.Remove(name)
}

func (w *world) place(n *cluster.Nodes, p *corev1.Pod) {
	w.settle(n, p)
}

// settle puts a pod on its node, in both pictures.
func (w *world) settle(n *cluster.Nodes, p *corev1.Pod) {
	w.pods = append(w.pods, p)
	w.storage.attached[p.Name] = w.storage.handles(p)
	q := cluster.PodOf(p)
	q.Volumes = w.book.Placed(p)
	if u, why, err := w.book.Of(p); why == "" && err == nil && u != nil { // as when it is scheduled: a volume to come counts
		q.Volumes.Attached = u.Attached
	}
	n.Place(q, p.Spec.NodeName)
}

func (w *world) remove(n *cluster.Nodes, at int) {
	if len(w.pods) > 0 {
		at %= len(w.pods)
		n.Displace(w.pods[at].UID)
		w.pods = slices.Delete(w.pods, at, at+1)
	}
}

func (w *world) end(n *cluster.Nodes, at int) {
	if len(w.pods) > 0 {
		at %= len(w.pods)
		p := w.pods[at].DeepCopy()
		p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
		w.pods = slices.Delete(w.pods, at, at+1)
		w.settle(n, p)
	}
}

// schedule compares the two ways, and the kept class with one made from nothing, then places the pod.
func (w *world) schedule(n *cluster.Nodes, t *Table, p *corev1.Pod) error {
	volumes, why, err := w.book.Of(p)
	if want := w.unusable(p); why != want || err != nil {
		return fmt.Errorf("pod %s: %q, %v, the reference says %q", p.Name, why, err, want)
	}
	if why != "" {
		w.decided(n, p, nil, why, nil)
		return nil
	}
	asked := func() *cluster.Pod {
		q := cluster.PodOf(p)
		if w.rules != nil {
			q.Use(w.rules)
		}
		q.Volumes = volumes
		backing(q)
		return q
	}
	c := t.Of(asked())
	var feasible []*corev1.Node
	reasons := map[string]int{}
	for _, node := range w.nodes {
		i, _ := n.Index(node.Name)
		want := w.refusal(p, node)
		got := ""
		if r, _ := c.Why(i); r != nil {
			got = r.Reasons[0]
		}
		if got != want {
			return fmt.Errorf("pod %s on %s: %q, the reference says %q", p.Name, node.Name, got, want)
		}
		if want == "" {
			feasible = append(feasible, node)
		} else {
			reasons[want]++
		}
	}
	want := w.scores(p, feasible)
	for which, c := range map[string]*Class{"kept": c, "fresh": NewTable(n, t.siblings).Of(asked())} {
		got := map[string]int64{}
		for i, s := range c.Scores() {
			got[n.Name(i)] = s
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("scores of pod %s, %s class: %v, the reference says %v", p.Name, which, got, want)
		}
	}
	if err := w.summed(n, c, reasons); err != nil {
		return fmt.Errorf("pod %s: %w", p.Name, err)
	}
	w.decided(n, p, volumes, "", c)
	if err := w.tried(n, c, p); err != nil {
		return err
	}
	best, ok := c.Best()
	if ok != (len(feasible) > 0) {
		return fmt.Errorf("best of %d nodes: %t", len(feasible), ok)
	}
	if !ok {
		return nil
	}
	for _, node := range feasible {
		i, _ := n.Index(node.Name)
		if want[node.Name] > want[n.Name(best)] || want[node.Name] == want[n.Name(best)] && n.Touched[i] < n.Touched[best] {
			return fmt.Errorf("pod %s on %s, and %s is better: %v", p.Name, n.Name(best), node.Name, want)
		}
	}
	p = p.DeepCopy()
	p.Spec.NodeName = n.Name(best)
	w.settle(n, p)
	return nil
}

// tried compares what a node would say without some of its pods with what it says when they are gone: every set of the first few of each node.
func (w *world) tried(n *cluster.Nodes, c *Class, p *corev1.Pod) error {
	var trial Trial
	for _, node := range w.nodes {
		i, _ := n.Index(node.Name)
		here := w.on(node.Name)
		here = here[:min(len(here), 3)]
		for set := 1; set < 1<<len(here); set++ {
			without, gone := *w, []string{}
			c.On(i, &trial)
			without.pods = slices.DeleteFunc(slices.Clone(w.pods), func(q *corev1.Pod) bool {
				k := slices.Index(here, q)
				return k >= 0 && set&(1<<k) != 0
			})
			for k, q := range here {
				if set&(1<<k) != 0 {
					gone = append(gone, q.Name)
					trial.Without(n.On[i][slices.IndexFunc(n.On[i], func(on *cluster.Pod) bool { return on.UID == q.UID })])
				}
			}
			got, want := "", without.refusal(p, node)
			if r := trial.Refusal(); r != nil {
				got = r.Reasons[0]
			}
			if got != want {
				return fmt.Errorf("pod %s on %s without %v: %q, the reference says %q", p.Name, node.Name, gone, got, want)
			}
		}
	}
	return nil
}

// summed compares what is known of all nodes together with what each says.
func (w *world) summed(n *cluster.Nodes, c *Class, reasons map[string]int) error {
	v, final, helps := c.Verdict(), 0, cluster.Added
	for _, node := range w.nodes {
		i, _ := n.Index(node.Name)
		r, h := c.Why(i)
		if against := c.Against(i); (r == nil) != (against == nil) || r != nil && !slices.Equal(r.Reasons, against.Reasons) {
			return fmt.Errorf("%s is against it for %v, and known to be for %v", node.Name, r, against)
		}
		helps |= h
		if r == nil {
			continue
		}
		for _, more := range r.Reasons[1:] {
			reasons[more]++
		}
		if r.Final {
			final++
		}
	}
	if !maps.Equal(v.Reasons, reasons) || v.Final != final || v.Helps != helps || v.Nodes != len(w.nodes) {
		return fmt.Errorf("verdict %+v, and one by one %v, %d final, %v", v, reasons, final, helps.Words())
	}
	return nil
}

// setting is what does not change while a cluster is played.
type setting struct {
	siblings map[string]labels.Selector
	rules    *profile.Profile
	config   string // the file that rules is from
	seed     uint64
	records  *json.Encoder // nil: nobody wants them
}

// rules draws a profile; most clusters have none.
func (d dice) rules(t *testing.T) (*profile.Profile, string) {
	if d.one(60) {
		return nil, ""
	}
	file := "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- plugins:\n    multiPoint:\n      enabled:\n"
	for _, name := range []string{"TaintToleration", "NodeAffinity", "PodTopologySpread", "InterPodAffinity", "NodeResourcesFit", "NodeResourcesBalancedAllocation", "VolumeBinding"} {
		file += fmt.Sprintf("      - {name: %s, weight: %d}\n", name, 1+d.IntN(5))
	}
	file += "    filter: {disabled: [" + pick(d, "", "{name: PodTopologySpread}", "{name: InterPodAffinity}") + "]}\n"
	file += "    score: {disabled: [" + pick(d, "", "{name: PodTopologySpread}", "{name: InterPodAffinity}", "{name: NodeResourcesFit}", "{name: VolumeBinding}") + "]}\n"
	file += fmt.Sprintf("  pluginConfig:\n  - name: InterPodAffinity\n    args: {hardPodAffinityWeight: %d}\n", d.IntN(30))
	file += pick(d, "", "  - name: VolumeBinding\n    args: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}\n")
	file += pick(d, "", "  - name: NodeResourcesFit\n    args: {scoringStrategy: {type: MostAllocated}}\n")
	file += pick(d, "", "", "  - name: NodeAffinity\n    args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]}}}\n")
	file += pick(d, "", "  - name: PodTopologySpread\n    args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: "+
		pick(d, "ScheduleAnyway", "DoNotSchedule")+"}]}\n")
	return readProfiles(t, file)[profile.DefaultName], file
}

func readProfiles(t *testing.T, file string) map[string]*profile.Profile {
	path := filepath.Join(t.TempDir(), "profile.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := profile.Read("scheduler-config", path)
	if err != nil {
		t.Fatal(err)
	}
	return s.Profiles
}

func play(steps []step, at setting) error {
	n, siblings := cluster.New(), at.siblings
	w := &world{spaces: map[string]map[string]string{}, siblings: siblings, rules: at.rules, storage: newShelf(), at: at}
	w.book = volume.NewBook(w.storage, n)
	table := NewTable(n, func(p *corev1.Pod) labels.Selector { return siblings[p.Namespace] })
	for k, s := range steps {
		if err := s.do(w, n, table); err != nil {
			return fmt.Errorf("step %d, %s: %w", k, s.text, err)
		}
		if err := w.rebuilt(n); err != nil {
			return fmt.Errorf("step %d, %s: %w", k, s.text, err)
		}
	}
	return nil
}

// rebuilt compares the columns with those made from nothing.
func (w *world) rebuilt(n *cluster.Nodes) error {
	m := cluster.New()
	for _, node := range w.nodes {
		m.Set(node)
	}
	for _, p := range w.pods {
		m.Place(cluster.PodOf(p), p.Spec.NodeName)
	}
	for _, node := range w.nodes {
		i, _ := n.Index(node.Name)
		k, _ := m.Index(node.Name)
		same := maps.Equal(n.Ports[i], m.Ports[k]) && len(n.On[i]) == len(m.On[k]) && n.Node[i] == node
		for r := range n.Requested {
			same = same && n.Requested[r][i] == m.Requested[r][k] && n.Allocatable[r][i] == m.Allocatable[r][k]
		}
		same = same && filter.Left(n, gpu, i) == filter.Left(m, gpu, k)
		for r := range n.Estimated {
			same = same && n.Estimated[r][i] == m.Estimated[r][k]
		}
		if !same {
			return fmt.Errorf("node %s is not what its pods make it", node.Name)
		}
	}
	if n.Count() != m.Count() {
		return fmt.Errorf("%d nodes, rebuilt %d", n.Count(), m.Count())
	}
	return nil
}

// For any cluster and any history, the fast way gives every node the verdict and the score of the slow, obvious way.
func TestLikeTheReference(t *testing.T) {
	first, last := uint64(time.Now().UnixNano()), uint64(0)
	if *seed != 0 {
		first, *cases = *seed, 1
	}
	last = first + uint64(*cases)
	t.Logf("seeds from %d", first)
	records := newRecorder(t)
	for s := first; s < last; s++ {
		d := dice{rand.New(rand.NewPCG(s, 1))}
		siblings := map[string]labels.Selector{}
		if d.one(50) {
			siblings["x"] = labels.SelectorFromSet(labels.Set{"app": "a"})
		}
		steps := draw(d)
		rules, config := d.rules(t)
		at := setting{siblings, rules, config, s, records}
		if err := play(steps, at); err != nil {
			at.records = nil
			steps = shorten(steps, at)
			var story []string
			for _, s := range steps {
				story = append(story, s.text)
			}
			t.Fatalf("seed %d: %v\nshortest:\n%s\n%v", s, err, strings.Join(story, "\n"), play(steps, at))
		}
	}
}

// shorten leaves out steps as long as what is left still fails.
func shorten(steps []step, in setting) []step {
	for size := len(steps) / 2; size > 0; {
		shorter := false
		for at := 0; at+size <= len(steps); at++ {
			less := slices.Concat(steps[:at], steps[at+size:])
			if play(less, in) != nil {
				steps, shorter = less, true
				break
			}
		}
		if !shorter {
			size /= 2
		}
	}
	return steps
}
