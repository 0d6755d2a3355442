package admission

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"skiff.dev/skiff/internal/registry"
)

// The causes that tell clients, such as the vertical pod autoscaler, why a resize can never be.
const (
	causeNodeCapacity        metav1.CauseType = "NodeCapacity"
	causeUnsupportedPlatform metav1.CauseType = "UnsupportedPlatform"
)

// resizeFits (PodResizeValidator) refuses a pod on a node to ask for more than the node can ever give. What others of the node's pods have for now is the kubelet's
// to say.
func resizeFits(ctx context.Context, a *registry.Attributes) error {
	if a.Operation != update || !isResize(a) {
		return nil
	}
	pod, old := a.Object.(*corev1.Pod), a.Old.(*corev1.Pod)
	if pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil
	}
	node, err := find[*corev1.Node](ctx, a, "", "nodes", pod.Spec.NodeName)
	if err != nil {
		return err
	}
	if node == nil {
		return forbid(a, fmt.Errorf("node %q not found", pod.Spec.NodeName))
	}
	because := func(cause metav1.CauseType, format string, args ...any) error {
		refusal := forbid(a, fmt.Errorf(format, args...))
		refusal.ErrStatus.Details.Causes = append(refusal.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
		return refusal
	}
	// A node that does not say its system is taken for Linux, as upstream takes it.
	if os, said := node.Labels[corev1.LabelOSStable]; said && os != "linux" {
		return because(causeUnsupportedPlatform, "pod resize is only supported on linux nodes, node %q is %q", node.Name, os)
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	var short []string
	if want, has := requests.Cpu(), node.Status.Allocatable.Cpu(); want.Cmp(*has) > 0 {
		short = append(short, fmt.Sprintf("cpu, requested: %d, allocatable: %d", want.MilliValue(), has.MilliValue()))
	}
	if want, has := requests.Memory(), node.Status.Allocatable.Memory(); want.Cmp(*has) > 0 {
		short = append(short, fmt.Sprintf("memory, requested: %d, allocatable: %d", want.Value(), has.Value()))
	}
	if len(short) > 0 {
		return because(causeNodeCapacity, "node didn't have enough allocatable resources: %s", strings.Join(short, "; "))
	}
	return nil
}
