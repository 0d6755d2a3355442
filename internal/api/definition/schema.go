package definition

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	apiservervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type props = apiextensions.JSONSchemaProps

var types = []string{"array", "boolean", "integer", "number", "object", "string"}

// What may stand beside properties where the status has a subresource: its schema is also used by itself, and nothing must get lost by that.
var besideStatus = []string{"Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength", "MinLength",
	"Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties", "ExternalDocs", "Example", "XPreserveUnknownFields",
	"XValidations"}

// checkSchema judges one schema: its form, its defaults, its rules, and whether a validator can be made of it.
func (c *checker) checkSchema(v *apiextensions.CustomResourceValidation, status, unchanged bool, at *field.Path) field.ErrorList {
	if v == nil {
		return nil
	}
	root, path := v.OpenAPIV3Schema, at.Child("openAPIV3Schema")
	var errs field.ErrorList
	if root != nil {
		if status {
			errs = append(errs, checkRoot(root, at)...)
		}
		if root.Nullable {
			errs = append(errs, field.Forbidden(at.Child("openAPIV3Schema.nullable"), "nullable cannot be true at the root"))
		}
		structural, late := c.checkStructure(root, path)
		errs = append(errs, structural...)
		w := &walk{checker: c, unchanged: unchanged}
		var rules *scope
		if c.needsStructure() && len(structural) == 0 && late == nil {
			rules = rootScope(root)
		}
		form, more := w.visit(node{schema: root, at: path, root: true, defaults: true, rules: rules})
		errs = append(append(errs, form...), more...)
		if len(errs) == 0 && late != nil {
			errs = append(errs, late)
		}
		errs = append(errs, w.costs.check(path)...)
	}
	if len(errs) > 0 {
		return errs
	}
	if _, _, err := apiservervalidation.NewSchemaValidator(root); err != nil {
		return field.ErrorList{field.Invalid(at, "", fmt.Sprintf("error building validator: %v", err))}
	}
	return nil
}

func checkRoot(root *props, at *field.Path) field.ErrorList {
	v := reflect.ValueOf(root).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		switch {
		case v.Field(i).IsZero():
		case name == "Type" && root.Type != "object":
			return field.ErrorList{field.Invalid(at.Child("openAPIV3Schema.type"), root.Type,
				`only "object" is allowed as the type at the root of the schema if the status subresource is enabled`)}
		case !slices.Contains(besideStatus, name):
			return field.ErrorList{field.Invalid(at.Child("openAPIV3Schema"), *root,
				fmt.Sprintf("only %v fields are allowed at the root of the schema if the status subresource is enabled", besideStatus))}
		}
	}
	return nil
}

// needsStructure says whether the schema must be structural: to prune, to default, and for what Kubernetes adds to OpenAPI.
func (c *checker) needsStructure() bool {
	if c.prunes() || !c.may.nonStructural {
		return true
	}
	needs := false
	for _, s := range schemasOf(c.spec) {
		Each(s, func(s *props) {
			needs = needs || s.Default != nil || s.XEmbeddedResource || s.XPreserveUnknownFields != nil || s.XIntOrString ||
				len(s.XListMapKeys) > 0 || s.XListType != nil || len(s.XValidations) > 0
		})
	}
	return needs
}

// checkStructure lets the library judge. late is an error that others may explain better.
func (c *checker) checkStructure(root *props, at *field.Path) (errs field.ErrorList, late *field.Error) {
	if !c.needsStructure() {
		return nil, nil
	}
	s, err := structuralschema.NewStructural(root)
	if err != nil {
		return nil, field.Invalid(at, "", err.Error())
	}
	if errs := structuralschema.ValidateStructural(at, s); len(errs) > 0 {
		return errs, nil
	}
	errs, err = defaulting.ValidateDefaults(c.ctx, at, s, true, !c.may.unprunedDefaults)
	if err != nil {
		return field.ErrorList{field.Invalid(at, "", err.Error())}, nil
	}
	return errs, nil
}

func hasUnprunedDefaults(s *props, structural *structuralschema.Structural) bool {
	has := false
	Each(s, func(s *props) { has = has || s.Default != nil })
	if !has {
		return false
	}
	pruned := structural.DeepCopy()
	return defaulting.PruneDefaults(pruned) == nil && !reflect.DeepEqual(structural, pruned)
}

// Each calls f with a schema and all below it.
func Each(s *props, f func(*props)) {
	if s == nil {
		return
	}
	f(s)
	list := func(l []props) {
		for i := range l {
			Each(&l[i], f)
		}
	}
	named := func(m map[string]props) {
		for _, s := range m {
			Each(&s, f)
		}
	}
	if s.Items != nil {
		Each(s.Items.Schema, f)
		list(s.Items.JSONSchemas)
	}
	list(s.AllOf)
	list(s.AnyOf)
	list(s.OneOf)
	Each(s.Not, f)
	named(s.Properties)
	if s.AdditionalProperties != nil {
		Each(s.AdditionalProperties.Schema, f)
	}
	named(s.PatternProperties)
	if s.AdditionalItems != nil {
		Each(s.AdditionalItems.Schema, f)
	}
	named(s.Definitions)
	for _, d := range s.Dependencies {
		Each(d.Schema, f)
	}
}

// walk goes through one schema.
type walk struct {
	*checker
	unchanged bool // single rules may cost what they like
	costs     costs
}

// node is a place in the schema, with what holds there.
type node struct {
	schema       *props
	at           *field.Path
	root         bool
	defaults     bool
	whyNot       string      // defaults are forbidden
	meta         bool        // within a resource's metadata, kind or apiVersion
	uncorrelated *field.Path // what above keeps old and new values from being told apart
	rules        *scope      // nil where rules are not looked at
}

func (n node) child(s *props, at *field.Path, rules *scope) node {
	n.schema, n.at, n.rules, n.root = s, at, rules, false
	return n
}

func (n node) without(why string) node {
	n.defaults, n.whyNot = false, why
	return n
}

func (n node) blurred() node {
	if n.uncorrelated == nil {
		n.uncorrelated = n.at
	}
	return n
}

// visit returns what is wrong with the form, and with the rules: those are looked at where the form is good.
func (w *walk) visit(n node) (form, rules field.ErrorList) {
	s := n.schema
	if s == nil {
		return nil, nil
	}
	form = append(form, w.checkForm(n)...)
	visit := func(n node) {
		f, r := w.visit(n)
		form, rules = append(form, f...), append(rules, r...)
	}
	if a := s.AdditionalProperties; a != nil {
		below := n
		if n.meta {
			below = n.without("inside additionalProperties applying to object metadata")
		}
		visit(below.child(a.Schema, n.at.Child("additionalProperties"), n.rules.values(a.Schema)))
	}
	for _, name := range sorted(s.Properties) {
		p, below := s.Properties[name], n
		if !cel.MapIsCorrelatable(s.XMapType) {
			below = below.blurred()
		}
		if (n.root || s.XEmbeddedResource) && (name == "metadata" || name == "kind" || name == "apiVersion") {
			below.meta = true
			if n.root {
				below = below.without("in top-level " + name)
			}
		}
		visit(below.child(&p, n.at.Child("properties").Key(name), n.rules.property(&p, name)))
	}
	visit(n.child(s.Not, n.at.Child("not"), nil))
	for _, j := range []struct {
		name string
		list []props
	}{{"allOf", s.AllOf}, {"oneOf", s.OneOf}, {"anyOf", s.AnyOf}} {
		for i := range j.list {
			visit(n.child(&j.list[i], n.at.Child(j.name).Index(i), nil))
		}
	}
	if s.Items != nil {
		below := n
		if s.XListType == nil || *s.XListType != "map" {
			below = n.blurred()
		}
		visit(below.child(s.Items.Schema, n.at.Child("items"), n.rules.items(s.Items.Schema)))
	}
	form = append(form, checkRules(s, n.at)...)
	if len(form) == 0 && n.rules != nil && len(s.XValidations) > 0 {
		rules = append(rules, w.compile(n)...)
	}
	return form, rules
}

func sorted(m map[string]props) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// checkForm looks at one place alone.
func (w *walk) checkForm(n node) (errs field.ErrorList) {
	s, at := n.schema, n.at
	forbid := func(is bool, name, why string) {
		if is {
			errs = append(errs, field.Forbidden(at.Child(name), why))
		}
	}
	if s.Type != "" && !slices.Contains(types, s.Type) && !w.may.oddTypes {
		errs = append(errs, field.NotSupported(at.Child("type"), s.Type, []string{"array", "boolean", "integer", "number", "object", "string"}))
	}
	forbid(s.Default != nil && !n.defaults, "default", strings.TrimSpace("must not be set "+n.whyNot))
	forbid(s.ID != "", "id", "id is not supported")
	forbid(s.AdditionalItems != nil, "additionalItems", "additionalItems is not supported")
	forbid(len(s.PatternProperties) > 0, "patternProperties", "patternProperties is not supported")
	forbid(len(s.Definitions) > 0, "definitions", "definitions is not supported")
	forbid(s.Dependencies != nil, "dependencies", "dependencies is not supported")
	forbid(s.Ref != nil, "$ref", "$ref is not supported")
	forbid(s.Type == "null", "type", "type cannot be set to null, use nullable as an alternative")
	forbid(s.Items != nil && len(s.Items.JSONSchemas) > 0, "items", "items must be a schema object and not an array")
	forbid(n.meta && s.XEmbeddedResource, "x-kubernetes-embedded-resource", "must not be used inside of resource meta")
	forbid(s.UniqueItems, "uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic")
	if a := s.AdditionalProperties; a != nil {
		forbid(len(s.Properties) > 0 && (!a.Allows || a.Schema != nil), "additionalProperties", "additionalProperties and properties are mutual exclusive")
	}
	if p := s.XPreserveUnknownFields; p != nil && !*p {
		errs = append(errs, field.Invalid(at.Child("x-kubernetes-preserve-unknown-fields"), *p, "must be true or undefined"))
	}
	errs = append(errs, markedAs(s.XMapType, "x-kubernetes-map-type", "object", s.Type, at, "atomic", "granular")...)
	errs = append(errs, markedAs(s.XListType, "x-kubernetes-list-type", "array", s.Type, at, "atomic", "set", "map")...)
	if s.Type == "array" && !w.may.wideSets {
		errs = append(errs, wideSet(s, at)...)
	}
	errs = append(errs, checkMapList(s, at)...)
	if !w.may.looseKeys {
		errs = append(errs, looseKeys(s, at)...)
	}
	return errs
}

// markedAs checks a marker that says how a value merges.
func markedAs(marker *string, name, wants, has string, at *field.Path, allowed ...string) (errs field.ErrorList) {
	if marker == nil {
		return nil
	}
	must := fmt.Sprintf("must be %s if %s is specified", wants, name)
	switch has {
	case wants:
	case "":
		errs = append(errs, field.Required(at.Child("type"), must))
	default:
		errs = append(errs, field.Invalid(at.Child("type"), has, must))
	}
	if !slices.Contains(allowed, *marker) {
		errs = append(errs, field.NotSupported(at.Child(name), *marker, allowed))
	}
	return errs
}

// wideSet finds a set whose items are not compared as a whole.
func wideSet(s *props, at *field.Path) field.ErrorList {
	if s.XListType == nil || *s.XListType != "set" || s.Items == nil || s.Items.Schema == nil {
		return nil
	}
	const must = "must be atomic as item of a list with x-kubernetes-list-type=set"
	item := s.Items.Schema
	switch {
	case item.Type == "array" && item.XListType != nil && *item.XListType != "atomic":
		return field.ErrorList{field.Invalid(at.Child("items", "x-kubernetes-list-type"), item.XListType, must)}
	case item.Type == "object" && (item.XMapType == nil || *item.XMapType != "atomic"):
		return field.ErrorList{field.Invalid(at.Child("items", "x-kubernetes-map-type"), item.XListType, must)}
	}
	return nil
}

// checkMapList checks a list whose items have keys.
func checkMapList(s *props, at *field.Path) (errs field.ErrorList) {
	isMap := s.XListType != nil && *s.XListType == "map"
	if len(s.XListMapKeys) > 0 && !isMap {
		const must = "must be map if x-kubernetes-list-map-keys is non-empty"
		if s.XListType == nil {
			return field.ErrorList{field.Required(at.Child("x-kubernetes-list-type"), must)}
		}
		return field.ErrorList{field.Invalid(at.Child("x-kubernetes-list-type"), *s.XListType, must)}
	}
	if !isMap {
		return nil
	}
	keys := at.Child("x-kubernetes-list-map-keys")
	if len(s.XListMapKeys) == 0 {
		errs = append(errs, field.Required(keys, "must not be empty if x-kubernetes-list-type is map"))
	}
	switch {
	case s.Items == nil:
		return append(errs, field.Required(at.Child("items"), "must have a schema if x-kubernetes-list-type is map"))
	case s.Items.Schema == nil:
		return append(errs, field.Invalid(at.Child("items"), s.Items, "must only have a single schema if x-kubernetes-list-type is map"))
	case s.Items.Schema.Type != "object":
		return append(errs, field.Invalid(at.Child("items", "type"), s.Items.Schema.Type, "must be object if parent array's x-kubernetes-list-type is map"))
	}
	for i, k := range s.XListMapKeys {
		p, known := s.Items.Schema.Properties[k]
		switch {
		case !known:
			errs = append(errs, field.Invalid(keys, s.XListMapKeys, "entries must all be names of item properties"))
		case p.Type == "array" || p.Type == "object":
			errs = append(errs, field.Invalid(at.Child("items", "properties").Key(k).Child("type"), s.Items.Schema.Type,
				"must be a scalar type if parent array's x-kubernetes-list-type is map"))
		}
		if slices.Contains(s.XListMapKeys[:i], k) {
			errs = append(errs, field.Invalid(keys, s.XListMapKeys, "must not contain duplicate entries"))
		}
	}
	return errs
}

// looseKeys finds items of sets and maps that could be null or lack their key.
func looseKeys(s *props, at *field.Path) (errs field.ErrorList) {
	if s.Items == nil || s.Items.Schema == nil || s.XListType == nil || *s.XListType != "set" && *s.XListType != "map" {
		return nil
	}
	item := s.Items.Schema
	if item.Nullable {
		errs = append(errs, field.Forbidden(at.Child("items", "nullable"), "cannot be nullable when x-kubernetes-list-type is "+*s.XListType))
	}
	if *s.XListType != "map" {
		return errs
	}
	for _, k := range s.XListMapKeys {
		p, known := item.Properties[k]
		if !known {
			continue
		}
		at := at.Child("items", "properties").Key(k)
		if p.Default == nil && !slices.Contains(item.Required, k) {
			errs = append(errs, field.Required(at.Child("default"),
				"this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"))
		}
		if p.Nullable {
			errs = append(errs, field.Forbidden(at.Child("nullable"), "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"))
		}
	}
	return errs
}
