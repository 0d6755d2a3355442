package schedulertest

import (
	"fmt"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"skiff.dev/skiff/internal/api"
)

// grouped are those of upstream's folder podgroup.
func grouped(n func(int) int) []Workload {
	basic := func(s *schedulingv1beta1.PodGroupSpec) {
		s.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	}
	gang := func(members int) func(s *schedulingv1beta1.PodGroupSpec) {
		return func(s *schedulingv1beta1.PodGroupSpec) {
			s.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: int32(members)}
		}
	}
	of := func(name, namespace, group string, count, members int, policy func(s *schedulingv1beta1.PodGroupSpec)) Workload {
		return Workload{Name: name, Served: []string{api.PodGroupAPI}, Steps: []Step{some(n(5000)), podGroups(namespace, group, count, policy),
			Pods{Count: count * members, Shape: light("pod", takes("100m", "100Mi", false), inGroup(group, members)), Namespace: namespace, Measured: true}}}
	}
	return []Workload{
		of("BasicScheduling/5000Nodes_3000Groups_9000Pods", "basic-ns-0", "basic-group", n(3000), 3, basic),
		of("BasicScheduling/5000Nodes_9Groups_9000Pods_1000PerGroup", "basic-ns-0", "basic-group", 9, n(1000), basic),
		of("GangScheduling/5000Nodes_3000Gangs_9000Pods", "gang-ns-0", "gang", n(3000), 3, gang(3)),
		of("GangScheduling/5000Nodes_9Gangs_9000Pods_1000PerGroup", "gang-ns-0", "gang", 9, n(1000), gang(n(1000))),
	}
}

func groupName(name string, k int) string { return fmt.Sprintf("%s-%d", name, k) }

func podGroups(namespace, name string, count int, policy func(s *schedulingv1beta1.PodGroupSpec)) (list Objects) {
	for k := range count {
		g := &schedulingv1beta1.PodGroup{ObjectMeta: meta(namespace, groupName(name, k))}
		policy(&g.Spec)
		list = append(list, g)
	}
	return list
}
