package definition

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/transport"
)

// oneOf checks an enumeration that must be given.
func oneOf[T ~string](at *field.Path, v T, allowed ...T) field.ErrorList {
	switch {
	case v == "":
		return field.ErrorList{field.Required(at, "")}
	case !slices.Contains(allowed, v):
		return field.ErrorList{field.NotSupported(at, v, allowed)}
	}
	return nil
}

func requiredNames(n *apiextensions.CustomResourceDefinitionNames, at *field.Path) (errs field.ErrorList) {
	for _, f := range []struct{ name, value string }{{"plural", n.Plural}, {"singular", n.Singular}, {"kind", n.Kind}, {"listKind", n.ListKind}} {
		if f.value == "" {
			errs = append(errs, field.Required(at.Child(f.name), ""))
		}
	}
	return errs
}

// checkNames checks the names that are given.
func checkNames(n *apiextensions.CustomResourceDefinitionNames, at *field.Path) (errs field.ErrorList) {
	label := func(at *field.Path, v string) {
		if wrong := validation.IsDNS1035Label(v); v != "" && len(wrong) > 0 {
			errs = append(errs, field.Invalid(at, v, strings.Join(wrong, ",")))
		}
	}
	kind := func(at *field.Path, v string) {
		if wrong := validation.IsDNS1035Label(strings.ToLower(v)); v != "" && len(wrong) > 0 {
			errs = append(errs, field.Invalid(at, v, "may have mixed case, but should otherwise match: "+strings.Join(wrong, ",")))
		}
	}
	label(at.Child("plural"), n.Plural)
	label(at.Child("singular"), n.Singular)
	kind(at.Child("kind"), n.Kind)
	kind(at.Child("listKind"), n.ListKind)
	lists := []struct {
		at     *field.Path
		values []string
	}{{at.Child("shortNames"), n.ShortNames}, {at.Child("categories"), n.Categories}}
	for _, list := range lists {
		for i, v := range list.values {
			if wrong := validation.IsDNS1035Label(v); len(wrong) > 0 {
				errs = append(errs, field.Invalid(list.at.Index(i), v, strings.Join(wrong, ",")))
			}
		}
	}
	if n.Kind != "" && n.Kind == n.ListKind {
		errs = append(errs, field.Invalid(at.Child("listKind"), n.ListKind, "kind and listKind may not be the same"))
	}
	return errs
}

func deprecationFaults(deprecated bool, warning *string) (out []string) {
	if warning == nil {
		return nil
	}
	if !deprecated {
		return []string{"can only be set for deprecated versions"}
	}
	text := *warning
	if len(text) > 256 {
		out = append(out, "must be <= 256 characters long")
	}
	if text == "" {
		out = append(out, "must not be an empty string")
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		out = append(out, fmt.Sprintf("must only contain printable UTF-8 characters; non-printable character found at index %d", i))
	}
	if !utf8.ValidString(text) {
		out = append(out, "must only contain printable UTF-8 characters")
	}
	return out
}

var (
	columnTypes   = []string{"boolean", "date", "integer", "number", "string"}
	columnFormats = []string{"byte", "date", "date-time", "double", "float", "int32", "int64", "password"}
)

func checkColumns(columns []apiextensions.CustomResourceColumnDefinition, at *field.Path) (errs field.ErrorList) {
	for i, c := range columns {
		at := at.Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		switch must := "must be one of " + strings.Join(columnTypes, ","); {
		case c.Type == "":
			errs = append(errs, field.Required(at.Child("type"), must))
		case !slices.Contains(columnTypes, c.Type):
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, must))
		}
		if c.Format != "" && !slices.Contains(columnFormats, c.Format) {
			errs = append(errs, field.Invalid(at.Child("format"), c.Format, "must be one of "+strings.Join(columnFormats, ",")))
		}
		if c.JSONPath == "" {
			errs = append(errs, field.Required(at.Child("JSONPath"), ""))
		} else {
			errs = append(errs, dotted(c.JSONPath, at.Child("JSONPath"))...)
		}
	}
	return errs
}

// dotted checks a JSON path of the simple sort.
func dotted(path string, at *field.Path) field.ErrorList {
	if path[0] != '.' {
		return field.ErrorList{field.Invalid(at, path, "must be a simple json path starting with .")}
	}
	return nil
}

func checkSubresources(sub *apiextensions.CustomResourceSubresources, at *field.Path) (errs field.ErrorList) {
	if sub == nil || sub.Scale == nil {
		return nil
	}
	below := func(at *field.Path, path, where string, prefixes ...string) {
		if wrong := dotted(path, at); len(wrong) > 0 {
			errs = append(errs, wrong...)
		} else if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(path, p) }) {
			errs = append(errs, field.Invalid(at, path, "should be a json path under "+where))
		}
	}
	scale := sub.Scale
	spec, status := at.Child("scale.specReplicasPath"), at.Child("scale.statusReplicasPath")
	if scale.SpecReplicasPath == "" {
		errs = append(errs, field.Required(spec, ""))
	} else {
		below(spec, scale.SpecReplicasPath, ".spec", ".spec.")
	}
	if scale.StatusReplicasPath == "" {
		errs = append(errs, field.Required(status, ""))
	} else {
		below(status, scale.StatusReplicasPath, ".status", ".status.")
	}
	if p := scale.LabelSelectorPath; p != nil && *p != "" {
		below(at.Child("scale.labelSelectorPath"), *p, "either .spec or .status", ".spec.", ".status.")
	}
	return errs
}

// maxSelectable is how many fields of a version can be selected by.
const maxSelectable = 8

func (c *checker) checkSelectable(
	list []apiextensions.SelectableField, schema *apiextensions.CustomResourceValidation, version string, at *field.Path,
) (errs field.ErrorList) {
	if schema == nil || schema.OpenAPIV3Schema == nil {
		return field.ErrorList{field.Invalid(at, "", "may only be set when `version.schema.openAPIV3Schema` is not included")}
	}
	structural, err := structuralschema.NewStructural(schema.OpenAPIV3Schema)
	if err != nil {
		return field.ErrorList{field.Invalid(at, "", err.Error())}
	}
	seen := sets.New[string]()
	for i, f := range list {
		at := at.Index(i).Child("jsonPath")
		if f.JSONPath == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		path, found, err := cel.ValidFieldPath(f.JSONPath, structural, cel.WithFieldPathAllowArrayNotation(false))
		if err != nil {
			errs = append(errs, field.Invalid(at, f.JSONPath, fmt.Sprintf("is an invalid path: %v", err)))
			continue
		}
		if path.Root().String() == "metadata" {
			errs = append(errs, field.Invalid(at, f.JSONPath, "must not point to fields in metadata"))
		}
		if found == nil || found.Type != "string" && found.Type != "boolean" && found.Type != "integer" {
			errs = append(errs, field.Invalid(at, f.JSONPath,
				"must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."))
		}
		if seen.Has(path.String()) {
			errs = append(errs, field.Duplicate(at, f.JSONPath))
		}
		seen.Insert(path.String())
	}
	if seen.Len() > maxSelectable && !c.may.manyFields.Has(version) {
		errs = append(errs, field.TooMany(at, seen.Len(), maxSelectable))
	}
	return errs
}

// understood ConversionReview versions.
func understood(v string) bool { return v == "v1" || v == "v1beta1" }

func (c *checker) checkConversion(at *field.Path) field.ErrorList {
	conv := c.spec.Conversion
	if conv == nil {
		return nil
	}
	errs := oneOf(at.Child("strategy"), conv.Strategy, apiextensions.NoneConverter, apiextensions.WebhookConverter)
	client, versions := at.Child("webhookClientConfig"), at.Child("conversionReviewVersions")
	if conv.Strategy != apiextensions.WebhookConverter {
		if conv.WebhookClientConfig != nil {
			errs = append(errs, field.Forbidden(client, "should not be set when strategy is not set to Webhook"))
		}
		if len(conv.ConversionReviewVersions) > 0 {
			errs = append(errs, field.Forbidden(versions, "should not be set when strategy is not set to Webhook"))
		}
		return errs
	}
	switch cc := conv.WebhookClientConfig; {
	case cc == nil:
		errs = append(errs, field.Required(client, "required when strategy is set to Webhook"))
	case (cc.URL == nil) == (cc.Service == nil):
		errs = append(errs, field.Required(client, "exactly one of url or service is required"))
	case cc.URL != nil:
		errs = append(errs, checkURL(*cc.URL, client.Child("url"))...)
	default:
		errs = append(errs, checkService(cc.Service, client.Child("service"))...)
	}
	if hasBadBundle(conv) && !c.may.badBundle {
		errs = append(errs, field.Invalid(client.Child("caBundle"), conv.WebhookClientConfig.CABundle, bundleFault(conv.WebhookClientConfig.CABundle).Error()))
	}
	return append(errs, c.checkReviews(conv.ConversionReviewVersions, versions)...)
}

func (c *checker) checkReviews(versions []string, at *field.Path) (errs field.ErrorList) {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	seen := sets.New[string]()
	for i, v := range versions {
		if seen.Has(v) {
			errs = append(errs, field.Invalid(at.Index(i), v, "duplicate version"))
			continue
		}
		seen.Insert(v)
		for _, wrong := range validation.IsDNS1035Label(v) {
			errs = append(errs, field.Invalid(at.Index(i), v, wrong))
		}
	}
	if !c.may.unknownReviews && !slices.ContainsFunc(versions, understood) {
		errs = append(errs, field.Invalid(at, versions, "must include at least one of v1, v1beta1"))
	}
	return errs
}

func bundleFault(pem []byte) error {
	_, err := transport.TLSConfigFor(&transport.Config{TLS: transport.TLSConfig{CAData: pem}})
	return err
}

func hasBadBundle(c *apiextensions.CustomResourceConversion) bool {
	return c != nil && c.WebhookClientConfig != nil && len(c.WebhookClientConfig.CABundle) > 0 && bundleFault(c.WebhookClientConfig.CABundle) != nil
}

func checkURL(text string, at *field.Path) (errs field.ErrorList) {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(text)
	if err != nil {
		return field.ErrorList{field.Required(at, "url must be a valid URL: "+err.Error()+form)}
	}
	if u.Scheme != "https" {
		errs = append(errs, field.Invalid(at, u.Scheme, "'https' is the only allowed URL scheme"+form))
	}
	if u.Host == "" {
		errs = append(errs, field.Invalid(at, u.Host, "host must be specified"+form))
	}
	for _, part := range []struct{ value, wrong string }{
		{u.User.String(), "user information is not permitted in the URL"},
		{u.Fragment, "fragments are not permitted in the URL"},
		{u.RawQuery, "query parameters are not permitted in the URL"},
	} {
		if part.value != "" {
			errs = append(errs, field.Invalid(at, part.value, part.wrong))
		}
	}
	return errs
}

func checkService(s *apiextensions.ServiceReference, at *field.Path) (errs field.ErrorList) {
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	if s.Namespace == "" {
		errs = append(errs, field.Required(at.Child("namespace"), ""))
	}
	if wrong := validation.IsValidPortNum(int(s.Port)); wrong != nil {
		errs = append(errs, field.Invalid(at.Child("port"), s.Port, "port is not valid: "+strings.Join(wrong, ", ")))
	}
	if s.Path == nil || *s.Path == "" || *s.Path == "/" {
		return errs
	}
	path := *s.Path
	if !strings.HasPrefix(path, "/") {
		errs = append(errs, field.Invalid(at.Child("path"), path, "must start with a '/'"))
	}
	for i, step := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/") {
		if step == "" {
			errs = append(errs, field.Invalid(at.Child("path"), path, fmt.Sprintf("segment[%d] may not be empty", i)))
			continue
		}
		for _, wrong := range validation.IsDNS1123Subdomain(step) {
			errs = append(errs, field.Invalid(at.Child("path"), path, fmt.Sprintf("segment[%d]: %v", i, wrong)))
		}
	}
	return errs
}
