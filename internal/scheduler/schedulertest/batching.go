package schedulertest

// withoutDefaultSpreading is upstream's configuration for the workloads that are about pods alike.
const withoutDefaultSpreading = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
  pluginConfig:
  - name: PodTopologySpread
    args: {defaultingType: List, defaultConstraints: []}
`

// batches have of each node's room for one pod. Upstream's variants differ in how many pods are alike.
func batches(n func(int) int) []Workload {
	port := light("pod-hostport-80", takes("100m", "100Mi", false), onHostPort(func(int) int32 { return 80 }))
	return []Workload{
		{Name: "HostPortConflict/20000Nodes_20000Pods_10BatchSize", Config: withoutDefaultSpreading, Steps: []Step{some(n(20000)),
			Pods{Count: n(20000), Shape: port, Batch: 10, Measured: true}}},
		{Name: "ResourceSaturation/20000Nodes_20000Pods_10BatchSize", Config: withoutDefaultSpreading, Steps: []Step{some(n(20000)),
			Pods{Count: n(20000), Shape: light("pod-saturation", takes("3", "1Gi", false)), Batch: 10, Measured: true}}},
	}
}
