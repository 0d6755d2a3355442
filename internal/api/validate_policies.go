package api

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
)

// Upstream's limits.
const (
	mostAuditAnnotations = 20
	longestAuditValue    = 5 << 10
)

func validateValidatingPolicy(p, old *validatingPolicy) field.ErrorList {
	stored := storedExpressions{}
	if old != nil {
		if equal(p.Spec, old.Spec) {
			return nil // as it is, it was let in
		}
		stored.addConditions(old.Spec.MatchConditions)
		for _, v := range old.Spec.Variables {
			stored[v.Expression] = true
		}
		for _, v := range old.Spec.Validations {
			stored[v.Expression], stored[v.MessageExpression] = true, true
		}
		for _, a := range old.Spec.AuditAnnotations {
			stored[a.ValueExpression] = true
		}
	}
	s, at := &p.Spec, field.NewPath("spec")
	with, errs := newComposited(at)
	if errs != nil {
		return errs
	}
	c := compiled{with: with, params: s.ParamKind != nil, stored: stored}
	errs = append(errs, validateFailurePolicy(s.FailurePolicy, at.Child("failurePolicy"))...)
	errs = append(errs, validateParamKind(s.ParamKind, at.Child("paramKind"))...)
	errs = append(errs, validateConstraints(s.MatchConstraints, at.Child("matchConstraints"))...)
	errs = append(errs, validateVariables(s.Variables, at.Child("variables"), with, c)...)
	errs = append(errs, validateConditionsOf(s.MatchConditions, at.Child("matchConditions"), c)...)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const either = "validations or auditAnnotations must be specified"
		return append(errs, field.Required(at.Child("validations"), either), field.Required(at.Child("auditAnnotations"), either))
	}
	for i := range s.Validations {
		errs = append(errs, validateValidation(&s.Validations[i], at.Child("validations").Index(i), c)...)
	}
	return append(errs, validateAuditAnnotations(s.AuditAnnotations, p.Name, at.Child("auditAnnotations"), c)...)
}

func validateFailurePolicy(f *admissionv1.FailurePolicyType, p *field.Path) field.ErrorList {
	if f == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	return oneOf(*f, p, admissionv1.Fail, admissionv1.Ignore)
}

func validateParamKind(k *admissionv1.ParamKind, p *field.Path) (errs field.ErrorList) {
	if k == nil {
		return nil
	}
	at := p.Child("apiVersion")
	if gv, err := schema.ParseGroupVersion(k.APIVersion); k.APIVersion == "" {
		errs = append(errs, field.Required(at, ""))
	} else if err != nil {
		errs = append(errs, field.Invalid(at, k.APIVersion, err.Error()))
	} else {
		if gv.Group != "" {
			errs = append(errs, each(at, gv.Group, validation.IsDNS1123Subdomain(gv.Group))...)
		}
		errs = append(errs, each(at, gv.Version, validation.IsDNS1035Label(gv.Version))...)
	}
	if k.Kind == "" {
		return append(errs, field.Required(p.Child("kind"), ""))
	}
	return append(errs, each(p.Child("kind"), k.Kind, validation.IsDNS1035Label(strings.ToLower(k.Kind)))...)
}

func validateConstraints(m *admissionv1.MatchResources, p *field.Path) field.ErrorList {
	if m == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	errs := validateMatchResources(m, p)
	if len(m.ResourceRules) == 0 {
		errs = append(errs, field.Required(p.Child("resourceRules"), ""))
	}
	return errs
}

func validateMatchResources(m *admissionv1.MatchResources, p *field.Path) (errs field.ErrorList) {
	if m == nil {
		return nil
	}
	errs = append(errs, oneOfOptional(m.MatchPolicy, p.Child("matchPolicy"), admissionv1.Equivalent, admissionv1.Exact)...)
	errs = append(errs, labelSelector(m.NamespaceSelector, p.Child("namespaceSelector"))...)
	errs = append(errs, labelSelector(m.ObjectSelector, p.Child("objectSelector"))...)
	for name, rules := range map[string][]admissionv1.NamedRuleWithOperations{"resourceRules": m.ResourceRules, "excludeResourceRules": m.ExcludeResourceRules} {
		for i := range rules {
			at := p.Child(name).Index(i)
			for j, n := range rules[i].ResourceNames {
				errs = append(errs, each(at.Child("resourceNames").Index(j), n, path.ValidatePathSegmentName(n, false))...)
				if slices.Contains(rules[i].ResourceNames[:j], n) {
					errs = append(errs, field.Duplicate(at.Child("resourceNames").Index(j), n))
				}
			}
			errs = append(errs, validateRuleWithOperations(&rules[i].RuleWithOperations, at)...)
		}
	}
	return errs
}

var refusals = []metav1.StatusReason{
	metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge, metav1.StatusReasonUnauthorized,
}

func validateValidation(v *admissionv1.Validation, p *field.Path, c compiled) (errs field.ErrorList) {
	expression, message := strings.TrimSpace(v.Expression), strings.TrimSpace(v.Message)
	if expression == "" {
		errs = append(errs, field.Required(p.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, c.check(&validating.ValidationCondition{Expression: v.Expression}, authorizing, p.Child("expression"))...)
	}
	if v.MessageExpression != "" {
		if at := p.Child("messageExpression"); strings.TrimSpace(v.MessageExpression) == "" {
			errs = append(errs, field.Invalid(at, v.MessageExpression, "must be non-empty if specified"))
		} else {
			errs = append(errs, c.check(textExpression{v.MessageExpression}, authorizing, at)...)
		}
	}
	switch at := p.Child("message"); {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(at, v.Message, "message must be non-empty if specified"))
	case strings.Contains(message, "\n"):
		errs = append(errs, field.Invalid(at, v.Message, "message must not contain line breaks"))
	case strings.Contains(expression, "\n") && message == "":
		errs = append(errs, field.Required(at, "message must be specified if expression contains line breaks"))
	}
	return append(errs, oneOfOptional(v.Reason, p.Child("reason"), refusals...)...)
}

func validateAuditAnnotations(list []admissionv1.AuditAnnotation, policy string, p *field.Path, c compiled) (errs field.ErrorList) {
	if len(list) > mostAuditAnnotations {
		errs = append(errs, field.TooMany(p, len(list), mostAuditAnnotations))
	}
	for i := range list {
		a, at := &list[i], p.Index(i)
		switch {
		case strings.TrimSpace(a.Key) == "":
			errs = append(errs, field.Required(at.Child("key"), ""))
		default:
			errs = append(errs, each(at.Child("key"), a.Key, validation.IsQualifiedName(policy+"/"+a.Key))...)
		}
		if a.Key != "" && slices.ContainsFunc(list[:i], func(o admissionv1.AuditAnnotation) bool { return o.Key == a.Key }) {
			errs = append(errs, field.Duplicate(at.Child("key"), a.Key))
		}
		switch at := at.Child("valueExpression"); {
		case strings.TrimSpace(a.ValueExpression) == "":
			errs = append(errs, field.Required(at, "valueExpression is not specified"))
		case len(a.ValueExpression) > longestAuditValue:
			errs = append(errs, field.TooLong(at, "", longestAuditValue))
		default:
			errs = append(errs, c.check(&validating.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression}, authorizing, at)...)
		}
	}
	return errs
}

func validatePolicyStatus(o, _ Object) (errs field.ErrorList) {
	s, p := &o.(*validatingPolicy).Status, field.NewPath("status")
	errs = append(errs, nonNegative(s.ObservedGeneration, p.Child("observedGeneration"))...)
	if s.TypeChecking != nil {
		for i, w := range s.TypeChecking.ExpressionWarnings {
			at := p.Child("typeChecking", "expressionWarnings").Index(i)
			errs = append(errs, required(w.FieldRef, at.Child("fieldRef"))...)
			errs = append(errs, required(w.Warning, at.Child("warning"))...)
		}
	}
	return append(errs, metavalidation.ValidateConditions(s.Conditions, p.Child("conditions"))...)
}

func validateMutatingPolicy(p, old *mutatingPolicy) field.ErrorList {
	stored := storedExpressions{}
	if old != nil {
		if equal(p.Spec, old.Spec) {
			return nil
		}
		stored.addConditions(old.Spec.MatchConditions)
		for _, v := range old.Spec.Variables {
			stored[v.Expression] = true
		}
		for _, m := range old.Spec.Mutations {
			stored[value(m.ApplyConfiguration).Expression], stored[value(m.JSONPatch).Expression] = true, true
		}
	}
	s, at := &p.Spec, field.NewPath("spec")
	with, errs := newComposited(at)
	if errs != nil {
		return errs
	}
	c := compiled{with: with, params: s.ParamKind != nil, stored: stored}
	errs = append(errs, validateFailurePolicy(s.FailurePolicy, at.Child("failurePolicy"))...)
	errs = append(errs, validateParamKind(s.ParamKind, at.Child("paramKind"))...)
	errs = append(errs, validateConstraints(s.MatchConstraints, at.Child("matchConstraints"))...)
	errs = append(errs, validateVariables(s.Variables, at.Child("variables"), with, c)...)
	errs = append(errs, validateConditionsOf(s.MatchConditions, at.Child("matchConditions"), c)...)
	errs = append(errs, oneOf(s.ReinvocationPolicy, at.Child("reinvocationPolicy"), admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(at.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, validateMutation(&s.Mutations[i], at.Child("mutations").Index(i), c)...)
	}
	return errs
}

func validateValidatingBinding(b, _ *validatingBinding) field.ErrorList {
	s, p := &b.Spec, field.NewPath("spec")
	errs := validateBound(s.PolicyName, s.ParamRef, s.MatchResources, p)
	at := p.Child("validationActions")
	if len(s.ValidationActions) == 0 {
		errs = append(errs, field.Required(at, "at least one validation action is required"))
	}
	for i, a := range s.ValidationActions {
		errs = append(errs, oneOf(a, at.Index(i), admissionv1.Deny, admissionv1.Warn, admissionv1.Audit)...)
		if slices.Contains(s.ValidationActions[:i], a) {
			errs = append(errs, field.Duplicate(at.Index(i), a))
		}
	}
	if slices.Contains(s.ValidationActions, admissionv1.Deny) && slices.Contains(s.ValidationActions, admissionv1.Warn) {
		errs = append(errs, field.Invalid(at, s.ValidationActions, "must not contain both Deny and Warn (repeating the same validation failure information "+
			"in the API response and headers serves no purpose)"))
	}
	return errs
}

func validateMutatingBinding(b, _ *mutatingBinding) field.ErrorList {
	return validateBound(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, field.NewPath("spec"))
}

func validateBound(policy string, ref *admissionv1.ParamRef, m *admissionv1.MatchResources, p *field.Path) (errs field.ErrorList) {
	if at := p.Child("policyName"); policy == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, each(at, policy, apivalidation.NameIsDNSSubdomain(policy, false))...)
	}
	errs = append(errs, validateParamRef(ref, p.Child("paramRef"))...)
	return append(errs, validateMatchResources(m, p.Child("matchResources"))...)
}

func validateParamRef(r *admissionv1.ParamRef, p *field.Path) (errs field.ErrorList) {
	if r == nil {
		return nil
	}
	const both = "name and selector are mutually exclusive"
	switch {
	case r.Name != "" && r.Selector != nil:
		errs = append(errs, field.Forbidden(p.Child("name"), both), field.Forbidden(p.Child("selector"), both))
	case r.Name == "" && r.Selector == nil:
		errs = append(errs, field.Required(p, "one of name or selector must be specified"))
	}
	if r.Name != "" {
		errs = append(errs, each(p.Child("name"), r.Name, path.ValidatePathSegmentName(r.Name, false))...)
	}
	errs = append(errs, labelSelector(r.Selector, p.Child("selector"))...)
	if r.ParameterNotFoundAction == nil {
		return append(errs, field.Required(p.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, oneOf(*r.ParameterNotFoundAction, p.Child("parameterNotFoundAction"), admissionv1.AllowAction, admissionv1.DenyAction)...)
}
