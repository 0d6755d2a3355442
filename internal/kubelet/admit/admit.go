// Package admit decides whether a node takes a pod that was bound to it.
//
// The scheduler asks the same before it binds, but whoever sets spec.nodeName goes past it. A pod is asked about once, when the node first
// sees it; what was let in stays, whatever becomes of the node. Requests and ports are counted by the scheduler's own arithmetic, so that
// the two never differ about a pod. Reasons and messages are those of upstream's kubelet.
//
// Critical pods are let in though resources don't suffice, if room can be made for them: Preempt says by whose end.
package admit

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/kubelet/evict"
	"skiff.dev/skiff/internal/kubelet/pod"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// Refuse says why a node doesn't take a pod, beside the others that it has taken and that have not ended; nil if it does.
func Refuse(one *corev1.Pod, node *corev1.Node, others []*corev1.Pod) *pod.Verdict {
	if v := system(one); v != nil {
		return v
	}
	p := cluster.PodOf(one)
	placed := make([]*cluster.Pod, len(others))
	for i := range others {
		placed[i] = cluster.PodOf(others[i])
	}
	if !evict.Critical(one) {
		if v := resources(p, node, placed); v != nil {
			return v
		}
	}
	return predicates(p, node, placed)
}

// system: what the pod says of the operating system.
func system(one *corev1.Pod) *pod.Verdict {
	if label, ok := one.Labels[corev1.LabelOSStable]; ok && label != runtime.GOOS {
		return &pod.Verdict{Reason: "PodOSSelectorNodeLabelDoesNotMatch",
			Message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if os := one.Spec.OS; os != nil && string(os.Name) != runtime.GOOS {
		return &pod.Verdict{Reason: "PodOSNotSupported", Message: "Failed to admit pod as the OS field doesn't match node OS"}
	}
	return nil
}

// resources are compared as upstream does, pods first, then each that the pod asks for.
func resources(p *cluster.Pod, node *corev1.Node, others []*cluster.Pod) *pod.Verdict {
	var used [cluster.Basic]int64
	for _, o := range others {
		for r := range used {
			used[r] += o.Requests[r]
		}
	}
	allocatable := node.Status.Allocatable
	for _, r := range []struct {
		name     corev1.ResourceName
		index    int
		capacity int64
	}{
		{corev1.ResourcePods, cluster.Pods, allocatable.Pods().Value()},
		{corev1.ResourceCPU, cluster.CPU, allocatable.Cpu().MilliValue()},
		{corev1.ResourceMemory, cluster.Memory, allocatable.Memory().Value()},
		{corev1.ResourceEphemeralStorage, cluster.Ephemeral, allocatable.StorageEphemeral().Value()},
	} {
		if v := short(r.name, p.Requests[r.index], used[r.index], r.capacity); v != nil {
			return v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Extended)) {
		capacity, known := allocatable[name]
		if !known || claimed(p.Pod, name) {
			continue // counted by the cluster, or by a claim for devices
		}
		var used int64
		for _, o := range others {
			used += o.Extended[name]
		}
		if v := short(name, p.Extended[name], used, capacity.Value()); v != nil {
			return v
		}
	}
	return nil
}

func short(name corev1.ResourceName, requested, used, capacity int64) *pod.Verdict {
	if requested <= 0 || requested <= capacity-used {
		return nil
	}
	return &pod.Verdict{Reason: "OutOf" + string(name), Message: fmt.Sprintf(
		"Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity)}
}

// claimed: the pod gets the resource from devices that were claimed for it.
func claimed(one *corev1.Pod, name corev1.ResourceName) bool {
	status := one.Status.ExtendedResourceClaimStatus
	return status != nil && slices.ContainsFunc(status.RequestMappings, func(m corev1.ContainerExtendedResourceRequest) bool {
		return m.ResourceName == string(name)
	})
}

// predicates are the rules besides resources, in upstream's order.
func predicates(p *cluster.Pod, node *corev1.Node, others []*cluster.Pod) *pod.Verdict {
	if match, err := nodeaffinity.GetRequiredNodeAffinity(p.Pod).Match(node); err != nil || !match {
		return failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	if p.Spec.NodeName != "" && p.Spec.NodeName != node.Name {
		return failed("NodeName", "node(s) didn't match the requested node name")
	}
	for _, o := range others {
		if slices.ContainsFunc(o.Ports, func(used cluster.Port) bool { return filter.Collides(p.Ports, used) }) {
			return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
		}
	}
	_, untolerated := helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, p.Spec.Tolerations,
		func(t *corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute }, true)
	if untolerated {
		return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate")
	}
	return nil
}

func failed(predicate, why string) *pod.Verdict {
	return &pod.Verdict{Reason: predicate, Message: fmt.Sprintf("Predicate %s failed: %s", predicate, why)}
}
