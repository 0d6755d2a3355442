package apiserver

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// Custom resources have no Go type: their bodies are read by the row, and protobuf, which needs the type, is not spoken of them. Clients that prefer
// it name JSON beside it.

// negotiateFor is negotiate for the objects of a request. Scales and shapes without the object are the same for all kinds.
func negotiateFor(r *http.Request, q *registry.Request) (format, error) {
	if q.Resource.Custom == nil || q.Subresource == "scale" {
		return negotiate(r, !onlyCreated(q.Resource)) // a review has no metadata that a table could show
	}
	return negotiated(r, true, func(f format) bool { return f.media == mediaProtobuf && f.as == "" })
}

// onlyCreated kinds are questions: they are answered and kept nowhere.
func onlyCreated(row *api.Resource) bool {
	return row.Key == "" && slices.Equal(row.Verbs, []string{"create"})
}

// decodeCustom reads a body as the row sees it.
func decodeCustom(res *api.Resource, raw []byte, obj runtime.Object, validation string, already error, warn func(string), bad func(error) error) error {
	u, strict, err := registry.DecodeCustom(res, raw, validation != metav1.FieldValidationIgnore)
	if err != nil {
		return bad(err)
	}
	obj.(runtime.Unstructured).SetUnstructuredContent(u.Object)
	return faults(strict, validation, already, warn, bad)
}

// verbsOf are a resource's verbs as discovery lists them. What is about to go can be read and deleted; that it can also be updated, so that
// finalizers can be removed, is not told.
func verbsOf(row *api.Resource) []string {
	if row.Custom == nil || !row.Custom.Closing {
		return row.Verbs
	}
	return []string{"delete", "deletecollection", "get", "list", "watch"}
}

// custom adds a custom resource's schemas and gives the reference to its kind.
func (d *document) custom(row *api.Resource, kind schema.GroupVersionKind) (map[string]any, error) {
	schemas, err := row.Custom.OpenAPI(d.refs, d.v2())
	if err != nil {
		return nil, err
	}
	for name, s := range schemas {
		d.schemas[name] = s
	}
	return map[string]any{"$ref": d.refs + api.ModelName(kind)}, nil
}

// listKindOf names a row's list.
func listKindOf(row *api.Resource) string {
	if row.Custom != nil {
		return row.NewList().GetObjectKind().GroupVersionKind().Kind
	}
	return row.Kind + "List"
}

// definedBy is what clients that keep documents see change when a definition does; empty where none is.
func definedBy(list []served) string {
	h := fnv.New64a()
	any := false
	for _, e := range list {
		if c := e.row.Custom; c != nil {
			any = true
			fmt.Fprint(h, c.Definition, c.Generation, " ")
		}
	}
	if !any {
		return ""
	}
	return fmt.Sprintf("-%x", h.Sum64())
}
