package schedulertest

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"skiff.dev/skiff/internal/api"
)

var (
	lowPriority  = kind("pod-low", takes("900m", "500Mi", true), withoutGrace)
	highPriority = kind("pod-high-priority", takes("3", "500Mi", true), important(10))
)

// preemptions are those of upstream's folder default_preemption.
func preemptions(n func(int) int) []Workload {
	const members = 10
	victim := func(with ...feature) Shape {
		return light("gang-pod", append([]feature{takes("300m", "50Mi", true), important(1000), withoutGrace}, with...)...)
	}
	wholeNode := Pods{Count: n(100), Namespace: "gang-preempt-0", Measured: true,
		Shape: light("pod-high-priority", takes("3970m", "500Mi", true), important(9999999), withoutGrace)}
	return []Workload{
		{Name: "PreemptionBasic/1000Nodes", Steps: []Step{classes(10), some(n(1000)), Pods{Count: 4 * n(1000), Shape: lowPriority},
			Pods{Count: n(1000), Shape: highPriority, Measured: true}}},
		{Name: "PreemptionAsync/5000Nodes", Floor: 570, Steps: []Step{classes(10), some(n(5000)), Pods{Count: 4 * n(5000), Shape: lowPriority},
			comingEvery200ms(highPriority), Pods{Count: n(5000), Shape: plain, Measured: true}}},
		{Name: "Unschedulable/5kNodes/100Init/10kPods", Floor: 590, Steps: unschedulables(n(5000), n(100), n(10000))},
		{Name: "Unschedulable/5kNodes/20kInit/10kPods", Floor: 600, Steps: unschedulables(n(5000), n(20000), n(10000))},
		{Name: "PreemptionPodGroupDisruptionMode/1000Nodes_1000Candidates_NoPodGroup", Steps: []Step{classes(1000, 9999999), some(n(1000)),
			Pods{Count: members * n(1000), Shape: victim(), Namespace: "gang-preempt-1"}, wholeNode}},
		{Name: "PreemptionPodGroupDisruptionMode/1000Nodes_1000Candidates_DisruptionSingle", Served: []string{api.PodGroupAPI}, Steps: []Step{
			classes(1000, 9999999), some(n(1000)), podGroups("gang-preempt-1", "gang", n(1000), func(s *schedulingv1beta1.PodGroupSpec) {
				s.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: members}
				s.PriorityClassName, s.DisruptionMode = classPrefix+"1000", &schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}}
			}),
			Pods{Count: members * n(1000), Shape: victim(inGroup("gang", members)), Namespace: "gang-preempt-1"}, wholeNode}},
	}
}

func unschedulables(nodes, initial, measured int) []Step {
	return []Step{classes(10), some(nodes), Pods{Count: initial, Shape: plain, Batch: initial}, comingEvery200ms(tooLarge),
		Pods{Count: measured, Shape: plain, Measured: true}}
}

func comingEvery200ms(s Shape) Churn {
	return Churn{Every: 200 * time.Millisecond, Objects: func(k int) []Object { return []Object{podOf(s, "churn", k)} }}
}

// inGroup makes pods of which each so many, one after the other, are of one group.
func inGroup(name string, members int) feature {
	return func(p *corev1.Pod, i int) {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: new(groupName(name, i/members))}
	}
}
