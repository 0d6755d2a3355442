package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

const schedulingGroup = "scheduling.k8s.io"

// priority (Priority) turns a pod's class into the number and the policy that the scheduler works with.
func priority(ctx context.Context, a *registry.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return groupPriority(ctx, a)
	}
	if !is(a, "", "pods") {
		return nil
	}
	if a.Operation == update {
		// Both fields are the system's; a client that leaves them out doesn't mean to change them.
		if old, ok := a.Old.(*corev1.Pod); ok {
			if pod.Spec.Priority == nil {
				pod.Spec.Priority = old.Spec.Priority
			}
			if pod.Spec.PreemptionPolicy == nil {
				pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
			}
		}
		return nil
	}
	if a.Operation != create {
		return nil
	}
	class, err := classOf(ctx, a, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	pod.Spec.PriorityClassName = class.Name
	if p := pod.Spec.Priority; p != nil && *p != class.Value {
		return forbid(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; "+
			"priority admission controller computed %d from the given PriorityClass name", *p, class.Value))
	}
	policy := corev1.PreemptLowerPriority
	if class.PreemptionPolicy != nil {
		policy = *class.PreemptionPolicy
	}
	if p := pod.Spec.PreemptionPolicy; p != nil && *p != policy {
		return forbid(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; "+
			"priority admission controller computed %s from the given PriorityClass name", *p, policy))
	}
	value := class.Value
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}

// groupPriority (Priority) does the same for a pod group.
func groupPriority(ctx context.Context, a *registry.Attributes) error {
	group, ok := a.Object.(*schedulingv1beta1.PodGroup)
	if !ok || !is(a, schedulingGroup, "podgroups") || a.Subresource != "" {
		return nil
	}
	if old, ok := a.Old.(*schedulingv1beta1.PodGroup); ok && a.Operation == update && group.Spec.Priority == nil {
		group.Spec.Priority = old.Spec.Priority
	}
	if a.Operation != create {
		return nil
	}
	class, err := classOf(ctx, a, group.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	if p := group.Spec.Priority; p != nil && *p != class.Value {
		return forbid(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod group spec; "+
			"priority admission controller computed %d from the given PriorityClass name", *p, class.Value))
	}
	value := class.Value
	group.Spec.PriorityClassName, group.Spec.Priority = class.Name, &value
	return nil
}

// protectPodGroup (PodGroupProtection) keeps a group from going while pods of it are there: its controller takes the finalizer away.
func protectPodGroup(_ context.Context, a *registry.Attributes) error {
	if group, ok := a.Object.(*schedulingv1beta1.PodGroup); ok && a.Operation == create {
		protect(group, api.PodGroupFinalizer)
	}
	return nil
}

// classOf is the named class, or for "" the global default; where there is none either, a class without a name and of value 0.
func classOf(ctx context.Context, a *registry.Attributes, name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		d, err := defaultClass(ctx, a, "")
		if err == nil && d == nil {
			d = &schedulingv1.PriorityClass{}
		}
		return d, err
	}
	class, err := find[*schedulingv1.PriorityClass](ctx, a, schedulingGroup, "priorityclasses", name)
	if err != nil || class != nil {
		return class, err
	}
	return nil, forbid(a, fmt.Errorf("no PriorityClass with name %v was found", name))
}

// defaultClass is the global default other than the one named; of several (two servers may each have let one in) the lowest.
func defaultClass(ctx context.Context, a *registry.Attributes, except string) (*schedulingv1.PriorityClass, error) {
	classes, err := all[*schedulingv1.PriorityClass](ctx, a, schedulingGroup, "priorityclasses", "")
	if err != nil {
		return nil, err
	}
	var lowest *schedulingv1.PriorityClass
	for _, c := range classes {
		if c.GlobalDefault && c.Name != except && (lowest == nil || c.Value < lowest.Value) {
			lowest = c
		}
	}
	return lowest, nil
}

// onePriorityDefault (Priority) lets no second class be the global default.
func onePriorityDefault(ctx context.Context, a *registry.Attributes) error {
	class, ok := a.Object.(*schedulingv1.PriorityClass)
	if !ok || !is(a, schedulingGroup, "priorityclasses") || !class.GlobalDefault {
		return nil
	}
	other, err := defaultClass(ctx, a, class.Name)
	if err != nil || other == nil {
		return err
	}
	return forbid(a, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", other.Name))
}
