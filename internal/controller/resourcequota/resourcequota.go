// Package resourcequota counts what ResourceQuotas limit: a new or changed quota at once, and each quota of a namespace when something it counts has gone.
//
// Admission charges, this gives back. A count that is less than what was charged may have missed an object that was admitted and not stored yet, so
// it is followed by another. Kinds are watched from the first quota on that limits them: a cluster without quotas has no watch here but that of quotas.
package resourcequota

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/quota"
)

// again is when a count that fell is repeated.
const again = 3 * time.Second

type reconciler struct {
	client client.Client
	kinds  harness.Kinds
	now    func() time.Time
	wake   func(harness.Key)

	mu      sync.Mutex
	watched map[schema.GroupResource]bool
	names   map[string]map[string]bool // quotas by namespace
}

// New returns the controller. Its keys are quotas.
func New(c client.Client, kinds harness.Kinds) harness.Controller {
	r := &reconciler{
		client: c, kinds: kinds, now: time.Now, wake: func(harness.Key) {},
		watched: map[schema.GroupResource]bool{}, names: map[string]map[string]bool{},
	}
	return harness.Controller{
		Workers: 2, Reconcile: r.reconcile, Begin: func(wake func(harness.Key)) { r.wake = wake },
		Watches: []harness.Watch{harness.On(&corev1.ResourceQuota{}, r.changed)},
	}
}

// changed keeps the book of quotas. What admission charges is no reason to count.
func (r *reconciler) changed(old, current *corev1.ResourceQuota) []harness.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	if current == nil {
		delete(r.names[old.Namespace], old.Name)
		if len(r.names[old.Namespace]) == 0 {
			delete(r.names, old.Namespace)
		}
		return nil
	}
	if r.names[current.Namespace] == nil {
		r.names[current.Namespace] = map[string]bool{}
	}
	r.names[current.Namespace][current.Name] = true
	if old != nil && equality.Semantic.DeepEqual(old.Spec, current.Spec) && equality.Semantic.DeepEqual(current.Status.Hard, current.Spec.Hard) {
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var q corev1.ResourceQuota
	if err := r.client.Live().Get(ctx, key, &q); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	used := quota.Zero(q.Spec.Hard)
	for _, gr := range quota.Kinds(q.Spec.Hard) {
		row := r.row(gr)
		if row == nil {
			continue
		}
		if err := r.watch(ctx, row); err != nil {
			return 0, err
		}
		if err := r.count(ctx, row, &q, used); err != nil {
			return 0, err
		}
	}
	fell := less(used, q.Status.Used)
	if !equal(used, q.Status.Used) || !equal(q.Spec.Hard, q.Status.Hard) {
		next := q.DeepCopy()
		next.Status.Hard, next.Status.Used = q.Spec.Hard.DeepCopy(), used
		if err := r.client.Status().Update(ctx, next); err != nil {
			return 0, crclient.IgnoreNotFound(err)
		}
	}
	if fell {
		return again, nil
	}
	return 0, nil
}

func equal(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(x, y resource.Quantity) bool { return x.Cmp(y) == 0 })
}

// less says that something of was is more than it is now.
func less(is, was corev1.ResourceList) bool {
	for name, before := range was {
		if now, has := is[name]; has && now.Cmp(before) < 0 {
			return true
		}
	}
	return false
}

func (r *reconciler) row(gr schema.GroupResource) *api.Resource {
	for _, row := range r.kinds.All() {
		if row.GroupResource() == gr && quota.Counts(row) {
			return row
		}
	}
	return nil
}

// count adds to used what the namespace's objects of one kind use of the quota.
func (r *reconciler) count(ctx context.Context, row *api.Resource, q *corev1.ResourceQuota, used corev1.ResourceList) error {
	list, ok := row.NewList().(crclient.ObjectList)
	if !ok {
		return nil
	}
	err := r.client.Live().List(ctx, list, crclient.InNamespace(q.Namespace))
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil // its definition has just gone, after its objects
	} else if err != nil {
		return fmt.Errorf("count %s in namespace %s: %w", row.Plural, q.Namespace, err)
	}
	gr, now, lookup := row.GroupResource(), r.now(), r.lookup(ctx)
	return meta.EachListItem(list, func(obj runtime.Object) error {
		if !quota.Matches(q, obj) {
			return nil
		}
		usage, err := quota.Usage(gr, obj, now, lookup)
		if err != nil {
			return err
		}
		quota.Add(used, quota.Only(usage, q.Spec.Hard))
		return nil
	})
}

// lookup reads what a claim's usage depends on.
func (r *reconciler) lookup(ctx context.Context) quota.Lookup {
	return quota.Lookup{
		Class: func(name string) (*resourcev1.DeviceClass, error) {
			return live(ctx, r.client, crclient.ObjectKey{Name: name}, &resourcev1.DeviceClass{})
		},
		Pod: func(namespace, name string) (*corev1.Pod, error) {
			return live(ctx, r.client, crclient.ObjectKey{Namespace: namespace, Name: name}, &corev1.Pod{})
		},
	}
}

// live reads an object as it is now, nil if it is not there.
func live[T crclient.Object](ctx context.Context, c client.Client, key crclient.ObjectKey, into T) (none T, err error) {
	if err := c.Live().Get(ctx, key, into); err != nil {
		return none, crclient.IgnoreNotFound(err)
	}
	return into, nil
}

// watch begins to follow a kind that a quota is about.
func (r *reconciler) watch(ctx context.Context, row *api.Resource) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watched[row.GroupResource()] {
		return nil
	}
	var of crclient.Object = &metav1.PartialObjectMetadata{}
	if row.Group == "" && !row.Cold {
		of = row.New() // what these use changes while they are there
	}
	of.GetObjectKind().SetGroupVersionKind(row.GVK())
	informer, err := r.client.Cache().GetInformer(ctx, of)
	if err != nil {
		return fmt.Errorf("watch %s: %w", row.Plural, err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, current any) {
			if released(old, current) {
				r.recount(current)
			}
		},
		DeleteFunc: r.recount,
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", row.Plural, err)
	}
	r.watched[row.GroupResource()] = true
	return nil
}

// released says that an object uses less than it did, or is in other quotas' scopes.
func released(old, current any) bool {
	switch o := current.(type) {
	case *corev1.Pod:
		was := old.(*corev1.Pod)
		ended := func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
		}
		return ended(o) != ended(was) || o.Generation != was.Generation && !equality.Semantic.DeepEqual(o.Spec, was.Spec)
	case *corev1.Service:
		return !equality.Semantic.DeepEqual(o.Spec, old.(*corev1.Service).Spec)
	case *corev1.PersistentVolumeClaim:
		was := old.(*corev1.PersistentVolumeClaim)
		return !equality.Semantic.DeepEqual(o.Spec, was.Spec) || !slices.Equal(quota.AttributesClasses(o), quota.AttributesClasses(was)) ||
			!equality.Semantic.DeepEqual(o.Status.AllocatedResources, was.Status.AllocatedResources)
	}
	return false
}

// recount wakes the quotas of the namespace that something left.
func (r *reconciler) recount(obj any) {
	if gone, unknown := obj.(toolscache.DeletedFinalStateUnknown); unknown {
		obj = gone.Obj
	}
	o, ok := obj.(metav1.Object)
	if !ok {
		return
	}
	r.mu.Lock()
	var keys []harness.Key
	for name := range r.names[o.GetNamespace()] {
		keys = append(keys, harness.Key{Namespace: o.GetNamespace(), Name: name})
	}
	r.mu.Unlock()
	for _, key := range keys {
		r.wake(key)
	}
}
