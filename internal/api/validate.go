package api

import (
	"fmt"
	"slices"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Checks that many kinds share. Each takes the path of what it checks and returns errors of upstream's types and wording.

// Name rules, as apimachinery spells them: prefix says that a generated suffix will follow.
var (
	labelName   = apivalidation.NameIsDNSLabel
	serviceName = labelName // since 1.37; it was stricter before (KEP-5311)
)

func pathSegment(name string, _ bool) []string { return path.IsValidPathSegmentName(name) }

// anyName leaves an event's name to the generic rules of a path segment: clients build it from whatever they report on.
func anyName(name string, prefix bool) []string { return pathSegment(name, prefix) }

func nonNegative(n int64, p *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(n, p)
}

func immutable(now, was any, p *field.Path) field.ErrorList {
	return apivalidation.ValidateImmutableField(now, was, p)
}

func required(s string, p *field.Path) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return nil
}

// oneOf checks an enumeration; the empty value is an error too, for defaults have filled it.
func oneOf[T ~string](v T, p *field.Path, allowed ...T) field.ErrorList {
	if v == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	for _, a := range allowed {
		if v == a {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(p, v, allowed)}
}

// choice is oneOf of the field called name below p, whose path is built only for an error.
func choice[T ~string](v T, p *field.Path, name string, allowed ...T) field.ErrorList {
	for _, a := range allowed {
		if v == a {
			return nil
		}
	}
	return oneOf(v, p.Child(name), slices.Clone(allowed)...)
}

// each turns the messages of a rule into errors of one value.
func each(p *field.Path, v any, messages []string) (errs field.ErrorList) {
	for _, m := range messages {
		errs = append(errs, field.Invalid(p, v, m))
	}
	return errs
}

func port(n int32, p *field.Path) field.ErrorList {
	return each(p, n, validation.IsValidPortNum(int(n)))
}

// portNumber is port of the field called name below p.
func portNumber(n int32, p *field.Path, name string) field.ErrorList {
	if n >= 1 && n <= 65535 {
		return nil
	}
	return port(n, p.Child(name))
}

func portOrName(v intstr.IntOrString, p *field.Path) field.ErrorList {
	if v.Type == intstr.String {
		return each(p, v.StrVal, validation.IsValidPortName(v.StrVal))
	}
	return port(v.IntVal, p)
}

func dnsLabel(s string, p *field.Path) field.ErrorList {
	if plainLabel(s) {
		return nil
	}
	return each(p, s, validation.IsDNS1123Label(s))
}

// plainLabel knows a good DNS label without a regular expression, which would be a tenth of what creating a pod costs.
func plainLabel(s string) bool {
	if len(s) == 0 || len(s) > validation.DNS1123LabelMaxLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func dnsSubdomain(s string, p *field.Path) field.ErrorList {
	if plainLabel(s) {
		return nil
	}
	return each(p, s, validation.IsDNS1123Subdomain(s))
}

func qualifiedName(s string, p *field.Path) field.ErrorList {
	return each(p, s, validation.IsQualifiedName(s))
}

// dataKey checks the key of a ConfigMap or Secret.
func dataKey(k string, p *field.Path) field.ErrorList {
	return each(p, k, validation.IsConfigMapKey(k))
}

// address and cidr take what upstream takes since KEP-4858: no leading zeros, no bits beyond the prefix.
func address(s string, p *field.Path) field.ErrorList {
	return validation.IsValidIPForLegacyField(p, s, true, nil)
}

func cidr(s string, p *field.Path) field.ErrorList {
	return validation.IsValidCIDRForLegacyField(p, s, true, nil)
}

// countOrPercent checks a field like maxSurge.
func countOrPercent(v *intstr.IntOrString, p *field.Path) field.ErrorList {
	switch {
	case v == nil:
		return nil
	case v.Type == intstr.String:
		return each(p, v.StrVal, validation.IsValidPercent(v.StrVal))
	}
	return nonNegative(int64(v.IntVal), p)
}

// percentOf reads a percentage.
func percentOf(v *intstr.IntOrString) (percent int, is bool) {
	if v == nil || v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	_, err := fmt.Sscanf(v.StrVal, "%d%%", &percent)
	return percent, err == nil
}

func labelSelector(s *metav1.LabelSelector, p *field.Path) field.ErrorList {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, p)
}

func equal(a, b any) bool { return apiequality.Semantic.DeepEqual(a, b) }
