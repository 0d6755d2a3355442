package authz

import (
	"cmp"
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// An admission policy reads its parameters with the server's rights, and its messages can tell of them: who names parameters must be allowed to read them.

// mayReadParams holds the writers of policies to what they may read: a policy to all objects of the kind that it newly names, a binding to those that
// it newly refers to.
func (a *Authorizer) mayReadParams(ctx context.Context, at *registry.Attributes) error {
	if at.Subresource != "" {
		return nil
	}
	switch o := at.Object.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		old, _ := at.Old.(*admissionv1.ValidatingAdmissionPolicy)
		return a.mayReadKind(ctx, at, o.Spec.ParamKind, old != nil && same(old.Spec.ParamKind, o.Spec.ParamKind))
	case *admissionv1.MutatingAdmissionPolicy:
		old, _ := at.Old.(*admissionv1.MutatingAdmissionPolicy)
		return a.mayReadKind(ctx, at, o.Spec.ParamKind, old != nil && same(old.Spec.ParamKind, o.Spec.ParamKind))
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		old, _ := at.Old.(*admissionv1.ValidatingAdmissionPolicyBinding)
		known := old != nil && old.Spec.PolicyName == o.Spec.PolicyName && same(old.Spec.ParamRef, o.Spec.ParamRef)
		return a.mayReadRef(ctx, at, "validatingadmissionpolicies", o.Spec.PolicyName, o.Spec.ParamRef, known)
	case *admissionv1.MutatingAdmissionPolicyBinding:
		old, _ := at.Old.(*admissionv1.MutatingAdmissionPolicyBinding)
		known := old != nil && old.Spec.PolicyName == o.Spec.PolicyName && same(old.Spec.ParamRef, o.Spec.ParamRef)
		return a.mayReadRef(ctx, at, "mutatingadmissionpolicies", o.Spec.PolicyName, o.Spec.ParamRef, known)
	}
	return nil
}

func same[T any](a, b *T) bool { return equality.Semantic.DeepEqual(a, b) }

func (a *Authorizer) mayReadKind(ctx context.Context, at *registry.Attributes, kind *admissionv1.ParamKind, known bool) error {
	if kind == nil || known {
		return nil
	}
	q, _, _ := a.paramsOf(kind)
	q.User, q.Verb, q.Namespace, q.Name = at.User, "get", "*", "*"
	if decision, _, err := a.Authorize(ctx, q); err != nil || decision == authorizer.DecisionAllow {
		return err
	}
	return forbidParams(at, "paramKind", fmt.Errorf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`,
		at.User, kind.Kind, kind.APIVersion))
}

// paramsOf asks about the objects of a kind; about all that there are where the kind is not known.
func (a *Authorizer) paramsOf(kind *admissionv1.ParamKind) (q authorizer.AttributesRecord, unparsed, unknown error) {
	q = authorizer.AttributesRecord{ResourceRequest: true, APIGroup: "*", APIVersion: "*", Resource: "*"}
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return q, err, nil
	}
	q.APIGroup, q.APIVersion = gv.Group, gv.Version
	row := a.reg.Table().ByKind(schema.GroupKind{Group: gv.Group, Kind: kind.Kind})
	if row == nil {
		return q, nil, fmt.Errorf("there is no kind %s in %s", kind.Kind, gv)
	}
	q.Resource = row.Plural
	return q, nil, nil
}

func (a *Authorizer) mayReadRef(ctx context.Context, at *registry.Attributes, policies, name string, ref *admissionv1.ParamRef, known bool) error {
	if ref == nil || known {
		return nil
	}
	q := authorizer.AttributesRecord{ResourceRequest: true, APIGroup: "*", APIVersion: "*", Resource: "*"}
	kind, missing := a.paramKindOf(ctx, policies, name)
	var unparsed, unknown error
	if kind != nil {
		q, unparsed, unknown = a.paramsOf(kind)
	}
	q.User, q.Verb, q.Namespace, q.Name = at.User, "get", cmp.Or(ref.Namespace, "*"), cmp.Or(ref.Name, "*")
	if ref.Selector != nil {
		q.Verb = "list"
	}
	if decision, _, err := a.Authorize(ctx, q); err != nil || decision == authorizer.DecisionAllow {
		return err
	}
	const all = `to determine minimum required permissions and user %v does not have "%v" permission for all groups, versions and resources`
	why := fmt.Errorf(`user %v does not have "%v" permission on the object referenced by paramRef`, at.User, q.Verb)
	switch {
	case missing != nil:
		why = fmt.Errorf("unable to get policy %s "+all, name, at.User, q.Verb)
	case unparsed != nil:
		why = fmt.Errorf("unable to parse paramKind %v "+all, kind.APIVersion, at.User, q.Verb)
	case unknown != nil:
		why = fmt.Errorf("unable to resolve paramKind %v "+all, kind, at.User, q.Verb)
	}
	return forbidParams(at, "paramRef", why)
}

// paramKindOf is the kind of a policy's parameters; nil for none.
func (a *Authorizer) paramKindOf(ctx context.Context, policies, name string) (*admissionv1.ParamKind, error) {
	row := a.reg.Table().ByResource(schema.GroupResource{Group: admissionv1.GroupName, Resource: policies})
	e, err := a.reg.Store().Collection(row).Get(ctx, name, store.Read{Consistent: true})
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, apierrors.NewNotFound(row.GroupResource(), name)
	}
	switch o := e.Object().(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		return o.Spec.ParamKind, nil
	case *admissionv1.MutatingAdmissionPolicy:
		return o.Spec.ParamKind, nil
	}
	return nil, nil
}

func forbidParams(at *registry.Attributes, of string, why error) error {
	name := at.Name
	if o, ok := at.Object.(api.Object); ok {
		name = o.GetName()
	}
	return apierrors.NewInvalid(at.Resource.GVK().GroupKind(), name, field.ErrorList{field.Forbidden(field.NewPath("spec", of), why.Error())})
}
