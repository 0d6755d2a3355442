// Package namespace ends namespaces: it deletes all they contain, pods first and with their grace, and lets go of the namespace when
// nothing is left.
//
// Its invariant: the finalizer "kubernetes" goes only after a live look at every kind found nothing. It never waits in a loop; whatever
// leaves a namespace that is ending wakes it.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

type reconciler struct {
	client client.Client
	kinds  harness.Kinds
	now    func() time.Time
	wake   func(harness.Key)

	mu      sync.Mutex
	ending  map[string]bool // namespaces whose losses matter
	watched map[kind]bool   // whose losses are seen
}

// kind is a resource; one that is defined anew after it was gone is another.
type kind struct {
	schema.GroupResource
	definition types.UID
}

func kindOf(row *api.Resource) kind {
	k := kind{GroupResource: row.GroupResource()}
	if row.Custom != nil {
		k.definition = row.Custom.Definition
	}
	return k
}

// New returns the controller; kinds are all there are, whenever they come.
func New(c client.Client, kinds harness.Kinds) harness.Controller {
	r := &reconciler{client: c, kinds: kinds, now: time.Now, wake: func(harness.Key) {}, ending: map[string]bool{}, watched: map[kind]bool{}}
	return harness.Controller{
		Workers: 2, Reconcile: r.reconcile,
		Watches: []harness.Watch{harness.Self(&corev1.Namespace{})},
		Begin:   func(wake func(harness.Key)) { r.wake = wake },
	}
}

// rows are the namespaced kinds there are now, pods first.
func (r *reconciler) rows() (rows []*api.Resource) {
	for _, row := range r.kinds.All() {
		if row.Namespaced && row.Key != "" && (row.Verbs == nil || slices.Contains(row.Verbs, "deletecollection")) {
			rows = append(rows, row)
		}
	}
	slices.SortStableFunc(rows, func(a, b *api.Resource) int {
		switch {
		case isPod(a) && !isPod(b):
			return -1
		case isPod(b) && !isPod(a):
			return 1
		}
		return 0
	})
	return rows
}

func isPod(row *api.Resource) bool { return row.Group == "" && row.Kind == "Pod" }

// watch begins to follow a kind when something of it first stays after its deletion was asked for: most kinds never need it. It says
// whether it began just now.
func (r *reconciler) watch(ctx context.Context, row *api.Resource) (begun bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watched[kindOf(row)] {
		return false, nil
	}
	of := &metav1.PartialObjectMetadata{}
	of.SetGroupVersionKind(row.GVK())
	informer, err := r.client.Cache().GetInformer(ctx, of)
	if err != nil {
		return false, fmt.Errorf("watch %s: %w", row.Plural, err)
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{DeleteFunc: r.lost})
	if err != nil {
		return false, fmt.Errorf("watch %s: %w", row.Plural, err)
	}
	r.watched[kindOf(row)] = true
	toolscache.WaitFor(ctx, "", registration.HasSyncedChecker())
	return true, nil
}

// lost wakes a namespace that is ending when something left it.
func (r *reconciler) lost(obj any) {
	if gone, unknown := obj.(toolscache.DeletedFinalStateUnknown); unknown {
		obj = gone.Obj
	}
	o, ok := obj.(metav1.Object)
	if !ok {
		return
	}
	r.mu.Lock()
	matters := r.ending[o.GetNamespace()]
	r.mu.Unlock()
	if matters {
		r.wake(harness.Key{Name: o.GetNamespace()})
	}
}

func (r *reconciler) watchLosses(namespace string, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on {
		r.ending[namespace] = true
	} else {
		delete(r.ending, namespace)
	}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var ns corev1.Namespace
	if err := r.client.Get(ctx, key, &ns); err != nil {
		r.watchLosses(key.Name, false)
		return 0, crclient.IgnoreNotFound(err)
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	r.watchLosses(ns.Name, true) // before the first look, so that no loss falls between
	seen, failure := r.deleteContent(ctx, ns.Name)
	if failure == nil && seen.count() == 0 {
		return 0, r.finalize(ctx, &ns)
	}
	if err := r.writeStatus(ctx, &ns, seen, failure); err != nil {
		return 0, err
	}
	return 0, failure
}

// deleteContent asks for the deletion of all there is and reports what still stays. Nothing but pods is touched while there are pods:
// what they use (secrets, service accounts, network policies) must outlive them.
func (r *reconciler) deleteContent(ctx context.Context, namespace string) (remaining, error) {
	var seen remaining
	var failures []error
	for _, row := range r.rows() {
		if err := r.deleteKind(ctx, row, namespace, &seen); err != nil {
			failures = append(failures, err)
		}
		if isPod(row) && (seen.count() > 0 || len(failures) > 0) {
			break
		}
	}
	return seen, errors.Join(failures...)
}

func (r *reconciler) deleteKind(ctx context.Context, row *api.Resource, namespace string, seen *remaining) error {
	list, err := r.list(ctx, row, namespace)
	if err != nil || len(list) == 0 {
		return err
	}
	if slices.ContainsFunc(list, func(o metav1.Object) bool { return o.GetDeletionTimestamp() == nil }) {
		err := r.client.DeleteAllOf(ctx, row.New(), crclient.InNamespace(namespace), crclient.PropagationPolicy(metav1.DeletePropagationBackground))
		if err != nil {
			return fmt.Errorf("delete %s in namespace %s: %w", row.Plural, namespace, err)
		}
		if list, err = r.list(ctx, row, namespace); err != nil {
			return err
		}
	}
	if len(list) > 0 {
		begun, err := r.watch(ctx, row)
		if err != nil {
			return err
		}
		if begun { // what went before it was watched wakes nobody
			if list, err = r.list(ctx, row, namespace); err != nil {
				return err
			}
		}
	}
	seen.add(row.GroupResource(), list)
	return nil
}

func (r *reconciler) list(ctx context.Context, row *api.Resource, namespace string) ([]metav1.Object, error) {
	list := row.NewList().(crclient.ObjectList)
	if err := r.client.Live().List(ctx, list, crclient.InNamespace(namespace)); meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil, nil // its definition has just gone, after its objects
	} else if err != nil {
		return nil, fmt.Errorf("list %s in namespace %s: %w", row.Plural, namespace, err)
	}
	var objects []metav1.Object
	items, err := meta.ExtractList(list)
	for _, item := range items {
		if o, ok := item.(metav1.Object); ok {
			objects = append(objects, o)
		}
	}
	return objects, err
}

func (r *reconciler) finalize(ctx context.Context, ns *corev1.Namespace) error {
	changed := ns.DeepCopy()
	changed.Spec.Finalizers = slices.DeleteFunc(changed.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	if err := r.client.SubResource("finalize").Update(ctx, changed); crclient.IgnoreNotFound(err) != nil {
		return fmt.Errorf("finalize namespace %s: %w", ns.Name, err)
	}
	return nil
}

func (r *reconciler) writeStatus(ctx context.Context, ns *corev1.Namespace, seen remaining, failure error) error {
	changed := ns.DeepCopy()
	changed.Status.Phase = corev1.NamespaceTerminating
	for _, c := range conditions(seen, failure) {
		setCondition(&changed.Status, c, r.now())
	}
	if equality.Semantic.DeepEqual(changed.Status, ns.Status) {
		return nil
	}
	err := r.client.SubResource("status").Update(ctx, changed)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the status of namespace %s: %w", ns.Name, err)
	}
	return nil
}

// remaining is what a look at a namespace found.
type remaining struct {
	kinds      []kindCount
	finalizers map[string]int
}

type kindCount struct {
	kind schema.GroupResource
	n    int
}

func (r *remaining) add(kind schema.GroupResource, list []metav1.Object) {
	if len(list) == 0 {
		return
	}
	r.kinds = append(r.kinds, kindCount{kind, len(list)})
	for _, o := range list {
		for _, f := range o.GetFinalizers() {
			if r.finalizers == nil {
				r.finalizers = map[string]int{}
			}
			r.finalizers[f]++
		}
	}
}

func (r *remaining) count() int {
	n := 0
	for _, k := range r.kinds {
		n += k.n
	}
	return n
}
