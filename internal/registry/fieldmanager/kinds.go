package fieldmanager

import (
	"fmt"
	"sync"

	apiextensionstypes "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	registrationtypes "k8s.io/kube-aggregator/pkg/client/applyconfiguration"

	"skiff.dev/skiff/internal/api"
)

// The schemas that say which lists merge by which keys: client-go's, and those of the kinds that it does not have.
var (
	builtin = sync.OnceValue(func() managedfields.TypeConverter {
		return &unchecked{TypeConverter: applyconfigurations.NewTypeConverter(api.Scheme())}
	})
	extensions = sync.OnceValue(func() managedfields.TypeConverter {
		return &unchecked{TypeConverter: apiextensionstypes.NewTypeConverter(api.Scheme())}
	})
	registrations = sync.OnceValue(func() managedfields.TypeConverter {
		return &unchecked{TypeConverter: registrationtypes.NewTypeConverter(api.Scheme())}
	})
)

// kindKey names one FieldManager: the kind that is stored, the version that is spoken, what of it is written.
type kindKey struct {
	kind        schema.GroupKind
	gv          schema.GroupVersion
	subresource string
}

// manager is one FieldManager; a row that takes its row's place, with another schema perhaps, needs a new one.
type manager struct {
	row *api.Resource
	*managedfields.FieldManager
}

// of finds or makes the FieldManager of what is written.
func (m *Managers) of(w Write) (*managedfields.FieldManager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := kindKey{w.Resource.GVK().GroupKind(), w.gvk().GroupVersion(), w.Subresource}
	if f := m.kinds[key]; f.row == w.Resource {
		return f.FieldManager, nil
	}
	v := m.versionsOf(w.Resource)
	construct := managedfields.NewDefaultFieldManager
	if _, free := w.Resource.New().(runtime.Unstructured); free {
		construct = managedfields.NewDefaultCRDFieldManager
	}
	hub := w.Resource.GVK().GroupVersion()
	f, err := construct(Types(w.Resource), v, undefaulted{}, v, w.gvk(), hub, w.Subresource, v.own(w.Resource, w.Subresource))
	if err != nil {
		return nil, fmt.Errorf("make the field manager of %s %s: %w", w.gvk(), w.Subresource, err)
	}
	m.kinds[key] = manager{w.Resource, f}
	return f, nil
}

// Types of a kind. Those of a custom resource are its schema's; where there is none the values tell, and lists are replaced as a whole.
func Types(r *api.Resource) managedfields.TypeConverter {
	if r.Custom != nil {
		if r.Custom.Types != nil {
			if types := r.Custom.Types(); types != nil {
				return types
			}
		}
		return managedfields.NewDeducedTypeConverter()
	}
	switch r.Group {
	case "apiextensions.k8s.io":
		return extensions()
	case "apiregistration.k8s.io":
		return registrations()
	}
	return builtin()
}

// undefaulted leaves defaults to the registry, which sets them on every write.
type undefaulted struct{}

func (undefaulted) Default(runtime.Object) {}
