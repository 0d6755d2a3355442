package apiserver

import (
	"encoding/json"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// CheckTypes says which expressions of a policy cannot work with the kinds that it matches. Upstream's checker decides, by the schemas of the OpenAPI
// documents; kinds that nothing is known of, as those of API servers behind this one, are left out.
func (s *Server) CheckTypes(policy *admissionv1.ValidatingAdmissionPolicy) []admissionv1.ExpressionWarning {
	served := s.groupVersions()
	mapper := meta.NewDefaultRESTMapper(nil)
	for gv, list := range served {
		for _, e := range list {
			mapper.AddSpecific(e.kind, gv.WithResource(e.row.Plural), gv.WithResource(e.row.Singular), meta.RESTScopeRoot)
		}
	}
	c := validating.TypeChecker{SchemaResolver: schemas(served), RestMapper: mapper}
	return c.Check(policy)
}

// schemas finds what OpenAPI says of a kind.
type schemas map[schema.GroupVersion][]served

const schemaRefs = "#/components/schemas/"

// ResolveSchema gives a kind's schema with all that it refers to in the places of the references.
func (s schemas) ResolveSchema(gvk schema.GroupVersionKind) (*spec.Schema, error) {
	for _, e := range s[gvk.GroupVersion()] {
		if e.kind != gvk {
			continue
		}
		d := newDocument(schemaRefs)
		ref, err := d.kinds(e)
		if err != nil {
			return nil, fmt.Errorf("schema of %s: %w", gvk, err)
		}
		return d.whole(ref)
	}
	return nil, fmt.Errorf("cannot resolve %v: %w", gvk, resolver.ErrSchemaNotFound)
}

// whole is a schema without references.
func (d *document) whole(ref map[string]any) (*spec.Schema, error) {
	raw, err := json.Marshal(d.schemas)
	if err != nil {
		return nil, err
	}
	var all map[string]*spec.Schema
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	root, _ := ref["$ref"].(string)
	return resolver.PopulateRefs(func(ref string) (*spec.Schema, bool) {
		found, ok := all[strings.TrimPrefix(ref, d.refs)]
		return found, ok
	}, root)
}
