package authz

import (
	"context"
	"fmt"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/registry"
)

// Virtuals are the access reviews, by the names registry.Handle takes.
func (a *Authorizer) Virtuals() map[string]registry.Virtual {
	const group = authorizationv1.GroupName + "/"
	return map[string]registry.Virtual{
		group + "subjectaccessreviews":      a.subjectAccess,
		group + "selfsubjectaccessreviews":  a.selfAccess,
		group + "localsubjectaccessreviews": a.localAccess,
		group + "selfsubjectrulesreviews":   a.selfRules,
	}
}

func (a *Authorizer) subjectAccess(ctx context.Context, _ *registry.Request, obj runtime.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SubjectAccessReview")
	}
	out := in.DeepCopy()
	errs := validateSubject(out.Spec.User, out.Spec.Groups)
	errs = append(errs, validateAttributes(out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes)...)
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview").GroupKind(), "", errs)
	}
	out.Status = a.status(ctx, subjectOf(&out.Spec), out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes)
	return out, nil
}

func (a *Authorizer) localAccess(ctx context.Context, req *registry.Request, obj runtime.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.LocalSubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a LocalSubjectAccessReview")
	}
	out := in.DeepCopy()
	errs := validateSubject(out.Spec.User, out.Spec.Groups)
	errs = append(errs, validateAttributes(out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes)...)
	spec := field.NewPath("spec")
	if out.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(spec.Child("nonResourceAttributes"), out.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	if ra := out.Spec.ResourceAttributes; ra != nil && ra.Namespace != req.Namespace {
		errs = append(errs, field.Invalid(spec.Child("resourceAttributes", "namespace"), ra.Namespace, "must match metadata.namespace"))
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind("LocalSubjectAccessReview").GroupKind(), "", errs)
	}
	out.Status = a.status(ctx, subjectOf(&out.Spec), out.Spec.ResourceAttributes, nil)
	return out, nil
}

func (a *Authorizer) selfAccess(ctx context.Context, req *registry.Request, obj runtime.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.SelfSubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SelfSubjectAccessReview")
	}
	out := in.DeepCopy()
	if errs := validateAttributes(out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes); len(errs) > 0 {
		return nil, apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview").GroupKind(), "", errs)
	}
	out.Status = a.status(ctx, req.User, out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes)
	return out, nil
}

func (a *Authorizer) selfRules(_ context.Context, req *registry.Request, obj runtime.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SelfSubjectRulesReview")
	}
	if in.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	out := in.DeepCopy()
	rules, incomplete := a.Rules(req.User, in.Spec.Namespace)
	out.Status = rulesStatus(rules)
	if incomplete {
		out.Status.Incomplete, out.Status.EvaluationError = true, "node authorizer does not support user rule resolution"
	}
	return out, nil
}

// rulesStatus never has null lists: the API calls both required.
func rulesStatus(rules []rbacv1.PolicyRule) authorizationv1.SubjectRulesReviewStatus {
	s := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	for _, r := range rules {
		if len(r.Resources) > 0 {
			s.ResourceRules = append(s.ResourceRules, authorizationv1.ResourceRule{
				Verbs: slices.Clone(r.Verbs), APIGroups: slices.Clone(r.APIGroups), Resources: slices.Clone(r.Resources), ResourceNames: slices.Clone(r.ResourceNames),
			})
		}
		if len(r.NonResourceURLs) > 0 {
			s.NonResourceRules = append(s.NonResourceRules, authorizationv1.NonResourceRule{
				Verbs: slices.Clone(r.Verbs), NonResourceURLs: slices.Clone(r.NonResourceURLs),
			})
		}
	}
	return s
}

func (a *Authorizer) status(
	ctx context.Context, u user.Info, ra *authorizationv1.ResourceAttributes, na *authorizationv1.NonResourceAttributes,
) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := a.Authorize(ctx, attributesOf(u, ra, na))
	s := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
	}
	if err != nil {
		s.EvaluationError = err.Error()
	}
	return s
}

func subjectOf(s *authorizationv1.SubjectAccessReviewSpec) user.Info {
	extra := make(map[string][]string, len(s.Extra))
	for k, v := range s.Extra {
		extra[k] = v
	}
	return &user.DefaultInfo{Name: s.User, UID: s.UID, Groups: s.Groups, Extra: extra}
}

func attributesOf(u user.Info, ra *authorizationv1.ResourceAttributes, na *authorizationv1.NonResourceAttributes) authorizer.AttributesRecord {
	if ra == nil {
		return authorizer.AttributesRecord{User: u, Verb: na.Verb, Path: na.Path}
	}
	at := authorizer.AttributesRecord{
		User: u, Verb: ra.Verb, Namespace: ra.Namespace, APIGroup: ra.Group, APIVersion: ra.Version, Resource: ra.Resource,
		Subresource: ra.Subresource, Name: ra.Name, ResourceRequest: true,
	}
	if ra.FieldSelector != nil {
		at.FieldSelectorRequirements, at.FieldSelectorParsingErr = fieldRequirements(ra.FieldSelector)
	}
	if ra.LabelSelector != nil {
		at.LabelSelectorRequirements, at.LabelSelectorParsingErr = labelRequirements(ra.LabelSelector)
	}
	return at
}

// fieldRequirements takes those requirements that a field selector can express; a set of several values only widens what is asked for, so leaving one out is
// safe: the request then counts as the broader one.
func fieldRequirements(s *authorizationv1.FieldSelectorAttributes) (fields.Requirements, error) {
	if s.RawSelector != "" {
		selector, err := fields.ParseSelector(s.RawSelector)
		if err != nil {
			return nil, err
		}
		return selector.Requirements(), nil
	}
	var out fields.Requirements
	for _, r := range s.Requirements {
		if len(r.Values) != 1 {
			continue
		}
		switch r.Operator {
		case metav1.FieldSelectorOpIn:
			out = append(out, fields.Requirement{Operator: selection.Equals, Field: r.Key, Value: r.Values[0]})
		case metav1.FieldSelectorOpNotIn:
			out = append(out, fields.Requirement{Operator: selection.NotEquals, Field: r.Key, Value: r.Values[0]})
		}
	}
	return out, nil
}

func labelRequirements(s *authorizationv1.LabelSelectorAttributes) (labels.Requirements, error) {
	if s.RawSelector != "" {
		selector, err := labels.Parse(s.RawSelector)
		if err != nil {
			return nil, err
		}
		out, _ := selector.Requirements()
		return out, nil
	}
	operators := map[metav1.LabelSelectorOperator]selection.Operator{
		metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
		metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	var out labels.Requirements
	for _, r := range s.Requirements {
		op, ok := operators[r.Operator]
		if !ok {
			return nil, fmt.Errorf("%q is not a valid label selector operator", r.Operator)
		}
		req, err := labels.NewRequirement(r.Key, op, r.Values)
		if err != nil {
			return nil, err
		}
		out = append(out, *req)
	}
	return out, nil
}

func validateSubject(name string, groups []string) field.ErrorList {
	if name == "" && len(groups) == 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "user"), name, "at least one of user or group must be specified")}
	}
	return nil
}

func validateAttributes(ra *authorizationv1.ResourceAttributes, na *authorizationv1.NonResourceAttributes) field.ErrorList {
	spec := field.NewPath("spec")
	switch {
	case ra != nil && na != nil:
		return field.ErrorList{field.Invalid(spec.Child("nonResourceAttributes"), na, "cannot be specified in combination with resourceAttributes")}
	case ra == nil && na == nil:
		return field.ErrorList{field.Invalid(spec.Child("resourceAttributes"), na, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return nil
}
