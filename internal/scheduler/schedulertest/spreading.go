package schedulertest

import (
	corev1 "k8s.io/api/core/v1"
)

// spreadings are those of upstream's folder topology_spreading.
func spreadings(n func(int) int) []Workload {
	moons := some(n(5000), inZones("moon-1", "moon-2", "moon-3"))
	zones := func(when corev1.UnsatisfiableConstraintAction) Shape {
		return kind("spreading-pod", counts("color=blue"), spread(spreading{5, 0, corev1.LabelTopologyZone, "color", "blue"}, func(c *corev1.TopologySpreadConstraint) { c.WhenUnsatisfiable = when }))
	}
	honour := func(c *corev1.TopologySpreadConstraint) {
		c.NodeAffinityPolicy, c.NodeTaintsPolicy = new(corev1.NodeInclusionPolicyHonor), new(corev1.NodeInclusionPolicyHonor)
	}
	return []Workload{
		{Name: "TopologySpreading/5000Nodes_5000Pods", Floor: 460, Steps: []Step{moons, Pods{Count: n(5000), Shape: plain},
			Pods{Count: n(5000), Shape: zones(corev1.DoNotSchedule), Measured: true}}},
		{Name: "PreferredTopologySpreading/5000Nodes_5000Pods", Floor: 340, Steps: []Step{moons, Pods{Count: n(5000), Shape: plain},
			Pods{Count: n(5000), Shape: zones(corev1.ScheduleAnyway), Measured: true}}},
		{Name: "DefaultTopologySpreading/5000Nodes_50000Pods", Floor: 160, Steps: []Step{moons, Objects{serviceOf("service-ns", "service", "scheduler-perf", 80)},
			Pods{Count: n(5000), Shape: plain}, Pods{Count: n(50000), Namespace: "service-ns", Shape: light("pod", counts("app=scheduler-perf")), Measured: true}}},
		{Name: "SchedulingWithNodeInclusionPolicy/5000Nodes", Floor: 270, Steps: []Step{some(n(4000)),
			Nodes{Count: n(1000), Node: numbered("taint-node", "4", "32Gi", "110", tainted("foo"))},
			Pods{Count: n(4000), Shape: kind("spreading-pod", counts("foo=bar"), spread(spreading{1, 0, corev1.LabelHostname, "foo", "bar"}, honour)), Measured: true}}},
	}
}

// spreading is what a constraint says: how far its domains may be apart, how many there are to be at least, and whom it counts.
type spreading struct {
	skew, domains     int32
	key, label, value string
}

// spread has pods be spread, by a constraint that must hold.
func spread(s spreading, with ...func(c *corev1.TopologySpreadConstraint)) feature {
	return func(p *corev1.Pod, _ int) {
		c := corev1.TopologySpreadConstraint{MaxSkew: s.skew, TopologyKey: s.key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: having(s.label, s.value)}
		if s.domains > 0 {
			c.MinDomains = new(s.domains)
		}
		for _, w := range with {
			w(&c)
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}
