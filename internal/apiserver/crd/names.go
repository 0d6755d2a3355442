package crd

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
)

// names that are in use in a group.
type names struct{ resources, kinds map[string]bool }

func (n names) add(a apiextensionsv1.CustomResourceDefinitionNames) {
	for _, v := range append([]string{a.Plural, a.Singular}, a.ShortNames...) {
		if v != "" {
			n.resources[v] = true
		}
	}
	for _, v := range []string{a.Kind, a.ListKind} {
		if v != "" {
			n.kinds[v] = true
		}
	}
}

// decide sets a definition's accepted names and conditions, given the names that others of its group have. It looks at nothing else; at the schemas
// only if they are new.
func decide(crd *apiextensionsv1.CustomResourceDefinition, others names, fresh bool) {
	accepted, conflict := accept(crd.Spec.Names, crd.Status.AcceptedNames, others)
	crd.Status.AcceptedNames = accepted
	namesAccepted := condition(apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionTrue, "NoConflicts", "no conflicts found")
	if conflict != nil {
		namesAccepted = *conflict
	}
	apihelpers.SetCRDCondition(crd, namesAccepted)
	switch established := apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established); {
	case established: // once and for all: there may be objects
	case conflict == nil:
		apihelpers.SetCRDCondition(crd, condition(apiextensionsv1.Established, apiextensionsv1.ConditionTrue,
			"InitialNamesAccepted", "the initial names have been accepted"))
	default:
		apihelpers.SetCRDCondition(crd, condition(apiextensionsv1.Established, apiextensionsv1.ConditionFalse, "NotAccepted", "not all names are accepted"))
	}
	if fresh {
		if c := structure(crd); c != nil {
			apihelpers.SetCRDCondition(crd, *c)
		} else if apihelpers.FindCRDCondition(crd, apiextensionsv1.NonStructuralSchema) != nil {
			apihelpers.RemoveCRDCondition(crd, apiextensionsv1.NonStructuralSchema)
		}
	}
	if c := approval(crd); c != nil {
		apihelpers.SetCRDCondition(crd, *c)
	}
}

func condition(
	kind apiextensionsv1.CustomResourceDefinitionConditionType, is apiextensionsv1.ConditionStatus, reason, message string,
) apiextensionsv1.CustomResourceDefinitionCondition {
	return apiextensionsv1.CustomResourceDefinitionCondition{Type: kind, Status: is, Reason: reason, Message: message}
}

// accept gives a definition those of the names it asks for that nobody else has; where it doesn't get one it keeps what it had. Of several
// conflicts the last is told.
func accept(wanted, has apiextensionsv1.CustomResourceDefinitionNames, others names) (
	out apiextensionsv1.CustomResourceDefinitionNames, conflict *apiextensionsv1.CustomResourceDefinitionCondition,
) {
	out = has
	refuse := func(reason string, used ...string) {
		texts := make([]string, len(used))
		for i, name := range used {
			texts[i] = fmt.Sprintf("%q is already in use", name)
		}
		message := strings.Join(texts, ", ")
		if len(texts) > 1 {
			message = "[" + message + "]"
		}
		c := condition(apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionFalse, reason, message)
		conflict = &c
	}
	take := func(to *string, want, reason string, used map[string]bool) {
		if want != *to && used[want] {
			refuse(reason, want)
		} else {
			*to = want
		}
	}
	take(&out.Plural, wanted.Plural, "PluralConflict", others.resources)
	take(&out.Singular, wanted.Singular, "SingularConflict", others.resources)
	var used []string
	for _, short := range wanted.ShortNames {
		if others.resources[short] && !slices.Contains(has.ShortNames, short) {
			used = append(used, short)
		}
	}
	if len(used) > 0 {
		refuse("ShortNamesConflict", used...)
	} else {
		out.ShortNames = wanted.ShortNames
	}
	take(&out.Kind, wanted.Kind, "KindConflict", others.kinds)
	take(&out.ListKind, wanted.ListKind, "ListKindConflict", others.kinds)
	out.Categories = wanted.Categories
	return out, conflict
}

// structure says what keeps a definition's schemas, made long ago, from being structural; nil if nothing does.
func structure(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	var errs field.ErrorList
	if crd.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		s, err := structural(v)
		if err != nil {
			c := condition(apiextensionsv1.NonStructuralSchema, apiextensionsv1.ConditionUnknown, "StructuralError",
				fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err))
			return &c
		}
		if s != nil {
			at := field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema")
			errs = append(errs, structuralschema.ValidateStructural(at, s)...)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	c := condition(apiextensionsv1.NonStructuralSchema, apiextensionsv1.ConditionTrue, "Violations", errs.ToAggregate().Error())
	return &c
}

// approval says whether a community group's definition was approved; nil for other groups.
func approval(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return nil
	}
	state, message := apihelpers.GetAPIApprovalState(crd.Annotations)
	c := condition(apiextensionsv1.KubernetesAPIApprovalPolicyConformant, apiextensionsv1.ConditionFalse, "", message)
	switch state {
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	return &c
}

// sameNames says whether a row has a definition's accepted names.
func sameNames(row *api.Resource, n *apiextensionsv1.CustomResourceDefinitionNames) bool {
	return row.Plural == n.Plural && row.Singular == n.Singular && row.Kind == n.Kind && slices.Equal(row.Short, n.ShortNames) &&
		slices.Equal(row.Categories, n.Categories) && row.NewList().GetObjectKind().GroupVersionKind().Kind == n.ListKind
}
