package schedulertest

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Mark is the label of all objects besides nodes and pods, by which they are found again.
const Mark = "scheduler-perf"

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{Mark: "true"}}
}

// single is the name of the one node of workloads that have no other.
const single = "scheduler-perf-node"

// nodeOf is a node of upstream's workloads.
func nodeOf(name, cpu, memory, pods string) *corev1.Node {
	n := Node(0)
	n.Name, n.Labels = name, map[string]string{corev1.LabelHostname: name}
	list := resources(cpu, memory)
	list[corev1.ResourcePods] = resource.MustParse(pods)
	n.Status.Capacity, n.Status.Allocatable = list, list
	return n
}

// numbered makes nodes with a name in common.
func numbered(name, cpu, memory, pods string, with ...func(n *corev1.Node, i int)) func(i int) *corev1.Node {
	return func(i int) *corev1.Node {
		n := nodeOf(fmt.Sprintf("%s-%d", name, i), cpu, memory, pods)
		for _, w := range with {
			w(n, i)
		}
		return n
	}
}

// some nodes as they are by default, with what sets them apart.
func some(count int, with ...func(n *corev1.Node, i int)) Nodes {
	return Nodes{Count: count, Node: numbered("scheduler-perf", "4", "32Gi", "110", with...)}
}

// one node that takes all pods there are.
func one() Nodes {
	return Nodes{Count: 1, Node: func(int) *corev1.Node { return nodeOf(single, "4", "32Gi", "90000") }}
}

// inZones puts nodes into zones in turn.
func inZones(zones ...string) func(n *corev1.Node, i int) {
	return func(n *corev1.Node, i int) { n.Labels[corev1.LabelTopologyZone] = zones[i%len(zones)] }
}

// labelled gives nodes labels: name=value.
func labelled(labels ...string) func(n *corev1.Node, _ int) {
	return func(n *corev1.Node, _ int) { maps.Copy(n.Labels, pairs(labels)) }
}

// tainted keeps pods that don't tolerate the taint off nodes.
func tainted(key string) func(n *corev1.Node, _ int) {
	return func(n *corev1.Node, _ int) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
}

func unschedulable(n *corev1.Node, _ int) { n.Spec.Unschedulable = true }

func pairs(list []string) map[string]string {
	out := map[string]string{}
	for _, pair := range list {
		name, value, _ := strings.Cut(pair, "=")
		out[name] = value
	}
	return out
}

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// feature sets a kind of pod apart.
type feature func(p *corev1.Pod, i int)

// kind of pods with upstream's requests, limits and port, and what sets them apart.
func kind(name string, with ...feature) Shape {
	return light(name, append([]feature{takes("100m", "500Mi", true), func(p *corev1.Pod, _ int) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80}}
	}}, with...)...)
}

// light pods ask for nothing.
func light(name string, with ...feature) Shape {
	return Shape{name, false, func(p *corev1.Pod, i int) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
		for _, w := range with {
			w(p, i)
		}
	}}
}

// takes has a pod ask for so much, and be held to it.
func takes(cpu, memory string, limited bool) feature {
	return func(p *corev1.Pod, _ int) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: resources(cpu, memory)}
		if limited {
			p.Spec.Containers[0].Resources.Limits = resources(cpu, memory)
		}
	}
}

// counts gives a pod labels: name=value.
func counts(labels ...string) feature {
	return func(p *corev1.Pod, _ int) { p.Labels = pairs(labels) }
}

// withoutGrace has a pod gone as soon as it is deleted.
func withoutGrace(p *corev1.Pod, _ int) { p.Spec.TerminationGracePeriodSeconds = new(int64) }

func gated(gate string) feature {
	return func(p *corev1.Pod, _ int) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: gate}} }
}

func tolerates(key func(i int) string) feature {
	return func(p *corev1.Pod, i int) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: key(i), Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
	}
}

func always(s string) func(int) string { return func(int) string { return s } }

func onHostPort(port func(i int) int32) feature {
	return func(p *corev1.Pod, i int) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: port(i), HostPort: port(i)}}
	}
}

// asksFor has a pod ask for one of an extended resource.
func asksFor(name func(i int) string) feature {
	return func(p *corev1.Pod, i int) {
		list := corev1.ResourceList{corev1.ResourceName(name(i)): resource.MustParse("1")}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	}
}

// Priorities of pods are those of classes, of which there is one for each: a pod may not name a number only.
const classPrefix = "priority-"

func important(priority int) feature {
	return func(p *corev1.Pod, _ int) { p.Spec.PriorityClassName = classPrefix + strconv.Itoa(priority) }
}

// priorityOf a pod of a workload.
func priorityOf(p *corev1.Pod) *int32 {
	number, _ := strings.CutPrefix(p.Spec.PriorityClassName, classPrefix)
	v, err := strconv.Atoi(number)
	if err != nil {
		return p.Spec.Priority
	}
	return new(int32(v))
}

func classes(priorities ...int) (list Objects) {
	for _, v := range priorities {
		list = append(list, &schedulingv1.PriorityClass{ObjectMeta: meta("", classPrefix+strconv.Itoa(v)), Value: int32(v)})
	}
	return list
}

// spaces are so many namespaces with a label.
func spaces(prefix string, count int, label, value string) (list Objects) {
	for k := range count {
		ns := &corev1.Namespace{ObjectMeta: meta("", fmt.Sprintf("%s-%d", prefix, k))}
		ns.Labels[label] = value
		list = append(list, ns)
	}
	return list
}

func serviceOf(namespace, name string, selector string, port int32) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(namespace, name), Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": selector}, Ports: []corev1.ServicePort{{Port: port}}}}
}

// podOf is a pod that comes and goes.
func podOf(s Shape, namespace string, round int) *corev1.Pod {
	p := s.Pod(round)
	p.Namespace, p.Name = namespace, fmt.Sprintf("%s-%d", s.Name, round)
	return p
}
