package daemonset

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// fit says what a DaemonSet wants of a node.
type fit int

// unfit: no pod there. stay: pods that are there may stay, none is made. wanted: one pod.
const (
	unfit fit = iota
	stay
	wanted
)

// matcher judges nodes for one DaemonSet.
type matcher struct {
	nodeName    string
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

func matcherOf(d *appsv1.DaemonSet) *matcher {
	spec := &d.Spec.Template.Spec
	return &matcher{
		nodeName: spec.NodeName, affinity: nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, spec.Affinity), tolerations: tolerationsOf(spec),
	}
}

// on judges a node; one that is not there (nil) is unfit.
func (m *matcher) on(n *corev1.Node) fit {
	if n == nil || m.nodeName != "" && m.nodeName != n.Name {
		return unfit
	}
	if match, err := m.affinity.Match(n); err != nil || !match {
		return unfit
	}
	f := wanted
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule || m.tolerates(t) {
			continue
		}
		if t.Effect == corev1.TaintEffectNoExecute {
			return unfit
		}
		f = stay
	}
	return f
}

func (m *matcher) tolerates(taint *corev1.Taint) bool {
	return slices.ContainsFunc(m.tolerations, func(t corev1.Toleration) bool { return t.ToleratesTaint(klog.Background(), taint, true) })
}

// tolerationsOf are a template's, and those every daemon pod has: it stays on nodes that are unreachable, under pressure or cordoned.
func tolerationsOf(spec *corev1.PodSpec) []corev1.Toleration {
	list := slices.Clone(spec.Tolerations)
	add := func(key string, effect corev1.TaintEffect) {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
		for i := range list {
			if list[i].Key == t.Key && list[i].Effect == t.Effect && list[i].Operator == t.Operator && list[i].Value == t.Value {
				list[i] = t
				return
			}
		}
		list = append(list, t)
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return list
}

// podFor is a new pod for a node.
func (r *reconciler) podFor(d *appsv1.DaemonSet, node, hash string) *corev1.Pod {
	p := r.pods.FromTemplate(d, &d.Spec.Template)
	p.GenerateName = d.Name + "-"
	p.Labels = maps.Clone(p.Labels)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	p.Spec.Tolerations = tolerationsOf(&p.Spec)
	bindTo(&p.Spec, node)
	return p
}

// bindTo leaves the scheduler no choice but the node. What the template required of nodes was checked before and is replaced.
func bindTo(spec *corev1.PodSpec, node string) {
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
	}}}
}

// nodeOf is the node a daemon pod is on, or is bound for; "" if it is no daemon pod of ours.
func nodeOf(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}
