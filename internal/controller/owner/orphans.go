package owner

import (
	"sync"

	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Orphans remembers the objects of one kind that no controller owns, so that a selector is never run over everything just to find the few
// that could be adopted. Fed by a controller's watch; the zero value is ready for use.
type Orphans[T interface {
	comparable
	crclient.Object
}] struct {
	mu     sync.Mutex
	byName map[string]map[string]T // namespace, name
}

// Saw notes a change; current is nil when the object went.
func (o *Orphans[T]) Saw(old, current T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var none T
	if current != none && Of(current) == nil {
		if o.byName == nil {
			o.byName = map[string]map[string]T{}
		}
		in := o.byName[current.GetNamespace()]
		if in == nil {
			in = map[string]T{}
			o.byName[current.GetNamespace()] = in
		}
		in[current.GetName()] = current
		return
	}
	gone := current
	if gone == none {
		gone = old
	}
	delete(o.byName[gone.GetNamespace()], gone.GetName())
	if len(o.byName[gone.GetNamespace()]) == 0 {
		delete(o.byName, gone.GetNamespace())
	}
}

// In lists a namespace's orphans, in no order.
func (o *Orphans[T]) In(namespace string) []T {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]T, 0, len(o.byName[namespace]))
	for _, obj := range o.byName[namespace] {
		list = append(list, obj)
	}
	return list
}
