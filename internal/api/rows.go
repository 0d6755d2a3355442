package api

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// builtin lists every built-in row, group by group.
func builtin() []*Resource {
	return slices.Concat(coreRows(), appsRows(), batchRows(), policyRows(), rbacRows(), networkingRows(), discoveryRows(),
		schedulingRows(), coordinationRows(), certificateRows(), extensionRows(), admissionRows(), autoscalingRows(), storageRows(), deviceRows(), MetricsRows(),
		reviewRows(), nodeRows(), migrationRows(), registrationRows(), flowControlRows())
}

// AllVerbs are those of a stored resource that says nothing else.
var AllVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// of fills a row's constructors for the Go type T and its list L, and what follows from its kind.
func of[T, L any, PT interface {
	*T
	Object
}, PL interface {
	*L
	runtime.Object
}](r Resource) *Resource {
	r.Also = slices.Clone(r.Also) // the table completes them, and there may be several tables
	r.New = func() Object { return PT(new(T)) }
	r.NewList = func() runtime.Object { return PL(new(L)) }
	if r.Singular == "" {
		r.Singular = strings.ToLower(r.Kind)
	}
	if r.Verbs == nil {
		r.Verbs = AllVerbs
	}
	return &r
}

// review makes the row of a kind that is only ever created, never stored.
func review[T any, PT interface {
	*T
	Object
}](r Resource) *Resource {
	r.New = func() Object { return PT(new(T)) }
	r.Verbs = []string{"create"}
	r.Singular = strings.ToLower(r.Kind)
	return &r
}

var all = []string{"all"}
