package admission

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

var errAdminAccess = errors.New("admin access to devices requires the `" + resourcev1.DRAAdminNamespaceLabelKey + ": true` label on the containing namespace")

// adminAccess lets claims see devices that are others' (adminAccess) only in namespaces that are labelled for that. It is no plug-in: upstream's API server
// checks it with the object.
func adminAccess(ctx context.Context, a *registry.Attributes) error {
	if a.Resource.Group != resourcev1.GroupName || a.Operation != create && a.Operation != update || !asksForAdminAccess(a) {
		return nil
	}
	ns, err := find[*corev1.Namespace](ctx, a, "", "namespaces", a.Namespace)
	if err != nil || ns != nil && ns.Labels[resourcev1.DRAAdminNamespaceLabelKey] == "true" {
		return err
	}
	name := a.Name
	if o, ok := a.Object.(api.Object); ok {
		name = o.GetName()
	}
	return apierrors.NewInvalid(a.Resource.GVK().GroupKind(), name, field.ErrorList{field.Forbidden(field.NewPath(""), errAdminAccess.Error())})
}

// asksForAdminAccess: a new claim or template, or a new allocation; what is there already stays.
func asksForAdminAccess(a *registry.Attributes) bool {
	switch o := a.Object.(type) {
	case *resourcev1.ResourceClaim:
		if a.Operation == create {
			return requestsAdminAccess(o.Spec.Devices.Requests)
		}
		old, _ := a.Old.(*resourcev1.ResourceClaim)
		return a.Subresource == "status" && o.Status.Allocation != nil && (old == nil || old.Status.Allocation == nil) && resultsAdminAccess(o.Status.Allocation)
	case *resourcev1.ResourceClaimTemplate:
		return a.Operation == create && requestsAdminAccess(o.Spec.Spec.Devices.Requests)
	}
	return false
}

func requestsAdminAccess(requests []resourcev1.DeviceRequest) bool {
	for i := range requests {
		if e := requests[i].Exactly; e != nil && e.AdminAccess != nil && *e.AdminAccess {
			return true
		}
	}
	return false
}

func resultsAdminAccess(allocated *resourcev1.AllocationResult) bool {
	for i := range allocated.Devices.Results {
		if admin := allocated.Devices.Results[i].AdminAccess; admin != nil && *admin {
			return true
		}
	}
	return false
}
