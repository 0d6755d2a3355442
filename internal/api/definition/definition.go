// Package definition says whether a CustomResourceDefinition is a good one. Package api puts it into the definition's row; nobody else calls it.
//
// What the published libraries judge (structural schemas, defaults, CEL rules) they judge; the rest is here, by upstream's rules and with its
// messages, because authors of definitions search for those. It works on the internal form, in which what all versions share stands above them:
// errors name spec.validation, as upstream's do. Its invariant: an update is never refused for what the stored definition already got wrong.
package definition

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CRD is the internal form.
type CRD = apiextensions.CustomResourceDefinition

// leniency is what the stored definition already does and an update may therefore go on doing.
type leniency struct {
	noSchema, nonStructural, oddTypes, unprunedDefaults, wideSets, looseKeys, unknownReviews, badBundle bool

	rules, messages sets.Set[string] // CEL expressions
	unchanged       sets.Set[string] // versions whose schema stays
	manyFields      sets.Set[string] // versions with too many selectable fields
}

// checker walks one definition.
type checker struct {
	ctx  context.Context
	spec *apiextensions.CustomResourceDefinitionSpec
	may  leniency
}

// Validate judges a new definition. Generic metadata is the registry's matter, the name's meaning is checked here.
func Validate(ctx context.Context, crd *CRD) field.ErrorList {
	var errs field.ErrorList
	if want := crd.Spec.Names.Plural + "." + crd.Spec.Group; crd.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), crd.Name, `must be spec.names.plural+"."+spec.group`))
	}
	c := &checker{ctx: ctx, spec: &crd.Spec, may: leniency{badBundle: true}}
	errs = append(errs, c.checkSpec(field.NewPath("spec"))...)
	errs = append(errs, checkStatus(crd)...)
	errs = append(errs, checkApproval(crd, nil)...)
	return append(errs, checkPreserve(crd, nil)...)
}

// ValidateUpdate judges a definition that takes the place of old.
func ValidateUpdate(ctx context.Context, crd, old *CRD) field.ErrorList {
	c := &checker{ctx: ctx, spec: &crd.Spec, may: leniencyOf(crd, old)}
	at := field.NewPath("spec")
	errs := c.checkSpec(at)
	if apiextensions.IsCRDConditionTrue(old, apiextensions.Established) {
		errs = append(errs, apivalidation.ValidateImmutableField(crd.Spec.Scope, old.Spec.Scope, at.Child("scope"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(crd.Spec.Names.Kind, old.Spec.Names.Kind, at.Child("names", "kind"))...)
	}
	errs = append(errs, apivalidation.ValidateImmutableField(crd.Spec.Group, old.Spec.Group, at.Child("group"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(crd.Spec.Names.Plural, old.Spec.Names.Plural, at.Child("names", "plural"))...)
	errs = append(errs, checkStatus(crd)...)
	errs = append(errs, checkApproval(crd, old)...)
	return append(errs, checkPreserve(crd, old)...)
}

// ValidateStatus judges an update of the status alone.
func ValidateStatus(_ context.Context, crd, _ *CRD) field.ErrorList {
	return checkNames(&crd.Status.AcceptedNames, field.NewPath("status", "acceptedNames"))
}

func (c *checker) checkSpec(at *field.Path) field.ErrorList {
	spec := c.spec
	var errs field.ErrorList
	switch wrong := validation.IsDNS1123Subdomain(spec.Group); {
	case spec.Group == "":
		errs = append(errs, field.Required(at.Child("group"), ""))
	case len(wrong) > 0:
		errs = append(errs, field.Invalid(at.Child("group"), spec.Group, strings.Join(wrong, ",")))
	case !strings.Contains(spec.Group, "."):
		errs = append(errs, field.Invalid(at.Child("group"), spec.Group, "should be a domain with at least one dot"))
	}
	errs = append(errs, oneOf(at.Child("scope"), spec.Scope, apiextensions.ClusterScoped, apiextensions.NamespaceScoped)...)
	errs = append(errs, c.checkSchemasGiven(at)...)
	errs = append(errs, c.checkVersions(at.Child("versions"))...)
	errs = append(errs, requiredNames(&spec.Names, at.Child("names"))...)
	errs = append(errs, checkNames(&spec.Names, at.Child("names"))...)

	// What all versions share.
	unchanged := spec.Version != "" && c.may.unchanged.Has(spec.Version) || len(spec.Versions) > 0 && c.may.unchanged.Has(spec.Versions[0].Name)
	errs = append(errs, c.checkSchema(spec.Validation, hasStatus(spec.Subresources), unchanged, at.Child("validation"))...)
	errs = append(errs, checkSubresources(spec.Subresources, at.Child("subresources"))...)
	errs = append(errs, checkColumns(spec.AdditionalPrinterColumns, at.Child("additionalPrinterColumns"))...)
	if len(spec.SelectableFields) > 0 {
		errs = append(errs, c.checkSelectable(spec.SelectableFields, spec.Validation, "", at.Child("selectableFields"))...)
	}
	if spec.Conversion != nil && spec.Conversion.Strategy != apiextensions.NoneConverter && !c.prunes() {
		errs = append(errs, field.Invalid(at.Child("conversion", "strategy"), spec.Conversion.Strategy, "must be None if spec.preserveUnknownFields is true"))
	}
	return append(errs, c.checkConversion(at.Child("conversion"))...)
}

// prunes says that fields the schema does not know are dropped.
func (c *checker) prunes() bool {
	return c.spec.PreserveUnknownFields == nil || !*c.spec.PreserveUnknownFields
}

func (c *checker) checkSchemasGiven(at *field.Path) (errs field.ErrorList) {
	if v := c.spec.Validation; v != nil && v.OpenAPIV3Schema != nil {
		return nil
	}
	for i, v := range c.spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			continue
		}
		path := at.Child("versions").Index(i).Child("schema", "openAPIV3Schema")
		switch {
		case !c.may.noSchema:
			errs = append(errs, field.Required(path, ""))
		case c.prunes() && v.Served:
			errs = append(errs, field.Required(path, "because otherwise all fields are pruned"))
		}
	}
	return errs
}

func (c *checker) checkVersions(at *field.Path) (errs field.ErrorList) {
	seen, storage, unique := sets.New[string](), 0, true
	for i := range c.spec.Versions {
		v := &c.spec.Versions[i]
		if v.Storage {
			storage++
		}
		unique = unique && !seen.Has(v.Name)
		seen.Insert(v.Name)
		if wrong := validation.IsDNS1035Label(v.Name); len(wrong) > 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("name"), v.Name, strings.Join(wrong, ",")))
		}
		errs = append(errs, c.checkVersion(v, at.Index(i))...)
	}
	if !unique {
		errs = append(errs, field.Invalid(at, c.spec.Versions, "must contain unique version names"))
	}
	if storage != 1 {
		errs = append(errs, field.Invalid(at, c.spec.Versions, "must have exactly one version marked as storage version"))
	}
	return errs
}

func (c *checker) checkVersion(v *apiextensions.CustomResourceDefinitionVersion, at *field.Path) (errs field.ErrorList) {
	for _, wrong := range deprecationFaults(v.Deprecated, v.DeprecationWarning) {
		errs = append(errs, field.Invalid(at.Child("deprecationWarning"), v.DeprecationWarning, wrong))
	}
	sub := c.spec.Subresources
	if sub == nil {
		sub = v.Subresources
	}
	errs = append(errs, c.checkSchema(v.Schema, hasStatus(sub), c.may.unchanged.Has(v.Name), at.Child("schema"))...)
	errs = append(errs, checkSubresources(v.Subresources, at.Child("subresources"))...)
	errs = append(errs, checkColumns(v.AdditionalPrinterColumns, at.Child("additionalPrinterColumns"))...)
	if len(v.SelectableFields) > 0 {
		schema := v.Schema
		if schema == nil {
			schema = c.spec.Validation
		}
		errs = append(errs, c.checkSelectable(v.SelectableFields, schema, v.Name, at.Child("selectableFields"))...)
	}
	return errs
}

func hasStatus(sub *apiextensions.CustomResourceSubresources) bool {
	return sub != nil && sub.Status != nil
}

func checkStatus(crd *CRD) field.ErrorList {
	errs := checkNames(&crd.Status.AcceptedNames, field.NewPath("status", "acceptedNames"))
	at, stored := field.NewPath("status", "storedVersions"), crd.Status.StoredVersions
	if len(stored) == 0 {
		return append(errs, field.Invalid(at, stored, "must have at least one stored version"))
	}
	named := sets.New[string]()
	for _, v := range crd.Spec.Versions {
		named.Insert(v.Name)
		if v.Storage && !slices.Contains(stored, v.Name) {
			errs = append(errs, field.Invalid(at, stored, "must have the storage version "+v.Name))
		}
	}
	for i, v := range stored {
		if !named.Has(v) {
			errs = append(errs, field.Invalid(at.Index(i), v, fmt.Sprintf("missing from spec.versions; %[1]s was previously a storage version, and must remain "+
				"in spec.versions until a storage migration ensures no data remains persisted in %[1]s and removes %[1]s from status.storedVersions", v)))
		}
	}
	return errs
}

// checkApproval keeps community groups for what has been reviewed (KEP-1111). An annotation that stays as it was is left alone.
func checkApproval(crd, old *CRD) field.ErrorList {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return nil
	}
	state, reason := apihelpers.GetAPIApprovalState(crd.Annotations)
	if old != nil {
		if was, _ := apihelpers.GetAPIApprovalState(old.Annotations); was == state {
			return nil
		}
	}
	const key = apiextensionsv1.KubeAPIApprovedAnnotation
	at := field.NewPath("metadata", "annotations").Key(key)
	switch state {
	case apihelpers.APIApproved, apihelpers.APIApprovalBypassed:
		return nil
	case apihelpers.APIApprovalMissing:
		return field.ErrorList{field.Required(at, reason)}
	}
	return field.ErrorList{field.Invalid(at, crd.Annotations[key], reason)}
}

func checkPreserve(crd, old *CRD) field.ErrorList {
	preserves := func(c *CRD) bool {
		return c != nil && c.Spec.PreserveUnknownFields != nil && *c.Spec.PreserveUnknownFields
	}
	if preserves(old) || !preserves(crd) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("spec", "preserveUnknownFields"), crd.Spec.PreserveUnknownFields,
		"cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead")}
}

// leniencyOf looks for what is wrong with the stored definition.
func leniencyOf(crd, old *CRD) leniency {
	established := apiextensions.IsCRDConditionTrue(old, apiextensions.Established)
	may := leniency{
		badBundle: !established || hasBadBundle(old.Spec.Conversion), rules: sets.New[string](), messages: sets.New[string](),
		unchanged: sets.New[string](), manyFields: sets.New[string](),
	}
	if c := old.Spec.Conversion; c != nil && len(c.ConversionReviewVersions) > 0 {
		may.unknownReviews = !slices.ContainsFunc(c.ConversionReviewVersions, understood)
	}
	schemas := 0
	for _, s := range schemasOf(&old.Spec) {
		schemas++
		may.learn(s)
	}
	may.noSchema = schemas == 0 || old.Spec.Validation == nil && schemas < len(old.Spec.Versions)
	if len(old.Spec.SelectableFields) > maxSelectable && apiequality.Semantic.DeepEqual(crd.Spec.SelectableFields, old.Spec.SelectableFields) {
		may.manyFields.Insert("")
	}
	for _, v := range crd.Spec.Versions {
		is, err := apiextensions.GetSchemaForVersion(crd, v.Name)
		was, missing := apiextensions.GetSchemaForVersion(old, v.Name)
		if err == nil && missing == nil && apiequality.Semantic.DeepEqual(is, was) {
			may.unchanged.Insert(v.Name)
		}
		for _, o := range old.Spec.Versions {
			if o.Name == v.Name && len(o.SelectableFields) > maxSelectable && apiequality.Semantic.DeepEqual(o.SelectableFields, v.SelectableFields) {
				may.manyFields.Insert(v.Name)
			}
		}
	}
	return may
}

// schemasOf lists all schemas of a definition.
func schemasOf(spec *apiextensions.CustomResourceDefinitionSpec) (out []*apiextensions.JSONSchemaProps) {
	if spec.Validation != nil && spec.Validation.OpenAPIV3Schema != nil {
		out = append(out, spec.Validation.OpenAPIV3Schema)
	}
	for _, v := range spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			out = append(out, v.Schema.OpenAPIV3Schema)
		}
	}
	return out
}

// learn adds a stored schema's faults and expressions.
func (may *leniency) learn(s *apiextensions.JSONSchemaProps) {
	if structural, err := structuralschema.NewStructural(s); err != nil || len(structuralschema.ValidateStructural(nil, structural)) > 0 {
		may.nonStructural = true
	} else if hasUnprunedDefaults(s, structural) {
		may.unprunedDefaults = true
	}
	Each(s, func(s *apiextensions.JSONSchemaProps) {
		may.oddTypes = may.oddTypes || s.Type != "" && !slices.Contains(types, s.Type)
		may.wideSets = may.wideSets || len(wideSet(s, nil)) > 0
		may.looseKeys = may.looseKeys || len(looseKeys(s, nil)) > 0
		for _, r := range s.XValidations {
			may.rules.Insert(r.Rule)
			if r.MessageExpression != "" {
				may.messages.Insert(r.MessageExpression)
			}
		}
	})
}
