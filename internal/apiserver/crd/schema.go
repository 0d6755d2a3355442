package crd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// compiled is a version's schema in the forms that do the work.
type compiled struct {
	structural *structuralschema.Structural // nil if the version has no schema
	whole      validation.SchemaValidator
	status     validation.SchemaValidator // of the status alone; nil if the schema says nothing of it
	rules      *cel.Validator             // nil if there are none
	weighs     bool                       // rules read quantities
}

// lazySchema compiles a schema when it is asked for, and drops it when nobody has asked for a while: compiled it is ten times as large.
type lazySchema struct {
	compile func() (*compiled, error)

	mu     sync.Mutex
	schema *compiled
	idle   *time.Timer
}

// keepFor is how long a compiled schema outlives its last use.
const keepFor = 5 * time.Minute

func (l *lazySchema) get() (*compiled, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.schema != nil {
		l.idle.Reset(keepFor)
		return l.schema, nil
	}
	s, err := l.compile()
	if err != nil {
		return nil, err
	}
	l.schema = s
	l.idle = time.AfterFunc(keepFor, l.drop)
	return s, nil
}

func (l *lazySchema) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.schema = nil
}

// compile reads the definition and compiles the version's schema.
func (v *version) compile() (*compiled, error) {
	crd, err := v.kind.source()
	if err != nil {
		return nil, err
	}
	spec := versionOf(crd, v.gvk.Version)
	if spec == nil {
		return nil, fmt.Errorf("definition %s has no version %s any more", v.kind.name, v.gvk.Version)
	}
	return compile(spec, v.kind.preserve)
}

// internalSchema is the form that the published packages take; nil if there is no schema.
func internalSchema(v *apiextensionsv1.CustomResourceDefinitionVersion) (*apiextensions.JSONSchemaProps, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil, nil
	}
	out := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, out, nil); err != nil {
		return nil, fmt.Errorf("convert the schema of version %s: %w", v.Name, err)
	}
	return out.OpenAPIV3Schema, nil
}

// structural is a version's structural schema, as it was written; nil if there is no schema.
func structural(v *apiextensionsv1.CustomResourceDefinitionVersion) (*structuralschema.Structural, error) {
	internal, err := internalSchema(v)
	if err != nil || internal == nil {
		return nil, err
	}
	return structuralschema.NewStructural(internal)
}

func compile(v *apiextensionsv1.CustomResourceDefinitionVersion, preserve bool) (*compiled, error) {
	internal, err := internalSchema(v)
	if err != nil {
		return nil, err
	}
	out := &compiled{}
	if internal != nil {
		s, err := structuralschema.NewStructural(internal)
		if err != nil && !preserve {
			return nil, fmt.Errorf("the schema of version %s is not structural: %w", v.Name, err)
		}
		if err == nil && !preserve {
			s = s.DeepCopy() // defaults are shared with the definition
			if err := defaulting.PruneDefaults(s); err != nil {
				return nil, fmt.Errorf("prune the defaults of version %s: %w", v.Name, err)
			}
		}
		out.structural = s
	}
	if out.whole, _, err = validation.NewSchemaValidator(internal); err != nil {
		return nil, fmt.Errorf("make a validator of the schema of version %s: %w", v.Name, err)
	}
	if internal != nil && v.Subresources != nil && v.Subresources.Status != nil {
		if status, has := internal.Properties["status"]; has {
			if out.status, _, err = validation.NewSchemaValidator(&status); err != nil {
				return nil, fmt.Errorf("make a validator of the status of version %s: %w", v.Name, err)
			}
		}
	}
	out.rules = cel.NewValidator(out.structural, true, celconfig.PerCallLimit)
	if out.rules != nil {
		raw, err := json.Marshal(v.Schema)
		if err != nil {
			return nil, fmt.Errorf("read the rules of version %s: %w", v.Name, err)
		}
		out.weighs = bytes.Contains(raw, []byte("uantity")) // quantity(…), isQuantity(…)
	}
	return out, nil
}
