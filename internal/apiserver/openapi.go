package apiserver

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"skiff.dev/skiff/internal/version"
)

// OpenAPI v3 is made of the Go types when somebody asks: their fields, their documentation, their patch strategies. Nothing of it is kept.

func (s *Server) openAPIIndex(w http.ResponseWriter, r *http.Request) {
	paths := map[string]any{}
	for gv, list := range s.groupVersions() {
		path := "apis/" + gv.String()
		if gv.Group == "" {
			path = "api/" + gv.Version
		}
		paths[path] = map[string]string{"serverRelativeURL": "/openapi/v3/" + path + "?hash=" + url.QueryEscape(version.Skiff+definedBy(list))}
	}
	for _, remote := range s.behind.Remotes() {
		paths[remote.Path()] = map[string]string{"serverRelativeURL": "/openapi/v3/" + remote.Path()}
	}
	body, err := json.Marshal(map[string]any{"paths": paths})
	writeTagged(w, r, mediaJSON, body, err)
}

func (s *Server) openAPIDocument(w http.ResponseWriter, r *http.Request) {
	gv := schema.GroupVersion{Group: r.PathValue("group"), Version: r.PathValue("version")}
	if remote := s.behind.Remotes()[gv]; remote != nil {
		u, _ := request.UserFrom(r.Context())
		remote.Pass(w, r, u, false, writeError)
		return
	}
	list, found := s.groupVersions()[gv]
	if !found {
		writeError(w, r, notFound())
		return
	}
	d := newDocument(schemaRefs)
	for _, e := range list {
		if err := d.resource(e); err != nil {
			s.log.Warn("a definition that is about to go has no schema", "kind", e.kind, "err", err)
		}
	}
	body, err := json.Marshal(map[string]any{
		"openapi":    "3.0.0",
		"info":       map[string]string{"title": "Kubernetes", "version": version.Kubernetes},
		"paths":      d.paths,
		"components": map[string]any{"schemas": d.schemas},
	})
	writeTagged(w, r, mediaJSON, body, err)
}

// openAPIv2 is for clients that have not learnt v3 yet; kubectl falls back to it for kinds it does not find.
func (s *Server) openAPIv2(w http.ResponseWriter, r *http.Request) {
	d := newDocument("#/definitions/")
	for _, list := range s.groupVersions() {
		for _, e := range list {
			if err := d.resource(e); err != nil {
				s.log.Warn("a definition that is about to go has no schema", "kind", e.kind, "err", err)
			}
		}
	}
	s.addRemote(r.Context(), d)
	body, err := json.Marshal(map[string]any{
		"swagger": "2.0", "info": map[string]string{"title": "Kubernetes", "version": version.Kubernetes}, "paths": d.paths, "definitions": d.schemas,
	})
	if err != nil || !strings.Contains(r.Header.Get("Accept"), "proto-openapi.spec.v2") {
		writeTagged(w, r, mediaJSON, body, err)
		return
	}
	parsed, err := openapi_v2.ParseDocument(body)
	if err == nil {
		body, err = proto.Marshal(parsed)
	}
	writeTagged(w, r, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", body, err)
}

// addRemote adds what API servers behind this one say of the groups that they serve. What is known here stays.
func (s *Server) addRemote(ctx context.Context, d *document) {
	for _, remote := range s.behind.Remotes() {
		raw, err := remote.OpenAPIv2(ctx)
		var doc struct{ Paths, Definitions map[string]any }
		if err == nil {
			err = json.Unmarshal(raw, &doc)
		}
		if err != nil {
			s.log.Info("an API server behind this one gives no schema", "group", remote.Path(), "err", err)
			continue
		}
		for path, v := range doc.Paths {
			if strings.HasPrefix(path, "/"+remote.Path()+"/") {
				d.paths[path] = v
			}
		}
		for name, v := range doc.Definitions {
			if d.schemas[name] == nil {
				d.schemas[name] = v
			}
		}
	}
}

// document is an OpenAPI document in the making. refs is where its schemas are, which tells v2 from v3.
type document struct {
	refs           string
	schemas, paths map[string]any
}

func newDocument(refs string) *document {
	return &document{refs: refs, schemas: map[string]any{}, paths: map[string]any{}}
}

func (d *document) v2() bool { return d.refs == "#/definitions/" }

// resource adds a resource's schemas and paths.
func (d *document) resource(e served) error {
	ref, err := d.kinds(e)
	if err != nil {
		return err
	}
	d.schema(reflect.TypeFor[metav1.DeleteOptions]())
	d.schema(reflect.TypeFor[metav1.Status]())
	base := "/apis/" + e.kind.GroupVersion().String()
	if e.kind.Group == "" {
		base = "/api/" + e.kind.Version
	}
	if e.row.Namespaced {
		base += "/namespaces/{namespace}"
	}
	base += "/" + e.row.Plural
	collection, item := map[string]any{}, map[string]any{}
	for _, verb := range e.row.Verbs {
		at, method := item, map[string]string{"get": "get", "update": "put", "patch": "patch", "delete": "delete"}[verb]
		switch verb {
		case "create":
			at, method = collection, "post"
		case "list":
			at, method = collection, "get"
		case "deletecollection":
			at, method = collection, "delete"
		case "watch":
			continue
		}
		at[method] = d.operation(verb, e.kind, ref)
	}
	if len(collection) > 0 {
		d.paths[base] = collection
	}
	if len(item) > 0 {
		d.paths[base+"/{name}"] = item
	}
	return nil
}

// kinds adds the schemas of a resource's kind and list, and gives the reference to its kind.
func (d *document) kinds(e served) (ref map[string]any, err error) {
	if e.row.Custom != nil {
		d.schema(reflect.TypeFor[metav1.ObjectMeta]())
		d.schema(reflect.TypeFor[metav1.ListMeta]())
		return d.custom(e.row, e.kind)
	}
	obj := e.row.New()
	var list any
	if e.row.NewList != nil {
		list = e.row.NewList()
	}
	for i := range e.row.Also {
		if also := &e.row.Also[i]; also.Group == e.kind.Group && also.Version == e.kind.Version {
			obj, list = also.New(), also.NewList()
		}
	}
	ref = d.schema(reflect.TypeOf(obj).Elem())
	d.kind(reflect.TypeOf(obj).Elem(), e.kind)
	if list != nil {
		d.schema(reflect.TypeOf(list).Elem())
		d.kind(reflect.TypeOf(list).Elem(), e.kind.GroupVersion().WithKind(e.kind.Kind+"List"))
	}
	return ref, nil
}

// kind marks a schema as that of a kind.
func (d *document) kind(t reflect.Type, gvk schema.GroupVersionKind) {
	name := modelName(t)
	if s, ok := d.schemas[name].(map[string]any); ok {
		s["x-kubernetes-group-version-kind"] = []any{map[string]string{"group": gvk.Group, "kind": gvk.Kind, "version": gvk.Version}}
	}
}

func (d *document) operation(verb string, gvk schema.GroupVersionKind, body map[string]any) map[string]any {
	parameters := map[string][]string{
		"create": {"dryRun", "fieldManager", "fieldValidation", "pretty"}, "update": {"dryRun", "fieldManager", "fieldValidation", "pretty"},
		"patch": {"dryRun", "fieldManager", "fieldValidation", "force", "pretty"}, "get": {"pretty", "resourceVersion"},
		"list":   {"continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch", "timeoutSeconds", "watch"},
		"delete": {"dryRun", "gracePeriodSeconds", "propagationPolicy"}, "deletecollection": {"dryRun", "fieldSelector", "labelSelector", "propagationPolicy"},
	}[verb]
	list := []any{}
	for _, p := range parameters {
		if d.v2() {
			list = append(list, map[string]any{"name": p, "in": "query", "type": "string", "uniqueItems": true})
		} else {
			list = append(list, map[string]any{"name": p, "in": "query", "schema": map[string]any{"type": "string", "uniqueItems": true}})
		}
	}
	content := map[string]any{mediaJSON: map[string]any{"schema": body}, mediaYAML: map[string]any{"schema": body}, mediaProtobuf: map[string]any{"schema": body}}
	op := map[string]any{
		"operationId": verb + gvk.GroupVersion().WithKind(gvk.Kind).String(), "parameters": list,
		"responses":                       map[string]any{"200": map[string]any{"description": "OK", "content": content}},
		"x-kubernetes-action":             verb,
		"x-kubernetes-group-version-kind": map[string]string{"group": gvk.Group, "kind": gvk.Kind, "version": gvk.Version},
	}
	switch {
	case d.v2():
		op["responses"] = map[string]any{"200": map[string]any{"description": "OK", "schema": body}}
		op["consumes"], op["produces"], op["schemes"] = []string{"*/*"}, []string{mediaJSON, mediaYAML, mediaProtobuf}, []string{"https"}
		if verb == "create" || verb == "update" || verb == "patch" {
			op["parameters"] = append(list, map[string]any{"name": "body", "in": "body", "required": true, "schema": body})
		}
	case verb == "create" || verb == "update":
		op["requestBody"] = map[string]any{"required": true, "content": content}
	}
	return op
}

// What types say of themselves.
type (
	named     interface{ OpenAPIModelName() string }
	ownSchema interface {
		OpenAPISchemaType() []string
		OpenAPISchemaFormat() string
	}
	documented interface{ SwaggerDoc() map[string]string }
)

// modelName of a struct type, "io.k8s.api.core.v1.Pod".
func modelName(t reflect.Type) string {
	if n, ok := reflect.New(t).Interface().(named); ok {
		return n.OpenAPIModelName()
	}
	parts := strings.Split(t.PkgPath(), "/")
	host := strings.Split(parts[0], ".")
	slices.Reverse(host)
	return strings.Join(append(append(host, parts[1:]...), t.Name()), ".")
}

// schema of a type: a reference for structs, whose schema is added, and inline for the rest.
func (d *document) schema(t reflect.Type) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if own, ok := reflect.New(t).Interface().(ownSchema); ok && len(own.OpenAPISchemaType()) > 0 {
		out := map[string]any{"type": own.OpenAPISchemaType()[0]}
		if f := own.OpenAPISchemaFormat(); f != "" {
			out["format"] = f
		}
		return out
	}
	switch t.Kind() {
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Int32, reflect.Int16, reflect.Uint16, reflect.Uint32:
		return map[string]any{"type": "integer", "format": "int32"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return map[string]any{"type": "integer", "format": "int64"}
	case reflect.Float64, reflect.Float32:
		return map[string]any{"type": "number", "format": "double"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return map[string]any{"type": "string", "format": "byte"}
		}
		return map[string]any{"type": "array", "items": d.item(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": d.item(t.Elem())}
	case reflect.Struct:
		name := modelName(t)
		if _, known := d.schemas[name]; !known {
			s := map[string]any{"type": "object"}
			d.schemas[name] = s // before its fields: types may hold themselves
			d.structure(t, s)
		}
		return map[string]any{"$ref": d.refs + name}
	}
	return map[string]any{"type": "object"}
}

// item is an element's schema; kubectl wants a default beside a reference.
func (d *document) item(t reflect.Type) map[string]any {
	s := d.schema(t)
	if _, isRef := s["$ref"]; isRef && !d.v2() {
		return map[string]any{"allOf": []any{s}, "default": map[string]any{}}
	}
	return s
}

func (d *document) structure(t reflect.Type, s map[string]any) {
	docs := map[string]string{}
	if doc, ok := reflect.New(t).Interface().(documented); ok {
		docs = doc.SwaggerDoc()
	}
	if text := docs[""]; text != "" {
		s["description"] = text
	}
	properties, required := map[string]any{}, []string{}
	d.fields(t, docs, properties, &required)
	if len(properties) > 0 {
		s["properties"] = properties
	}
	if len(required) > 0 {
		s["required"] = required
	}
}

func (d *document) fields(t reflect.Type, docs map[string]string, properties map[string]any, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" && (f.Anonymous || strings.Contains(options, "inline")) {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			innerDocs := docs
			if doc, ok := reflect.New(inner).Interface().(documented); ok {
				innerDocs = doc.SwaggerDoc()
			}
			d.fields(inner, innerDocs, properties, required)
			continue
		}
		if name == "" {
			name = f.Name
		}
		p := d.schema(f.Type)
		if _, isRef := p["$ref"]; isRef && !d.v2() {
			p = map[string]any{"allOf": []any{p}}
		}
		if text := docs[name]; text != "" {
			p["description"] = text
		}
		patchStrategy(f.Tag, p)
		properties[name] = p
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") && f.Type.Kind() != reflect.Pointer {
			*required = append(*required, name)
		}
	}
}

// patchStrategy carries over how kubectl merges a list.
func patchStrategy(tag reflect.StructTag, p map[string]any) {
	strategy, key := tag.Get("patchStrategy"), tag.Get("patchMergeKey")
	if strategy != "" {
		p["x-kubernetes-patch-strategy"] = strategy
	}
	if key != "" {
		p["x-kubernetes-patch-merge-key"] = key
		p["x-kubernetes-list-type"], p["x-kubernetes-list-map-keys"] = "map", []string{key}
	}
}
