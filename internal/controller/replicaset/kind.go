package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Kind is what the kinds that keep pods at a count differ in: how they look as ReplicaSets, and back.
type Kind struct {
	GVK       schema.GroupVersionKind
	Component string // who its events are from
	New       func() crclient.Object
	List      func(r crclient.Reader, namespace string) []crclient.Object // shared objects; none when the cache is stopping
	View      func(o crclient.Object) *appsv1.ReplicaSet                  // of a shared object, and as shared
	Status    func(s appsv1.ReplicaSetStatus) appsv1.ReplicaSetStatus     // what of a status the kind can hold
	SetStatus func(o crclient.Object, s appsv1.ReplicaSetStatus)
}

// set is an owner at work: as a ReplicaSet, and as what it is.
type set struct {
	*appsv1.ReplicaSet
	object crclient.Object
}

var replicaSets = Kind{
	GVK: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), Component: "replicaset-controller",
	New: func() crclient.Object { return &appsv1.ReplicaSet{} },
	List: func(r crclient.Reader, namespace string) []crclient.Object {
		var list appsv1.ReplicaSetList
		if r.List(context.Background(), &list, crclient.InNamespace(namespace), crclient.UnsafeDisableDeepCopy) != nil {
			return nil
		}
		all := make([]crclient.Object, len(list.Items))
		for i := range list.Items {
			all[i] = &list.Items[i]
		}
		return all
	},
	View:      func(o crclient.Object) *appsv1.ReplicaSet { return o.(*appsv1.ReplicaSet) },
	Status:    func(s appsv1.ReplicaSetStatus) appsv1.ReplicaSetStatus { return s },
	SetStatus: func(o crclient.Object, s appsv1.ReplicaSetStatus) { o.(*appsv1.ReplicaSet).Status = s },
}
