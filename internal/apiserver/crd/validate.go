package crd

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/exponent"
)

func (v *version) validate(o api.Object) field.ErrorList {
	u := o.(*unstructured.Unstructured)
	s, errs := v.forValidation(u)
	if s == nil {
		return errs
	}
	errs = append(errs, validation.ValidateCustomResource(nil, u.Object, s.whole)...)
	errs = append(errs, v.checkScale(u, true)...)
	errs = append(errs, objectmeta.Validate(context.Background(), nil, u.Object, s.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, u.Object)...)
	return s.checkRules(errs, u, nil)
}

// validateUpdate forgives what was already wrong and has not been touched (ratcheting, KEP-4008).
func (v *version) validateUpdate(o, before api.Object) field.ErrorList {
	u, old := o.(*unstructured.Unstructured), before.(*unstructured.Unstructured)
	s, errs := v.forValidation(u)
	if s == nil {
		return errs
	}
	pair := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: s.structural})
	errs = append(errs, validation.ValidateCustomResourceUpdate(nil, u.Object, old.Object, s.whole, validation.WithRatcheting(pair))...)
	errs = append(errs, v.checkScale(u, true)...)
	errs = append(errs, objectmeta.Validate(context.Background(), nil, u.Object, s.structural, false)...)
	errs = append(errs, s.checkLists(u, old)...)
	return s.checkRules(errs, u, old, cel.WithRatcheting(pair))
}

// validateStatus looks at the status by its own schema; rules see the whole object.
func (v *version) validateStatus(o, before api.Object) field.ErrorList {
	u, old := o.(*unstructured.Unstructured), before.(*unstructured.Unstructured)
	s, errs := v.forValidation(u)
	if s == nil {
		return errs
	}
	pair := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: s.structural})
	if status, has := u.Object["status"]; has && s.status != nil {
		var options []validation.ValidationOption
		if s.structural != nil {
			options = append(options, validation.WithRatcheting(pair.Key("status")))
		}
		errs = append(errs, validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, old.Object["status"], s.status, options...)...)
	}
	errs = append(errs, v.checkScale(u, false)...)
	errs = append(errs, s.checkLists(u, old)...)
	return s.checkRules(errs, u, old, cel.WithRatcheting(pair))
}

// forValidation gives the schema, or says why there is nothing to validate by.
func (v *version) forValidation(u *unstructured.Unstructured) (*compiled, field.ErrorList) {
	var errs field.ErrorList
	if u.GetKind() != v.gvk.Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), u.GetKind(), "must be "+v.gvk.Kind))
	}
	if want := v.gvk.GroupVersion().String(); u.GetAPIVersion() != want {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), u.GetAPIVersion(), "must be "+want))
	}
	if len(errs) > 0 {
		return nil, errs
	}
	s, err := v.schema.get()
	if err != nil {
		return nil, field.ErrorList{field.InternalError(nil, err)}
	}
	return s, nil
}

// checkLists checks what sets and maps promise, unless it was already wrong.
func (s *compiled) checkLists(u, old *unstructured.Unstructured) field.ErrorList {
	errs := listtype.ValidateListSetsAndMaps(nil, s.structural, u.Object)
	if len(errs) > 0 && len(listtype.ValidateListSetsAndMaps(nil, s.structural, old.Object)) > 0 {
		return nil
	}
	return errs
}

// Errors that make it pointless to ask the rules: values may not even have the types that rules expect.
var blocking = []field.ErrorType{
	field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid,
}

// checkRules evaluates the schema's CEL rules within upstream's budget.
func (s *compiled) checkRules(errs field.ErrorList, u, old *unstructured.Unstructured, options ...cel.Option) field.ErrorList {
	if s.rules == nil {
		return errs
	}
	if slices.ContainsFunc(errs, func(e *field.Error) bool { return slices.Contains(blocking, e.Type) }) {
		return append(errs, field.Invalid(nil, nil,
			"some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	if s.weighs {
		if err := longExponent(u.Object, nil); err != nil {
			return append(errs, err)
		}
	}
	var before any
	if old != nil {
		before = old.Object
	}
	more, _ := s.rules.Validate(context.Background(), nil, s.structural, u.Object, before, celconfig.RuntimeCELCostBudget, options...)
	return append(errs, more...)
}

// longExponent refuses what rules would take for a quantity that nobody can compute with; what a rule computes is no part of its budget.
func longExponent(v any, at *field.Path) *field.Error {
	switch v := v.(type) {
	case string:
		if exponent.Long(v) {
			return field.Invalid(at, v, "rules of this kind read quantities, and its exponent is too long for one")
		}
	case map[string]any:
		for k, in := range v {
			if err := longExponent(in, at.Child(k)); err != nil {
				return err
			}
		}
	case []any:
		for i, in := range v {
			if err := longExponent(in, at.Index(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkScale checks what the scale subresource reads.
func (v *version) checkScale(u *unstructured.Unstructured, spec bool) (errs field.ErrorList) {
	if v.scale == nil {
		return nil
	}
	count := func(path string) {
		n, _, err := unstructured.NestedInt64(u.Object, dotted(path)...)
		at := field.NewPath(path)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(at, n, err.Error()))
		case n < 0:
			errs = append(errs, field.Invalid(at, n, "should be a non-negative integer"))
		case n > math.MaxInt32:
			errs = append(errs, field.Invalid(at, n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32)))
		}
	}
	if spec {
		count(v.scale.SpecReplicasPath)
	}
	count(v.scale.StatusReplicasPath)
	if p := v.scale.LabelSelectorPath; p != nil {
		if text, _, err := unstructured.NestedString(u.Object, dotted(*p)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*p), text, err.Error()))
		}
	}
	return errs
}

func dotted(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// warnFinalizers warns of new finalizers whose names may meet others'.
func warnFinalizers(o, old api.Object) (out []string) {
	at := field.NewPath("metadata", "finalizers")
	standard := []string{metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents, string(corev1.FinalizerKubernetes)}
	for _, f := range o.GetFinalizers() {
		if old != nil && slices.Contains(old.GetFinalizers(), f) {
			continue
		}
		for _, wrong := range utilvalidation.IsQualifiedName(f) {
			out = append(out, fmt.Sprintf("%s: %q: %s", at, f, wrong))
		}
		if strings.Contains(f, "/") || slices.Contains(standard, f) {
			continue
		}
		hint := "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
		if strings.Contains(f, ".") {
			hint = "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
		}
		out = append(out, fmt.Sprintf("%s: %q: %s", at, f, hint))
	}
	return out
}
