// Package quota says what objects count for in ResourceQuotas: how much one uses, which quotas are about it, and what it must say of itself.
//
// It is pure; admission charges by it before an object is stored, the resource quota controller counts by it what is there.
package quota

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resourcehelper "k8s.io/component-helpers/resource"

	"skiff.dev/skiff/internal/api"
)

// classSuffix is how a quota names a storage class: "gold.storageclass.storage.k8s.io/requests.storage".
const classSuffix = ".storageclass.storage.k8s.io/"

// deviceSuffix is how a quota names the devices of a class: "gold.deviceclass.resource.k8s.io/devices".
const deviceSuffix = ".deviceclass.resource.k8s.io/devices"

var claims = schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"}

// counted are the kinds that quotas also know by a bare name.
var counted = []string{"pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims"}

// CountName is what a quota calls the number of objects of a resource: "count/deployments.apps".
func CountName(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName("count/" + gr.String())
}

// Kinds are the resources that a quota's limits are about.
func Kinds(hard corev1.ResourceList) (out []schema.GroupResource) {
	for name := range hard {
		kinds := []schema.GroupResource{kindOf(string(name))}
		if extended(string(name)) {
			kinds = append(kinds, claims)
		}
		for _, gr := range kinds {
			if !slices.Contains(out, gr) {
				out = append(out, gr)
			}
		}
	}
	return out
}

// extended: a limit on an extended resource is also one on claims for the devices that stand for it (KEP-5004).
func extended(name string) bool {
	of, is := strings.CutPrefix(name, corev1.DefaultResourceRequestsPrefix)
	return is && strings.Contains(of, "/") && (!strings.Contains(of, "kubernetes.io/") || strings.HasPrefix(of, resourcev1.ResourceDeviceClassPrefix))
}

func kindOf(name string) schema.GroupResource {
	if of, is := strings.CutPrefix(name, "count/"); is {
		return schema.ParseGroupResource(of)
	}
	switch {
	case strings.HasPrefix(name, "services."):
		return schema.GroupResource{Resource: "services"}
	case strings.Contains(name, classSuffix), name == string(corev1.ResourceRequestsStorage):
		return schema.GroupResource{Resource: "persistentvolumeclaims"}
	case strings.HasSuffix(name, deviceSuffix):
		return claims
	case slices.Contains(counted, name):
		return schema.GroupResource{Resource: name}
	}
	return schema.GroupResource{Resource: "pods"}
}

// Lookup finds the objects that a claim's usage depends on, nil for what is not there.
type Lookup struct {
	Class func(name string) (*resourcev1.DeviceClass, error)
	Pod   func(namespace, name string) (*corev1.Pod, error)
}

// Usage is what one object of a resource uses at a time.
func Usage(gr schema.GroupResource, obj any, now time.Time, lookup Lookup) (corev1.ResourceList, error) {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	out := corev1.ResourceList{CountName(gr): one}
	if c, is := obj.(*resourcev1.ResourceClaim); is {
		return out, deviceUsage(out, c, lookup)
	}
	if gr.Group != "" {
		return out, nil
	}
	if slices.Contains(counted, gr.Resource) && gr.Resource != "pods" {
		out[corev1.ResourceName(gr.Resource)] = one
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		podUsage(out, o, now)
	case *corev1.Service:
		serviceUsage(out, o)
	case *corev1.PersistentVolumeClaim:
		claimUsage(out, o)
	}
	return out, nil
}

// podUsage: a pod that has ended, or whose end is overdue, still counts as an object and uses nothing else.
func podUsage(out corev1.ResourceList, p *corev1.Pod, now time.Time) {
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return
	}
	if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && now.After(p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds)*time.Second)) {
		return
	}
	out[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	for name, q := range resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{UseStatusResources: true}) {
		plain := name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage
		if plain || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			out[name] = q
		}
		out[corev1.DefaultResourceRequestsPrefix+name] = q
	}
	for name, q := range resourcehelper.PodLimits(p, resourcehelper.PodResourcesOptions{UseStatusResources: true}) {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage {
			out["limits."+name] = q
		}
	}
}

func serviceUsage(out corev1.ResourceList, s *corev1.Service) {
	ports := int64(0)
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = int64(len(s.Spec.Ports))
	case corev1.ServiceTypeLoadBalancer:
		out[corev1.ResourceServicesLoadBalancers] = *resource.NewQuantity(1, resource.DecimalSI)
		if s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts {
			ports = int64(len(s.Spec.Ports))
		} else {
			for i := range s.Spec.Ports {
				if s.Spec.Ports[i].NodePort != 0 {
					ports++
				}
			}
		}
	}
	out[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(ports, resource.DecimalSI)
}

func claimUsage(out corev1.ResourceList, c *corev1.PersistentVolumeClaim) {
	class := c.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	if class != "" {
		out[corev1.ResourceName(class+classSuffix+"persistentvolumeclaims")] = *resource.NewQuantity(1, resource.DecimalSI)
	}
	asked, found := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if !found {
		return
	}
	if given, has := c.Status.AllocatedResources[corev1.ResourceStorage]; has && given.Cmp(asked) > 0 {
		asked = given
	}
	out[corev1.ResourceRequestsStorage] = asked
	if class != "" {
		out[corev1.ResourceName(class+classSuffix+"requests.storage")] = asked
	}
}

// Only keeps of a usage what a quota limits.
func Only(usage, hard corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range usage {
		if _, limited := hard[name]; limited {
			out[name] = q
		}
	}
	return out
}

// Add adds more to a list.
func Add(to, more corev1.ResourceList) {
	for name, q := range more {
		sum := to[name].DeepCopy()
		sum.Add(q)
		to[name] = sum
	}
}

// Minus is what a list has beyond another.
func Minus(list, less corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range list {
		out[name] = q.DeepCopy()
	}
	for name, q := range less {
		left := out[name].DeepCopy()
		left.Sub(q)
		out[name] = left
	}
	return out
}

// Zero has the names of hard, and nothing of each.
func Zero(hard corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range hard {
		out[name] = *resource.NewQuantity(0, q.Format)
	}
	return out
}

// Counts says whether objects of a row can be counted.
func Counts(row *api.Resource) bool {
	return row.Namespaced && row.Key != "" && row.Kind != "Event"
}
