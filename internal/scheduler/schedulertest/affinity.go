package schedulertest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	together = kind("affinity-pod", counts("color=blue"), near(required, here("blue", corev1.LabelTopologyZone)))
	apart    = kind("anti-affinity-pod", counts("color=green"), far(required, here("green", corev1.LabelHostname)))
	likes    = kind("preferred-affinity-pod", counts("color=red"), near(preferred, here("red", corev1.LabelHostname)))
	dislikes = kind("preferred-anti-affinity-pod", counts("color=yellow"), far(preferred, here("yellow", corev1.LabelHostname)))
	green    = kind("anti-affinity-matching-pod", counts("color=green"))
	zoned    = kind("node-affinity", amongNodes(corev1.LabelTopologyZone, "zone1", "zone2"))
)

func affinities(n func(int) int) []Workload {
	inZone := some(n(5000), inZones("zone1"))
	gatedTogether := light("gated", counts("app=scheduler-perf"), gated("scheduling-gate-1"),
		near(required, corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: having("app", "scheduler-perf")}))
	return []Workload{
		{Name: "SchedulingPodAntiAffinity/5000Nodes_2000Pods", Floor: 180, Steps: before(some(n(5000)), n(1000), apart, n(2000), apart)},
		{Name: "SchedulingPodMatchingAntiAffinity/5000Nodes_5000Pods", Floor: 540, Steps: before(some(n(5000)), n(1000), apart, n(5000), green)},
		{Name: "SchedulingPodAffinity/5000Nodes_5000Pods", Floor: 70, Steps: before(inZone, n(5000), together, n(5000), together)},
		{Name: "SchedulingPreferredPodAffinity/5000Nodes_5000Pods", Floor: 160, Steps: before(some(n(5000)), n(5000), likes, n(5000), likes)},
		{Name: "SchedulingPreferredPodAntiAffinity/5000Nodes_5000Pods", Floor: 190, Steps: before(some(n(5000)), n(5000), dislikes, n(5000), dislikes)},
		{Name: "SchedulingNodeAffinity/5000Nodes_10000Pods", Floor: 540, Steps: before(inZone, n(5000), zoned, n(10000), zoned)},
		{Name: "MixedSchedulingBasePod/5000Nodes_5000Pods", Floor: 540, Steps: []Step{inZone,
			Pods{Count: n(2000), Shape: plain, Namespace: "sched-0"}, Pods{Count: n(2000), Shape: together, Namespace: "sched-0"},
			Pods{Count: n(2000), Shape: apart, Namespace: "sched-0"}, Pods{Count: n(2000), Shape: likes, Namespace: "sched-0"},
			Pods{Count: n(2000), Shape: dislikes, Namespace: "sched-0"}, Pods{Count: n(5000), Shape: plain, Measured: true}}},
		{Name: "SchedulingRequiredPodAntiAffinityWithNSSelector/5000Nodes_2000Pods", Floor: 140, Steps: acrossSpaces(some(n(6000)), n(100), 40, n(2000),
			kind("anti-affinity-pod", counts("color=green"), far(required, devops("green", corev1.LabelHostname))))},
		{Name: "SchedulingPreferredAntiAffinityWithNSSelector/5000Nodes_2000Pods", Floor: 180, Steps: acrossSpaces(some(n(5000)), n(100), 40, n(2000),
			kind("anti-affinity-pod", counts("color=green"), far(preferred, devops("green", corev1.LabelHostname))))},
		{Name: "SchedulingRequiredPodAffinityWithNSSelector/5000Nodes_2000Pods", Floor: 180, Steps: acrossSpaces(inZone, n(100), 50, n(2000),
			kind("affinity-pod", counts("color=blue"), near(required, devops("blue", corev1.LabelTopologyZone))))},
		{Name: "SchedulingPreferredAffinityWithNSSelector/5000Nodes_5000Pods", Floor: 190, Steps: acrossSpaces(some(n(5000)), n(100), 50, n(5000),
			kind("preferred-affinity-pod", counts("color=red"), near(preferred, devops("red", corev1.LabelHostname))))},
		{Name: "SchedulingGatedPodsWithPodAffinityImpactForThroughput/1Node_10000GatedPods", Floor: 750, Steps: []Step{one(),
			Pods{Count: n(10000), Shape: gatedTogether, Loose: true}, Tried{}, Pods{Count: n(20000), Shape: light("pod", counts("app=scheduler-perf")), Measured: true}}},
	}
}

// before has pods that are there before those that count, in two namespaces.
func before(nodes Nodes, initial int, first Shape, measured int, then Shape) []Step {
	return []Step{nodes, Pods{Count: initial, Shape: first, Namespace: "sched-0"}, Pods{Count: measured, Shape: then, Namespace: "sched-1", Measured: true}}
}

// acrossSpaces has pods in many namespaces that are of one team.
func acrossSpaces(nodes Nodes, namespaces, each, measured int, s Shape) []Step {
	steps := []Step{nodes, spaces("init-ns", namespaces, "team", "devops"), spaces("measure-ns", 1, "team", "devops")}
	for k := range namespaces {
		steps = append(steps, Pods{Count: each, Shape: s, Namespace: fmt.Sprintf("init-ns-%d", k)})
	}
	return append(steps, Pods{Count: measured, Shape: s, Namespace: "measure-ns-0", Measured: true})
}

const required, preferred = true, false

// near has pods be where others are.
func near(must bool, t corev1.PodAffinityTerm) feature {
	return func(p *corev1.Pod, _ int) {
		a := &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{t}}
		if !must {
			a = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted(t)}
		}
		affinityOf(p).PodAffinity = a
	}
}

// far has pods be where others are not.
func far(must bool, t corev1.PodAffinityTerm) feature {
	return func(p *corev1.Pod, _ int) {
		a := &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{t}}
		if !must {
			a = &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted(t)}
		}
		affinityOf(p).PodAntiAffinity = a
	}
}

func affinityOf(p *corev1.Pod) *corev1.Affinity {
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	return p.Spec.Affinity
}

func weighted(t corev1.PodAffinityTerm) []corev1.WeightedPodAffinityTerm {
	return []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: t}}
}

// here are pods of a colour in either of the two namespaces.
func here(color, key string) corev1.PodAffinityTerm {
	return in(color, key, "sched-1", "sched-0")
}

func in(color, key string, namespaces ...string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: key, Namespaces: namespaces, LabelSelector: having("color", color)}
}

// devops are pods of a colour in the team's namespaces.
func devops(color, key string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: key, NamespaceSelector: having("team", "devops"), LabelSelector: having("color", color)}
}

func having(label, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{label: value}}
}

// amongNodes limits pods to nodes whose label has one of the values.
func amongNodes(label string, values ...string) feature {
	return func(p *corev1.Pod, _ int) {
		affinityOf(p).NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: label, Operator: corev1.NodeSelectorOpIn, Values: values}}}}}}
	}
}
