package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"skiff.dev/skiff/internal/registry"
)

// classOfPod is the RuntimeClass that a new pod names; nil if it names none, or the request is about something else.
func classOfPod(ctx context.Context, a *registry.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != create || !is(a, "", "pods") {
		return nil, nil, nil
	}
	if pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return pod, nil, nil
	}
	class, err := find[*nodev1.RuntimeClass](ctx, a, "node.k8s.io", "runtimeclasses", *pod.Spec.RuntimeClassName)
	if err == nil && class == nil {
		err = forbid(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName))
	}
	return pod, class, err
}

// runtimeClass (RuntimeClass) gives a pod what its class costs, and keeps it to the nodes that have it.
func runtimeClass(ctx context.Context, a *registry.Attributes) error {
	pod, class, err := classOfPod(ctx, a)
	if err != nil || class == nil {
		return err
	}
	if class.Overhead != nil && len(class.Overhead.PodFixed) > 0 {
		if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(pod.Spec.Overhead, class.Overhead.PodFixed) {
			return forbid(a, errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for k, v := range class.Scheduling.NodeSelector {
		if has, set := pod.Spec.NodeSelector[k]; set && has != v {
			return forbid(a, fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, has))
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[k] = v
	}
	pod.Spec.Tolerations = merged(pod.Spec.Tolerations, class.Scheduling.Tolerations)
	return nil
}

// merged adds those tolerations that the list does not have yet.
func merged(list, more []corev1.Toleration) []corev1.Toleration {
next:
	for i := range more {
		for j := range list {
			if equality.Semantic.DeepEqual(list[j], more[i]) {
				continue next
			}
		}
		list = append(list, *more[i].DeepCopy())
	}
	return list
}

// runtimeOverhead (RuntimeClass) lets nobody name an overhead that no class has.
func runtimeOverhead(ctx context.Context, a *registry.Attributes) error {
	pod, class, err := classOfPod(ctx, a)
	switch {
	case err != nil || pod == nil || len(pod.Spec.Overhead) == 0 && (class == nil || class.Overhead == nil):
		return err
	case class == nil || class.Overhead == nil:
		return forbid(a, errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	case !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead):
		return forbid(a, errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
	}
	return nil
}
