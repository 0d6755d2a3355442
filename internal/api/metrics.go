package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// MetricsRows are metrics.k8s.io. What pods and nodes use at the moment is read and never stored: whoever has the figures registers a function that answers (registry.HandleRead).
func MetricsRows() []*Resource {
	const g, v = metricsv1beta1.GroupName, "v1beta1"
	return []*Resource{
		of[metricsv1beta1.NodeMetrics, metricsv1beta1.NodeMetricsList](Resource{
			Group: g, Version: v, Kind: "NodeMetrics", Plural: "nodes", Verbs: []string{"get", "list"},
			Columns: measuredColumns(func(m *metricsv1beta1.NodeMetrics) (corev1.ResourceList, time.Duration) {
				return m.Usage, m.Window.Duration
			}),
		}),
		of[metricsv1beta1.PodMetrics, metricsv1beta1.PodMetricsList](Resource{
			Group: g, Version: v, Kind: "PodMetrics", Plural: "pods", Namespaced: true, Verbs: []string{"get", "list"},
			Columns: measuredColumns(func(m *metricsv1beta1.PodMetrics) (corev1.ResourceList, time.Duration) {
				sum := corev1.ResourceList{}
				for _, c := range m.Containers {
					for name, q := range c.Usage {
						total := sum[name]
						total.Add(q)
						sum[name] = total
					}
				}
				return sum, m.Window.Duration
			}),
		}),
	}
}

func measuredColumns[T Object](of func(T) (corev1.ResourceList, time.Duration)) []Column {
	amountOf := func(name corev1.ResourceName) func(T) string {
		return func(o T) string {
			usage, _ := of(o)
			q := usage[name]
			return q.String()
		}
	}
	return []Column{
		nameColumn, text("cpu", amountOf(corev1.ResourceCPU)), text("memory", amountOf(corev1.ResourceMemory)),
		text("window", func(o T) string { _, w := of(o); return w.String() }),
	}
}
