package usage

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// Reads are the answers to register with the registry, by path.
func (s *Source) Reads() map[string]registry.Reader {
	return map[string]registry.Reader{
		metricsv1beta1.GroupName + "/nodes": s.readNodes,
		metricsv1beta1.GroupName + "/pods":  s.readPods,
	}
}

// list reads the objects that figures are of. Figures have their names and labels, so the same predicate selects them.
func (s *Source) list(ctx context.Context, plural string, p store.Predicate) ([]*store.Entry, error) {
	row := s.reg.Table().ByResource(schema.GroupResource{Resource: plural})
	page, err := s.reg.Store().Collection(row).List(ctx, store.ListOptions{Predicate: p})
	if err != nil {
		return nil, err
	}
	return page.Entries, nil
}

func (s *Source) readNodes(ctx context.Context, p store.Predicate) ([]api.Object, error) {
	entries, err := s.list(ctx, "nodes", p)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Key()] = true
	}
	if p.Name == "" && p.Labels == nil && p.Fields == nil {
		s.keep(names)
	}
	figures := s.of(ctx, names)
	out := make([]api.Object, 0, len(entries))
	for _, e := range entries {
		if f := figures[e.Key()]; f != nil {
			if m := nodeMetrics(e.Object().(*corev1.Node), f.node, s.now()); m != nil {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func (s *Source) readPods(ctx context.Context, p store.Predicate) ([]api.Object, error) {
	entries, err := s.list(ctx, "pods", p)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, e := range entries {
		if pod := e.Object().(*corev1.Pod); running(pod) {
			names[pod.Spec.NodeName] = true
		}
	}
	figures := s.of(ctx, names)
	out := make([]api.Object, 0, len(entries))
	for _, e := range entries {
		pod := e.Object().(*corev1.Pod)
		if f := figures[pod.Spec.NodeName]; f != nil && running(pod) {
			if m := podMetrics(pod, f.pods[string(pod.UID)], s.now()); m != nil {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func running(p *corev1.Pod) bool {
	return p.Spec.NodeName != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// meta of figures: they are made when they are asked for.
func meta(of *metav1.ObjectMeta, now time.Time) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: of.Namespace, Name: of.Name, Labels: of.Labels, CreationTimestamp: metav1.NewTime(now.Truncate(time.Second))}
}

func nodeMetrics(n *corev1.Node, f *stats.NodeStats, now time.Time) *metricsv1beta1.NodeMetrics {
	amounts := resources(f.CPU, f.Memory)
	if amounts == nil {
		return nil
	}
	m := &metricsv1beta1.NodeMetrics{ObjectMeta: meta(&n.ObjectMeta, now), Timestamp: f.CPU.Time, Window: metav1.Duration{Duration: Window}, Usage: amounts}
	m.SetGroupVersionKind(metricsv1beta1.SchemeGroupVersion.WithKind("NodeMetrics"))
	return m
}

// podMetrics is nil unless every running container was measured: a sum that lacks some would mislead whoever scales by it.
func podMetrics(p *corev1.Pod, f *stats.PodStats, now time.Time) *metricsv1beta1.PodMetrics {
	if f == nil || len(f.Containers) == 0 {
		return nil
	}
	m := &metricsv1beta1.PodMetrics{ObjectMeta: meta(&p.ObjectMeta, now), Window: metav1.Duration{Duration: Window}}
	m.SetGroupVersionKind(metricsv1beta1.SchemeGroupVersion.WithKind("PodMetrics"))
	for i := range f.Containers {
		c := &f.Containers[i]
		amounts := resources(c.CPU, c.Memory)
		if amounts == nil {
			return nil
		}
		m.Timestamp = c.CPU.Time
		if age := c.CPU.Time.Sub(c.StartTime.Time).Truncate(time.Millisecond); age > 0 && age < m.Window.Duration {
			m.Window.Duration = age
		}
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: c.Name, Usage: amounts})
	}
	return m
}

// resources is nil as long as there is no rate.
func resources(cpu *stats.CPUStats, memory *stats.MemoryStats) corev1.ResourceList {
	if cpu == nil || cpu.UsageNanoCores == nil || memory == nil || memory.WorkingSetBytes == nil {
		return nil
	}
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(*cpu.UsageNanoCores), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(*memory.WorkingSetBytes), resource.BinarySI),
	}
}
