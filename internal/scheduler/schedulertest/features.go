package schedulertest

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// features are those of upstream's folder nodedeclaredfeatures.
func features(n func(int) int) []Workload {
	const declared = 100
	var names []string
	for k := range declared {
		names = append(names, fmt.Sprintf("Feature%d", k+1))
	}
	slices.Sort(names) // as the API wants them
	whole := light("pod", func(p *corev1.Pod, _ int) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: resources("100m", "200Mi")}
	})
	return []Workload{
		{Name: "NodeDeclaredFeaturesEnabled/5000Nodes100DeclaredFeatures", Floor: 890, Steps: []Step{
			Nodes{Count: n(5000), Node: numbered("node", "128", "16Gi", "110", func(node *corev1.Node, _ int) { node.Status.DeclaredFeatures = names })},
			Pods{Count: n(5000), Shape: whole, Namespace: "init"}, Pods{Count: n(50000), Shape: whole, Namespace: "test", Measured: true}}},
	}
}
