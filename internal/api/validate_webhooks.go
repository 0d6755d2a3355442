package api

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
)

// anyWebhook is what mutating and validating webhooks have in common.
type anyWebhook struct {
	name              string
	client            admissionv1.WebhookClientConfig
	rules             []admissionv1.RuleWithOperations
	failure           *admissionv1.FailurePolicyType
	match             *admissionv1.MatchPolicyType
	namespace, object *metav1.LabelSelector
	effects           *admissionv1.SideEffectClass
	seconds           *int32
	versions          []string
	conditions        []admissionv1.MatchCondition
	again             *admissionv1.ReinvocationPolicyType
}

func ofMutating(c *mutatingWebhooks) (out []anyWebhook) {
	if c == nil {
		return nil
	}
	for _, h := range c.Webhooks {
		out = append(out, anyWebhook{h.Name, h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.NamespaceSelector, h.ObjectSelector,
			h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, h.MatchConditions, h.ReinvocationPolicy})
	}
	return out
}

func ofValidating(c *validatingWebhooks) (out []anyWebhook) {
	if c == nil {
		return nil
	}
	for _, h := range c.Webhooks {
		out = append(out, anyWebhook{h.Name, h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.NamespaceSelector, h.ObjectSelector,
			h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, h.MatchConditions, nil})
	}
	return out
}

func validateMutatingWebhooks(c, old *mutatingWebhooks) field.ErrorList {
	return validateWebhooks(ofMutating(c), ofMutating(old))
}

func validateValidatingWebhooks(c, old *validatingWebhooks) field.ErrorList {
	return validateWebhooks(ofValidating(c), ofValidating(old))
}

// validateWebhooks demands of an update no more than the object before it fulfilled, where a rule came later than the kind.
func validateWebhooks(hooks, old []anyWebhook) (errs field.ErrorList) {
	p := field.NewPath("webhooks")
	stored := storedExpressions{}
	for i := range old {
		stored.addConditions(old[i].conditions)
	}
	strictNames := len(repeatedNames(old)) == 0
	strictVersions := !slices.ContainsFunc(old, func(h anyWebhook) bool { return !slices.ContainsFunc(h.versions, knownReview) })
	for i := range hooks {
		errs = append(errs, validateWebhook(&hooks[i], p.Index(i), stored, strictVersions)...)
	}
	if strictNames {
		for _, i := range repeatedNames(hooks) {
			errs = append(errs, field.Duplicate(p.Index(i).Child("name"), hooks[i].name))
		}
	}
	return errs
}

func repeatedNames(hooks []anyWebhook) (at []int) {
	for i := range hooks {
		if slices.ContainsFunc(hooks[:i], func(h anyWebhook) bool { return h.name == hooks[i].name }) {
			at = append(at, i)
		}
	}
	return at
}

var reviewVersions = []string{"v1", "v1beta1"}

func knownReview(version string) bool { return slices.Contains(reviewVersions, version) }

func validateWebhook(h *anyWebhook, p *field.Path, stored storedExpressions, strictVersions bool) field.ErrorList {
	errs := validation.IsFullyQualifiedName(p.Child("name"), h.name)
	errs = append(errs, validateReviewVersions(h.versions, p.Child("admissionReviewVersions"), strictVersions)...)
	for i := range h.rules {
		errs = append(errs, validateRuleWithOperations(&h.rules[i], p.Child("rules").Index(i))...)
	}
	errs = append(errs, oneOfOptional(h.failure, p.Child("failurePolicy"), admissionv1.Fail, admissionv1.Ignore)...)
	errs = append(errs, oneOfOptional(h.match, p.Child("matchPolicy"), admissionv1.Equivalent, admissionv1.Exact)...)
	if at := p.Child("sideEffects"); h.effects == nil {
		errs = append(errs, field.Required(at, "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, oneOf(*h.effects, at, admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun)...)
	}
	if h.seconds != nil && (*h.seconds < 1 || *h.seconds > 30) {
		errs = append(errs, field.Invalid(p.Child("timeoutSeconds"), *h.seconds, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, labelSelector(h.namespace, p.Child("namespaceSelector"))...)
	errs = append(errs, labelSelector(h.object, p.Child("objectSelector"))...)
	errs = append(errs, oneOfOptional(h.again, p.Child("reinvocationPolicy"), admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
	errs = append(errs, validateClient(&h.client, p.Child("clientConfig"))...)
	return append(errs, validateConditionsOf(h.conditions, p.Child("matchConditions"), compiled{stored: stored})...)
}

func oneOfOptional[T ~string](v *T, p *field.Path, allowed ...T) field.ErrorList {
	if v == nil {
		return nil
	}
	return oneOf(*v, p, allowed...)
}

func validateReviewVersions(versions []string, p *field.Path, strict bool) (errs field.ErrorList) {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(p, "must specify one of "+strings.Join(reviewVersions, ", "))}
	}
	for i, v := range versions {
		errs = append(errs, each(p.Index(i), v, validation.IsDNS1035Label(v))...)
		if slices.Contains(versions[:i], v) {
			errs = append(errs, field.Invalid(p.Index(i), v, "duplicate version"))
		}
	}
	if strict && !slices.ContainsFunc(versions, knownReview) {
		errs = append(errs, field.Invalid(p, versions, "must include at least one of "+strings.Join(reviewVersions, ", ")))
	}
	return errs
}

func validateClient(c *admissionv1.WebhookClientConfig, p *field.Path) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(p, "exactly one of url or service is required")}
	case c.URL != nil:
		return webhookutil.ValidateWebhookURL(p.Child("url"), *c.URL, true)
	}
	return webhookutil.ValidateWebhookService(p.Child("service"), c.Service.Namespace, c.Service.Name, c.Service.Path, value(c.Service.Port))
}

func validateRuleWithOperations(r *admissionv1.RuleWithOperations, p *field.Path) (errs field.ErrorList) {
	at := p.Child("operations")
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		errs = append(errs, field.Invalid(at, r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, o := range r.Operations {
		errs = append(errs, oneOf(o, at.Index(i), admissionv1.OperationAll, admissionv1.Create, admissionv1.Update, admissionv1.Delete, admissionv1.Connect)...)
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(p.Child("apiGroups"), ""))
	}
	errs = append(errs, onlyStar(r.APIGroups, p.Child("apiGroups"), "API groups")...)
	if len(r.APIVersions) == 0 {
		errs = append(errs, field.Required(p.Child("apiVersions"), ""))
	}
	errs = append(errs, onlyStar(r.APIVersions, p.Child("apiVersions"), "API versions")...)
	for i, v := range r.APIVersions {
		errs = append(errs, required(v, p.Child("apiVersions").Index(i))...)
	}
	errs = append(errs, validateRuleResources(r.Resources, p.Child("resources"))...)
	return append(errs, oneOfOptional(r.Scope, p.Child("scope"), admissionv1.ClusterScope, admissionv1.NamespacedScope, admissionv1.AllScopes)...)
}

func onlyStar(list []string, p *field.Path, what string) field.ErrorList {
	if len(list) > 1 && slices.Contains(list, "*") {
		return field.ErrorList{field.Invalid(p, list, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

// validateRuleResources refuses what another entry already says: "pods/log" beside "pods/*", anything beside "*/*".
func validateRuleResources(list []string, p *field.Path) (errs field.ErrorList) {
	if len(list) == 0 {
		errs = append(errs, field.Required(p, ""))
	}
	allOf, everywhere := map[string]bool{}, map[string]bool{} // "pods/*", "*/scale"
	plain := false
	for i, r := range list {
		if r == "" {
			errs = append(errs, field.Required(p.Index(i), ""))
		}
		res, sub, has := strings.Cut(r, "/")
		if !has {
			plain = plain || r != "*"
			continue
		}
		if allOf[res] {
			errs = append(errs, field.Invalid(p.Index(i), r, fmt.Sprintf("if '%s/*' is present, must not specify %s", res, r)))
		}
		if everywhere[sub] {
			errs = append(errs, field.Invalid(p.Index(i), r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
		allOf[res], everywhere[sub] = allOf[res] || sub == "*", everywhere[sub] || res == "*"
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		errs = append(errs, field.Invalid(p, list, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(p, list, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}
