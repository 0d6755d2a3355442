package schedulertest

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
)

// starvations ask how pods get through beside important ones that fit nowhere, each of which may fit whenever a pod comes.
func starvations(n func(int) int) []Workload {
	const namespace = "starvation-0"
	clogger := []feature{important(1000), clogs}
	steps := func(with ...feature) []Step {
		comes := light("pod-churn", takes("10m", "10Mi", false), counts("service=target"), important(10000))
		return []Step{classes(1000, 10000), Nodes{Count: n(10000), Node: numbered("starvation-node", "4", "8Gi", "110")},
			Churn{Every: time.Second, Slots: 600, Objects: func(k int) []Object { return []Object{podOf(comes, namespace, k)} }},
			Pods{Count: n(10000), Shape: light("pod-clogger", append(clogger, with...)...), Namespace: namespace, Loose: true}, Tried{},
			Pods{Count: n(500), Shape: light("pod-victim", takes("10m", "10Mi", false)), Namespace: namespace, Measured: true}}
	}
	group := podGroups(namespace, "podgroup", 1, func(s *schedulingv1beta1.PodGroupSpec) {
		s.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: int32(n(10000))}
	})
	return []Workload{
		{Name: "StarvationIndependent/10000Nodes_10000Cloggers", Steps: steps()},
		{Name: "StarvationPodGroup/10000Nodes_10000Cloggers_Podgroup", Served: []string{api.PodGroupAPI}, Steps: append([]Step{group}, steps(inGroup("podgroup", n(10000)))...)},
	}
}

// clogs wants a pod to be where pods are, and to be where they are not.
func clogs(p *corev1.Pod, _ int) {
	term := func(namespaces []string, with ...metav1.LabelSelectorRequirement) corev1.PodAffinityTerm {
		return corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, Namespaces: namespaces, LabelSelector: &metav1.LabelSelector{MatchExpressions: with}}
	}
	two := []string{"starvation-0", "default"}
	target := term(append(two, "kube-system"), metav1.LabelSelectorRequirement{Key: "service", Operator: metav1.LabelSelectorOpIn, Values: []string{"target"}})
	p.Spec.Affinity = &corev1.Affinity{
		PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{target,
			term(two, metav1.LabelSelectorRequirement{Key: "service", Operator: metav1.LabelSelectorOpExists},
				metav1.LabelSelectorRequirement{Key: "service", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"non-existent-value"}})}},
		PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{target}}}
}
