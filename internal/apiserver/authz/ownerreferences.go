package authz

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// OwnerReferences is a registry.Validate (OwnerReferencesPermissionEnforcement): an owner's deletion deletes what it owns, so who gives an object an
// owner must be allowed to delete the object; and a reference that holds its owner's deletion up needs the right to set the owner's finalizers.
func (a *Authorizer) OwnerReferences(ctx context.Context, at *registry.Attributes) error {
	obj, ok := at.Object.(api.Object)
	if !ok || at.User == nil || at.Operation != "CREATE" && at.Operation != "UPDATE" || at.Resource.Plural == "pods" && at.Subresource == "status" {
		return nil
	}
	var before []metav1.OwnerReference
	if old, ok := at.Old.(api.Object); ok {
		before = old.GetOwnerReferences()
	}
	now := obj.GetOwnerReferences()
	if len(now) == len(before) && equality.Semantic.DeepEqual(now, before) {
		return nil
	}
	q := authorizer.AttributesRecord{
		User: at.User, Verb: "delete", Namespace: at.Namespace, APIGroup: at.Resource.Group, APIVersion: at.Resource.Version,
		Resource: at.Resource.Plural, Subresource: at.Subresource, Name: obj.GetName(), ResourceRequest: true,
	}
	if decision, reason, err := a.Authorize(ctx, q); decision != authorizer.DecisionAllow {
		return forbidOwners(at, obj, fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %v, %v", reason, err))
	}
	for _, ref := range blocking(now) {
		if slices.ContainsFunc(blocking(before), func(b metav1.OwnerReference) bool {
			return b.UID == ref.UID && b.Kind == ref.Kind && b.Name == ref.Name
		}) {
			continue
		}
		if err := a.mayHoldUp(ctx, at, obj, ref); err != nil {
			return err
		}
	}
	return nil
}

// mayHoldUp asks whether the user may set an owner's finalizers.
func (a *Authorizer) mayHoldUp(ctx context.Context, at *registry.Attributes, obj api.Object, ref metav1.OwnerReference) error {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return forbidOwners(at, obj, fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %v Kind %v: %w", ref.APIVersion, ref.Kind, err))
	}
	row := a.reg.Table().ByKind(schema.GroupKind{Group: gv.Group, Kind: ref.Kind})
	if row == nil {
		return forbidOwners(at, obj, fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %v Kind %v", ref.APIVersion, ref.Kind))
	}
	q := authorizer.AttributesRecord{
		User: at.User, Verb: "update", APIGroup: gv.Group, APIVersion: gv.Version, Resource: row.Plural, Subresource: "finalizers", Name: ref.Name, ResourceRequest: true,
	}
	if row.Namespaced {
		q.Namespace = at.Namespace
	}
	if decision, reason, err := a.Authorize(ctx, q); decision != authorizer.DecisionAllow {
		return forbidOwners(at, obj, fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %v", reason, err))
	}
	return nil
}

func forbidOwners(at *registry.Attributes, obj api.Object, err error) error {
	return apierrors.NewForbidden(at.Resource.GroupResource(), obj.GetName(), err)
}

func blocking(refs []metav1.OwnerReference) (out []metav1.OwnerReference) {
	for _, r := range refs {
		if r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion {
			out = append(out, r)
		}
	}
	return out
}
