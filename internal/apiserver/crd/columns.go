package crd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/util/jsonpath"

	"skiff.dev/skiff/internal/api"
)

// path is a JSON path that is parsed when it is first needed. The library's type keeps state while it searches.
type path struct {
	text   string
	mu     sync.Mutex
	parsed *jsonpath.JSONPath
	broken bool
}

// find returns the first value that the path leads to.
func (p *path) find(content map[string]any) (any, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parsed == nil && !p.broken {
		p.parsed = jsonpath.New("").AllowMissingKeys(true)
		p.broken = p.parsed.Parse("{"+p.text+"}") != nil
	}
	if p.broken {
		return nil, false
	}
	found, err := p.parsed.FindResults(content)
	if err != nil || len(found) == 0 || len(found[0]) == 0 {
		return nil, false
	}
	return found[0][0].Interface(), true
}

// text is the value as the library prints it.
func (p *path) print(value any) any {
	var out bytes.Buffer
	if err := p.parsed.PrintResults(&out, []reflect.Value{reflect.ValueOf(value)}); err != nil {
		return nil
	}
	return out.String()
}

var metaDocs = metav1.ObjectMeta{}.SwaggerDoc()

// columnsOf are a version's printer columns behind the name; its age if it names none.
func columnsOf(defined []apiextensionsv1.CustomResourceColumnDefinition) []api.Column {
	if len(defined) == 0 {
		defined = []apiextensionsv1.CustomResourceColumnDefinition{
			{Name: "Age", Type: "date", Description: metaDocs["creationTimestamp"], JSONPath: ".metadata.creationTimestamp"},
		}
	}
	name := api.DefaultColumns[0]
	name.Description = metaDocs["name"]
	out := []api.Column{name}
	for _, d := range defined {
		p, kind := &path{text: d.JSONPath}, d.Type
		description := d.Description
		if description == "" {
			description = "Custom resource definition column (in JSONPath format): " + d.JSONPath
		}
		out = append(out, api.Column{
			Name: d.Name, Type: d.Type, Format: d.Format, Description: description, Priority: d.Priority,
			Cell: func(o api.Object, now time.Time) any {
				value, found := p.find(o.(*unstructured.Unstructured).Object)
				switch {
				case !found || value == nil:
					return nil
				case kind == "string":
					return p.print(value)
				}
				return cell(kind, value, now)
			},
		})
	}
	return out
}

// cell is a value as a column of that type shows it; nil if it is of another type.
func cell(kind string, value any, now time.Time) any {
	switch v := value.(type) {
	case int64:
		switch kind {
		case "integer":
			return v
		case "number":
			return float64(v)
		}
	case float64:
		switch kind {
		case "integer":
			return int64(v)
		case "number":
			return v
		}
	case json.Number:
		if n, err := v.Int64(); err == nil && kind == "integer" {
			return n
		}
		if n, err := v.Float64(); err == nil && kind == "number" {
			return n
		}
	case bool:
		if kind == "boolean" {
			return v
		}
	case string:
		if kind != "date" {
			return nil
		}
		var at metav1.Time
		if err := at.UnmarshalQueryParameter(v); err != nil {
			return "<invalid>"
		}
		return api.Age(at, now)
	}
	return nil
}

// fieldsOf are the fields that a version can be selected by; nil if it names none.
func fieldsOf(selectable []apiextensionsv1.SelectableField) func(api.Object) fields.Set {
	if len(selectable) == 0 {
		return nil
	}
	paths := make([]*path, len(selectable))
	for i, s := range selectable {
		paths[i] = &path{text: s.JSONPath}
	}
	return func(o api.Object) fields.Set {
		set := fields.Set{}
		content := o.(*unstructured.Unstructured).Object
		for _, p := range paths {
			text := ""
			if value, found := p.find(content); found && value != nil {
				text = fmt.Sprint(value)
			}
			set[strings.TrimPrefix(p.text, ".")] = text
		}
		return set
	}
}

// scaling reads and writes the number of replicas by the definition's paths.
func (v *version) scaling() *api.Scale {
	number := func(o api.Object, path string) int32 {
		n, _, _ := unstructured.NestedInt64(o.(*unstructured.Unstructured).Object, dotted(path)...)
		return int32(n)
	}
	return &api.Scale{
		Get: func(o api.Object) (spec, status int32, selector string) {
			if p := v.scale.LabelSelectorPath; p != nil && *p != "" {
				selector, _, _ = unstructured.NestedString(o.(*unstructured.Unstructured).Object, dotted(*p)...)
			}
			return number(o, v.scale.SpecReplicasPath), number(o, v.scale.StatusReplicasPath), selector
		},
		Set: func(o api.Object, replicas int32) {
			// It fails only where something that is no object stands in the way, which validation tells.
			_ = unstructured.SetNestedField(o.(*unstructured.Unstructured).Object, int64(replicas), dotted(v.scale.SpecReplicasPath)...)
		},
	}
}
