package authz

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// mayChangeClaim (KEP-4817): who writes a claim's status must besides be allowed to allocate, by the verb on resourceclaims/binding, if that changes; and to
// report for each driver whose devices change, by a verb on resourceclaims/driver of that name, which says whether it counts for all nodes or for one's own.
func (a *Authorizer) mayChangeClaim(ctx context.Context, at *registry.Attributes) error {
	claim, is := at.Object.(*resourcev1.ResourceClaim)
	old, was := at.Old.(*resourcev1.ResourceClaim)
	if !is || !was || at.Subresource != "status" {
		return nil
	}
	verb := "update"
	if _, patch := at.Options.(*metav1.PatchOptions); patch {
		verb = "patch"
	}
	var errs field.ErrorList
	ask := func(verb, subresource, namespace, name string) (bool, string) {
		decision, why, err := a.Authorize(ctx, authorizer.AttributesRecord{User: at.User, Verb: verb, APIGroup: resourcev1.GroupName, APIVersion: "*",
			Resource: "resourceclaims", Subresource: subresource, Namespace: namespace, Name: name, ResourceRequest: true})
		if err != nil {
			why = err.Error()
		}
		return decision == authorizer.DecisionAllow, why
	}
	status := field.NewPath("status")
	if !equality.Semantic.DeepEqual(claim.Status.Allocation, old.Status.Allocation) || !equality.Semantic.DeepEqual(claim.Status.ReservedFor, old.Status.ReservedFor) {
		if may, why := ask(verb, resourcev1.SubresourceBinding, "", ""); !may {
			errs = append(errs, field.Forbidden(status, fmt.Sprintf(`changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb=%q permission: %s`, verb, why)))
		}
	}
	verbs := []string{resourcev1.VerbPrefixArbitraryNode + verb}
	if node := nodeOfAccount(at.User); node != "" && node == nodeOfAllocation(claim.Status.Allocation) {
		verbs = append([]string{resourcev1.VerbPrefixAssociatedNode + verb}, verbs...)
	}
	for _, driver := range reporting(&claim.Status, &old.Status) {
		first := ""
		if !slices.ContainsFunc(verbs, func(verb string) bool {
			may, why := ask(verb, resourcev1.SubresourceDriver, at.Namespace, driver)
			if first == "" {
				first = why
			}
			return may
		}) {
			errs = append(errs, field.Forbidden(status.Child("devices"), fmt.Sprintf(`changing status.devices requires resource="resourceclaims/driver", verb=%q permission: %s`, verbs, first)))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(at.Resource.GVK().GroupKind(), old.Name, errs)
}

// reporting are the drivers of which a write changes reports. What is gone with the allocation it was about is no report.
func reporting(now, was *resourcev1.ResourceClaimStatus) []string {
	type device struct{ driver, pool, name, share string }
	reports := func(s *resourcev1.ResourceClaimStatus) map[device]*resourcev1.AllocatedDeviceStatus {
		out := map[device]*resourcev1.AllocatedDeviceStatus{}
		for i := range s.Devices {
			d := &s.Devices[i]
			one := device{d.Driver, d.Pool, d.Device, ""}
			if d.ShareID != nil {
				one.share = *d.ShareID
			}
			out[one] = d
		}
		return out
	}
	drivers, before := map[string]bool{}, reports(was)
	for d, report := range reports(now) {
		if old := before[d]; old == nil || !equality.Semantic.DeepEqual(old, report) {
			drivers[d.driver] = true
		}
		delete(before, d)
	}
	for d, report := range before {
		if api.Allocates(now.Allocation, report) {
			drivers[d.driver] = true
		}
	}
	return slices.Sorted(maps.Keys(drivers))
}

// nodeOfAccount is the node that a service account's token is bound to, "" if it is none's.
func nodeOfAccount(u user.Info) string {
	if names := u.GetExtra()[serviceaccount.NodeNameKey]; strings.HasPrefix(u.GetName(), serviceaccount.ServiceAccountUsernamePrefix) && len(names) == 1 {
		return names[0]
	}
	return ""
}

// nodeOfAllocation is the one node where a claim's devices can be used, "" if there may be others.
func nodeOfAllocation(a *resourcev1.AllocationResult) string {
	if a == nil || a.NodeSelector == nil || len(a.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	for _, r := range a.NodeSelector.NodeSelectorTerms[0].MatchFields {
		if r.Key == metav1.ObjectNameField && r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 {
			return r.Values[0]
		}
	}
	return ""
}
