package quota

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
)

// deviceUsage is how many devices of each class a claim may get: of a request's alternatives, the most that any asks of the class. They count under each
// name by which a quota can limit them: the class's own, and the extended resources that the class stands for (KEP-5004). What a pod asked for as one of these
// was charged to the pod under that name, so the claim that was made for it counts under the others.
func deviceUsage(out corev1.ResourceList, c *resourcev1.ResourceClaim, lookup Lookup) error {
	names, err := askedAs(c, lookup)
	if err != nil {
		return err
	}
	for i := range c.Spec.Devices.Requests {
		r := &c.Spec.Devices.Requests[i]
		asked := map[string]int64{}
		if r.Exactly != nil {
			asked[r.Exactly.DeviceClassName] = devices(r.Exactly.AllocationMode, r.Exactly.Count)
		}
		for j := range r.FirstAvailable {
			sub := &r.FirstAvailable[j]
			asked[sub.DeviceClassName] = max(asked[sub.DeviceClassName], devices(sub.AllocationMode, sub.Count))
		}
		for name, n := range asked {
			limits := []string{name + deviceSuffix, corev1.ResourceImplicitExtendedClaimsPerClass + name}
			class, err := lookup.Class(name)
			if err != nil {
				return fmt.Errorf("device class %s: %w", name, err)
			}
			if class != nil && class.Spec.ExtendedResourceName != nil {
				limits = append(limits, corev1.DefaultResourceRequestsPrefix+*class.Spec.ExtendedResourceName)
			}
			for _, limit := range limits {
				if paid := names[r.Name]; paid == "" || limit != corev1.DefaultResourceRequestsPrefix+paid {
					Add(out, corev1.ResourceList{corev1.ResourceName(limit): *resource.NewQuantity(n, resource.DecimalSI)})
				}
			}
		}
	}
	return nil
}

// askedAs are the extended resources that a pod asked for, by the requests that came of it in the claim that was made for the pod.
func askedAs(c *resourcev1.ResourceClaim, lookup Lookup) (map[string]string, error) {
	owner := metav1.GetControllerOfNoCopy(c)
	if c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" || owner == nil || owner.APIVersion != "v1" || owner.Kind != "Pod" {
		return nil, nil
	}
	pod, err := lookup.Pod(c.Namespace, owner.Name)
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", owner.Name, err)
	}
	if pod == nil || pod.UID != owner.UID || pod.Status.ExtendedResourceClaimStatus != nil && pod.Status.ExtendedResourceClaimStatus.ResourceClaimName != c.Name {
		return nil, nil
	}
	names := map[string]string{}
	for i, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for name := range container.Resources.Requests {
			names[api.ExtendedRequestName(i, &container, name)] = string(name)
		}
	}
	return names, nil
}

// devices is how many a request may get; all there are of a class can be as many as one claim holds.
func devices(mode resourcev1.DeviceAllocationMode, count int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return count
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	}
	return 0
}
