package apiserver

import (
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/objectjson"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// shape turns entries into a Table or into metadata alone. meta is nil for a single object.
func shape(r *http.Request, f format, q *registry.Request, entries []*store.Entry, meta *metav1.ListMeta) (runtime.Object, error) {
	switch {
	case f.as == "Table":
		return table(r, f, q, entries, meta, true)
	case f.as == "PartialObjectMetadata" && meta == nil:
		m := metadataOf(entries[0])
		m.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
		return m, nil
	case f.as == "PartialObjectMetadataList" && meta != nil:
		out := &metav1.PartialObjectMetadataList{ListMeta: *meta, Items: make([]metav1.PartialObjectMetadata, len(entries))}
		out.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList"))
		for i, e := range entries {
			out.Items[i] = *metadataOf(e)
		}
		return out, nil
	}
	return nil, apierrors.NewBadRequest(fmt.Sprintf("as=%s does not fit this request", f.as))
}

func metadataOf(e *store.Entry) *metav1.PartialObjectMetadata {
	obj := e.Object()
	out := &metav1.PartialObjectMetadata{ObjectMeta: api.MetaOf(obj)}
	out.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
	return out
}

func columnsOf(q *registry.Request) []api.Column {
	if q.Subresource == "scale" {
		return api.ScaleColumns
	}
	cols := q.Resource.Columns
	if q.Served != nil {
		cols = q.Served.Columns
	}
	if cols == nil {
		cols = api.DefaultColumns
	}
	return cols
}

// table shows entries in columns, as kubectl prints them. Without head it leaves out the definitions, which a watch sends but once.
func table(r *http.Request, f format, q *registry.Request, entries []*store.Entry, meta *metav1.ListMeta, head bool) (*metav1.Table, error) {
	t := &metav1.Table{TypeMeta: metav1.TypeMeta{APIVersion: metav1.GroupName + "/" + f.table, Kind: "Table"}}
	include := metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject"))
	switch include {
	case "":
		include = metav1.IncludeMetadata
	case metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("includeObject: Unsupported value: %q: supported values: \"Metadata\", \"None\", \"Object\"", include))
	}
	cols := columnsOf(q)
	if head { // else null, as upstream
		t.ColumnDefinitions = []metav1.TableColumnDefinition{}
		for _, c := range cols {
			t.ColumnDefinitions = append(t.ColumnDefinitions, metav1.TableColumnDefinition{
				Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority,
			})
		}
	}
	if meta != nil {
		t.ListMeta = *meta
	} else if len(entries) == 1 {
		t.ResourceVersion = entries[0].Object().GetResourceVersion()
	}
	now := time.Now()
	t.Rows = make([]metav1.TableRow, len(entries))
	for i, e := range entries {
		obj, row := e.Object(), &t.Rows[i]
		row.Cells = make([]any, len(cols))
		for j, c := range cols {
			row.Cells[j] = c.Cell(obj, now)
		}
		switch include {
		case metav1.IncludeMetadata:
			raw, err := objectjson.Marshal(metadataOf(e))
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			row.Object.Raw = raw
		case metav1.IncludeObject:
			raw, err := e.Bytes(store.JSON)
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			row.Object.Raw = raw
		}
	}
	return t, nil
}
