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
	if r.Status && !r.StatusAlone && r.StatusMeta == nil {
		r.StatusMeta = statusMeta
	}
	return &r
}

// statusMeta lets whoever writes a status label and annotate, and hold the object or let it go: so it was before there were subresources.
func statusMeta(into, given Object) {
	into.SetLabels(given.GetLabels())
	into.SetAnnotations(given.GetAnnotations())
	into.SetFinalizers(given.GetFinalizers())
	into.SetOwnerReferences(given.GetOwnerReferences())
}

// statusMetaOfPod keeps a pod's owners: kubelets of old lost them.
func statusMetaOfPod(into, given Object) {
	owners := into.GetOwnerReferences()
	statusMeta(into, given)
	into.SetOwnerReferences(owners)
}

// statusMetaOfDeployment keeps the labels.
func statusMetaOfDeployment(into, given Object) {
	labels := into.GetLabels()
	statusMeta(into, given)
	into.SetLabels(labels)
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
