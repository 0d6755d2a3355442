package api

import (
	"cmp"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The webhooks and policies that requests pass through. Package apiserver/admission/dynamic asks them; here is what holds for the objects themselves.

type (
	mutatingWebhooks   = admissionv1.MutatingWebhookConfiguration
	validatingWebhooks = admissionv1.ValidatingWebhookConfiguration
	validatingPolicy   = admissionv1.ValidatingAdmissionPolicy
	validatingBinding  = admissionv1.ValidatingAdmissionPolicyBinding
	mutatingPolicy     = admissionv1.MutatingAdmissionPolicy
	mutatingBinding    = admissionv1.MutatingAdmissionPolicyBinding
)

func admissionRows() []*Resource {
	const g, v = "admissionregistration.k8s.io", "v1"
	extensions := []string{"api-extensions"}
	return []*Resource{
		of[mutatingWebhooks, admissionv1.MutatingWebhookConfigurationList](Resource{Group: g, Version: v, Kind: "MutatingWebhookConfiguration",
			Plural: "mutatingwebhookconfigurations", Key: "mutatingwebhookconfigurations", Categories: extensions, Generation: true,
			Default: defaulted(defaultMutatingWebhooks), Validate: reserved(onCreate(validateMutatingWebhooks)), ValidateUpdate: onUpdate(validateMutatingWebhooks),
			Columns: columns(count("Webhooks", func(c *mutatingWebhooks) int { return len(c.Webhooks) }))}),
		of[validatingWebhooks, admissionv1.ValidatingWebhookConfigurationList](Resource{Group: g, Version: v, Kind: "ValidatingWebhookConfiguration",
			Plural: "validatingwebhookconfigurations", Key: "validatingwebhookconfigurations", Categories: extensions, Generation: true,
			Default: defaulted(defaultValidatingWebhooks), Validate: reserved(onCreate(validateValidatingWebhooks)), ValidateUpdate: onUpdate(validateValidatingWebhooks),
			Columns: columns(count("Webhooks", func(c *validatingWebhooks) int { return len(c.Webhooks) }))}),
		of[validatingPolicy, admissionv1.ValidatingAdmissionPolicyList](Resource{Group: g, Version: v, Kind: "ValidatingAdmissionPolicy",
			Plural: "validatingadmissionpolicies", Key: "validatingadmissionpolicies", Categories: extensions, Generation: true, Status: true, StatusAlone: true,
			Default: defaulted(defaultValidatingPolicy), Validate: reserved(onCreate(validateValidatingPolicy)), ValidateUpdate: onUpdate(validateValidatingPolicy),
			ValidateStatus: validatePolicyStatus,
			Columns: columns(count("Validations", func(p *validatingPolicy) int { return len(p.Spec.Validations) }),
				text("ParamKind", func(p *validatingPolicy) string { return paramKindText(p.Spec.ParamKind) }))}),
		of[validatingBinding, admissionv1.ValidatingAdmissionPolicyBindingList](Resource{Group: g, Version: v, Kind: "ValidatingAdmissionPolicyBinding",
			Plural: "validatingadmissionpolicybindings", Key: "validatingadmissionpolicybindings", Categories: extensions, Generation: true,
			Default:  defaulted(func(b *validatingBinding) { defaultMatch(b.Spec.MatchResources) }),
			Validate: reserved(onCreate(validateValidatingBinding)), ValidateUpdate: onUpdate(validateValidatingBinding),
			Columns: columns(text("PolicyName", func(b *validatingBinding) string { return b.Spec.PolicyName }),
				text("ParamRef", func(b *validatingBinding) string { return paramRefText(b.Spec.ParamRef) }))}),
		of[mutatingPolicy, admissionv1.MutatingAdmissionPolicyList](Resource{Group: g, Version: v, Kind: "MutatingAdmissionPolicy",
			Plural: "mutatingadmissionpolicies", Key: "mutatingadmissionpolicies", Categories: extensions, Generation: true,
			Default: defaulted(defaultMutatingPolicy), Validate: reserved(onCreate(validateMutatingPolicy)), ValidateUpdate: onUpdate(validateMutatingPolicy),
			Columns: columns(count("Mutations", func(p *mutatingPolicy) int { return len(p.Spec.Mutations) }),
				text("ParamKind", func(p *mutatingPolicy) string { return paramKindText(p.Spec.ParamKind) }))}),
		of[mutatingBinding, admissionv1.MutatingAdmissionPolicyBindingList](Resource{Group: g, Version: v, Kind: "MutatingAdmissionPolicyBinding",
			Plural: "mutatingadmissionpolicybindings", Key: "mutatingadmissionpolicybindings", Categories: extensions, Generation: true,
			Default:  defaulted(func(b *mutatingBinding) { defaultMatch(b.Spec.MatchResources) }),
			Validate: reserved(onCreate(validateMutatingBinding)), ValidateUpdate: onUpdate(validateMutatingBinding),
			Columns: columns(text("PolicyName", func(b *mutatingBinding) string { return b.Spec.PolicyName }),
				text("ParamRef", func(b *mutatingBinding) string { return paramRefText(b.Spec.ParamRef) }))}),
	}
}

// defaulted, onCreate and onUpdate make a row's functions of typed ones; a check gets nil for the old object on create.
func defaulted[T Object](f func(T)) func(Object) { return func(o Object) { f(o.(T)) } }

func onCreate[T any, PT interface {
	*T
	Object
}](check func(obj, old PT) field.ErrorList) func(Object) field.ErrorList {
	return func(o Object) field.ErrorList { return check(o.(PT), nil) }
}

func onUpdate[T any, PT interface {
	*T
	Object
}](check func(obj, old PT) field.ErrorList) func(obj, old Object) field.ErrorList {
	return func(obj, old Object) field.ErrorList { return check(obj.(PT), old.(PT)) }
}

const (
	webhookSeconds = 10
	webhookPort    = 443
)

func defaultMutatingWebhooks(c *mutatingWebhooks) {
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		fillNil(&h.FailurePolicy, admissionv1.Fail)
		fillNil(&h.MatchPolicy, admissionv1.Equivalent)
		fillNil(&h.NamespaceSelector, metav1.LabelSelector{})
		fillNil(&h.ObjectSelector, metav1.LabelSelector{})
		fillNil(&h.TimeoutSeconds, webhookSeconds)
		fillNil(&h.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
		defaultCall(h.Rules, h.ClientConfig.Service)
	}
}

func defaultValidatingWebhooks(c *validatingWebhooks) {
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		fillNil(&h.FailurePolicy, admissionv1.Fail)
		fillNil(&h.MatchPolicy, admissionv1.Equivalent)
		fillNil(&h.NamespaceSelector, metav1.LabelSelector{})
		fillNil(&h.ObjectSelector, metav1.LabelSelector{})
		fillNil(&h.TimeoutSeconds, webhookSeconds)
		defaultCall(h.Rules, h.ClientConfig.Service)
	}
}

func defaultCall(rules []admissionv1.RuleWithOperations, s *admissionv1.ServiceReference) {
	for i := range rules {
		fillNil(&rules[i].Scope, admissionv1.AllScopes)
	}
	if s != nil {
		fillNil(&s.Port, webhookPort)
	}
}

func defaultValidatingPolicy(p *validatingPolicy) {
	fillNil(&p.Spec.FailurePolicy, admissionv1.Fail)
	defaultMatch(p.Spec.MatchConstraints)
}

func defaultMutatingPolicy(p *mutatingPolicy) {
	fillNil(&p.Spec.FailurePolicy, admissionv1.Fail)
	fill(&p.Spec.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
	defaultMatch(p.Spec.MatchConstraints)
}

func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	fillNil(&m.MatchPolicy, admissionv1.Equivalent)
	fillNil(&m.NamespaceSelector, metav1.LabelSelector{})
	fillNil(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			fillNil(&rules[i].Scope, admissionv1.AllScopes)
		}
	}
}

const unset = "<unset>"

func paramKindText(k *admissionv1.ParamKind) string {
	if k == nil {
		return unset
	}
	return k.APIVersion + "/" + k.Kind
}

func paramRefText(r *admissionv1.ParamRef) string {
	switch {
	case r == nil:
		return unset
	case r.Selector != nil:
		return cmp.Or(r.Namespace, "*") + "/" + selectorText(r.Selector)
	case r.Namespace != "":
		return r.Namespace + "/" + r.Name
	}
	return "*/" + r.Name
}
