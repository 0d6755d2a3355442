package api

import (
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// StaticSuffix ends the names of webhook configurations, policies and bindings that come from files, and of no others (KEP-5793).
const StaticSuffix = ".static.k8s.io"

// reserved keeps the names of what comes from files out of the API. Objects that have had one since before that was a rule may be changed.
func reserved(validate func(Object) field.ErrorList) func(Object) field.ErrorList {
	return func(o Object) field.ErrorList {
		errs := validate(o)
		if strings.HasSuffix(o.GetName(), StaticSuffix) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), o.GetName(),
				`names ending with "`+StaticSuffix+`" are reserved for static manifest-based configurations and cannot be managed via the API`))
		}
		return errs
	}
}

// CompleteAdmission fills the defaults of a webhook configuration, policy or binding that comes from a file, and validates it: as the API does, and as
// something that the API's objects have no part in, so it names neither services nor parameters (KEP-5793).
func CompleteAdmission(obj Object) (errs field.ErrorList) {
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	switch o := obj.(type) {
	case *mutatingWebhooks:
		defaultMutatingWebhooks(o)
		errs = append(validateMutatingWebhooks(o, nil), byURL(ofMutating(o))...)
	case *validatingWebhooks:
		defaultValidatingWebhooks(o)
		errs = append(validateValidatingWebhooks(o, nil), byURL(ofValidating(o))...)
	case *validatingPolicy:
		defaultValidatingPolicy(o)
		errs = append(validateValidatingPolicy(o, nil), noParams(o.Spec.ParamKind != nil, spec.Child("paramKind"))...)
	case *mutatingPolicy:
		defaultMutatingPolicy(o)
		errs = append(validateMutatingPolicy(o, nil), noParams(o.Spec.ParamKind != nil, spec.Child("paramKind"))...)
	case *validatingBinding:
		defaultMatch(o.Spec.MatchResources)
		errs = append(validateValidatingBinding(o, nil), noParams(o.Spec.ParamRef != nil, spec.Child("paramRef"))...)
	case *mutatingBinding:
		defaultMatch(o.Spec.MatchResources)
		errs = append(validateMutatingBinding(o, nil), noParams(o.Spec.ParamRef != nil, spec.Child("paramRef"))...)
	}
	errs = append(errs, validation.ValidateObjectMetaAccessor(obj.(metav1.Object), false, validation.NameIsDNSSubdomain, meta)...)
	if !strings.HasSuffix(obj.GetName(), StaticSuffix) {
		errs = append(errs, field.Invalid(meta.Child("name"), obj.GetName(), `must end with "`+StaticSuffix+`"`))
	}
	return errs
}

func byURL(hooks []anyWebhook) (errs field.ErrorList) {
	for i := range hooks {
		if p := field.NewPath("webhooks").Index(i).Child("clientConfig"); hooks[i].client.Service != nil {
			errs = append(errs, field.Forbidden(p.Child("service"), "a webhook from a file is reached by its url"))
		}
	}
	return errs
}

func noParams(are bool, p *field.Path) field.ErrorList {
	if !are {
		return nil
	}
	return field.ErrorList{field.Forbidden(p, "what comes from a file has no parameters, which are objects of the API")}
}

// BoundPolicy is the policy that a binding binds.
func BoundPolicy(binding Object) string {
	switch b := binding.(type) {
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		return b.Spec.PolicyName
	case *admissionv1.MutatingAdmissionPolicyBinding:
		return b.Spec.PolicyName
	}
	return ""
}
