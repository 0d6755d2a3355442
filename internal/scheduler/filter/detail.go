package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Detail is the figure behind a plug-in's refusal of node i, for people; "" if the reason says all there is. It is worked out on demand only.
func Detail(plugin string, p *cluster.Pod, n *cluster.Nodes, i int) string {
	node := n.Node[i]
	switch plugin {
	case "NodeUnschedulable":
		return "the node is cordoned"
	case "NodeName":
		return "the pod asks for node " + p.Spec.NodeName
	case "TaintToleration":
		return "not tolerated: " + strings.Join(untolerated(p, node), ", ")
	case "NodeAffinity":
		return affinityDetail(p, node)
	case "NodeDeclaredFeatures":
		return "not declared by the node: " + strings.Join(Undeclared(p, node.Status.DeclaredFeatures), ", ")
	case "NodePorts":
		return portsDetail(p, n, i)
	case "VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone":
		return volumesDetail(plugin, p.Volumes, n, i)
	}
	return ""
}

func untolerated(p *cluster.Pod, node *corev1.Node) (list []string) {
	for t := range node.Spec.Taints {
		taint := &node.Spec.Taints[t]
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && !helpers.TolerationsTolerateTaint(klog.Background(), p.Spec.Tolerations, taint, true) {
			list = append(list, taint.ToString())
		}
	}
	return list
}

// affinityDetail names the labels of the selector that a node has not, and what it has instead.
func affinityDetail(p *cluster.Pod, node *corev1.Node) string {
	var wrong []string
	has := func(key string) string {
		if v, there := node.Labels[key]; there {
			return fmt.Sprintf("the node has %q", v)
		}
		return "the node has no such label"
	}
	for _, key := range slices.Sorted(maps.Keys(p.Spec.NodeSelector)) {
		if want := p.Spec.NodeSelector[key]; node.Labels[key] != want {
			wrong = append(wrong, fmt.Sprintf("nodeSelector %s=%s: %s", key, want, has(key)))
		}
	}
	if len(wrong) > 0 {
		return strings.Join(wrong, ", ")
	}
	affinity := required(p)
	if affinity == nil {
		return ""
	}
	for k := range affinity.NodeSelectorTerms {
		for _, e := range affinity.NodeSelectorTerms[k].MatchExpressions {
			if !expressionHolds(&e, node) {
				wrong = append(wrong, fmt.Sprintf("%s: %s", expression(&e), has(e.Key)))
				break
			}
		}
		for _, e := range affinity.NodeSelectorTerms[k].MatchFields {
			if e.Operator == corev1.NodeSelectorOpIn && !slices.Contains(e.Values, node.Name) {
				wrong = append(wrong, fmt.Sprintf("the pod is for node %s", strings.Join(e.Values, ", ")))
			}
		}
	}
	return strings.Join(wrong, ", or ")
}

// expression is one requirement of a selector as labels.Selector writes it, with a few of its values.
func expression(e *corev1.NodeSelectorRequirement) string {
	const few = 5
	values := strings.Join(e.Values[:min(few, len(e.Values))], ", ")
	if more := len(e.Values) - few; more > 0 {
		values += fmt.Sprintf(" or %d others", more)
	}
	switch e.Operator {
	case corev1.NodeSelectorOpIn:
		if len(e.Values) == 1 {
			return e.Key + "=" + values
		}
		return e.Key + " in (" + values + ")"
	case corev1.NodeSelectorOpNotIn:
		return e.Key + " not in (" + values + ")"
	case corev1.NodeSelectorOpExists:
		return "a label " + e.Key
	case corev1.NodeSelectorOpDoesNotExist:
		return "no label " + e.Key
	case corev1.NodeSelectorOpGt:
		return e.Key + " > " + values
	case corev1.NodeSelectorOpLt:
		return e.Key + " < " + values
	}
	return fmt.Sprintf("%s %s %s", e.Key, e.Operator, values)
}

// expressionHolds decides one requirement; what cannot be read does not hold.
func expressionHolds(e *corev1.NodeSelectorRequirement, node *corev1.Node) bool {
	holds, err := helpers.MatchNodeSelectorTerms(node, &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
		{MatchExpressions: []corev1.NodeSelectorRequirement{*e}}}})
	return err == nil && holds
}

func portsDetail(p *cluster.Pod, n *cluster.Nodes, i int) string {
	var taken []string
	for _, other := range n.On[i] {
		for _, port := range other.Ports {
			if Collides(p.Ports, port) {
				taken = append(taken, fmt.Sprintf("%d/%s is used by %s/%s", port.Number, port.Protocol, other.Namespace, other.Name))
			}
		}
	}
	slices.Sort(taken)
	return strings.Join(taken, ", ")
}
