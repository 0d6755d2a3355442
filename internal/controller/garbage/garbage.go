// Package garbage deletes what nobody owns any more.
//
// It holds the owner references of every object in memory (graph), fed by metadata informers over all kinds. Its invariant: nothing is
// deleted on the graph's word alone. The graph says what to look at; whether an owner is gone is asked live, by name and UID, and the
// deletion carries the dependent's UID. Keys are UIDs.
package garbage

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
	log    *slog.Logger
	graph  *graph
	wake   func(harness.Key)

	mu   sync.RWMutex
	rows map[schema.GroupKind]*api.Resource // as the table has them now
}

// New returns the controller; kinds are all there are, whenever they come.
func New(c client.Client, kinds harness.Kinds, log *slog.Logger) harness.Controller {
	r := &reconciler{
		client: c, events: c.Recorder("garbage-collector-controller"), log: log, graph: newGraph(), wake: func(harness.Key) {},
	}
	rows := kinds.All()
	r.know(rows)
	var watches []harness.Watch
	for _, row := range rows {
		if collected(row) && row.Custom == nil {
			watches = append(watches, r.watch(row))
		}
	}
	return harness.Controller{
		Workers: 8, Watches: watches, Reconcile: r.reconcile,
		Begin: func(wake func(harness.Key)) { r.wake = wake },
		Follow: func(ctx context.Context, add func(harness.Watch)) {
			harness.EachCustom(ctx, kinds, func(all, fresh []*api.Resource) {
				r.know(all)
				for _, row := range fresh {
					add(r.watch(row))
				}
				if len(fresh) > 0 { // owners that could not be looked for may be of these kinds
					for _, uid := range r.graph.unseen() {
						r.wake(keyOf(uid))
					}
				}
			})
		},
	}
}

func (r *reconciler) watch(row *api.Resource) harness.Watch {
	kind := &metav1.PartialObjectMetadata{}
	kind.SetGroupVersionKind(row.GVK())
	return harness.Any(kind, func(old, current crclient.Object) []harness.Key { return r.changed(row, old, current) })
}

// know takes in what kinds there are now.
func (r *reconciler) know(rows []*api.Resource) {
	by := make(map[schema.GroupKind]*api.Resource, len(rows))
	for _, row := range rows {
		by[row.GVK().GroupKind()] = row
		for _, also := range row.Also {
			by[schema.GroupKind{Group: also.Group, Kind: also.Kind}] = row
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = by
}

// collected kinds are stored and deletable. Events own nothing and are owned by nobody.
func collected(row *api.Resource) bool {
	return row.Key != "" && row.Kind != "Event" && (row.Verbs == nil || slices.Contains(row.Verbs, "delete") && slices.Contains(row.Verbs, "watch"))
}

func keyOf(uid types.UID) harness.Key { return harness.Key{Name: string(uid)} }

// changed brings the graph up to date and names what deserves a look.
func (r *reconciler) changed(row *api.Resource, old, current crclient.Object) []harness.Key {
	if current == nil {
		return keysOf(r.graph.remove(old.GetUID()))
	}
	if old != nil && old.GetUID() != current.GetUID() { // replaced between two looks
		for _, uid := range r.graph.remove(old.GetUID()) {
			r.wake(keyOf(uid))
		}
	}
	return keysOf(r.graph.observe(factsOf(row, current), r.namespaced))
}

func describe(ref metav1.OwnerReference) string {
	return fmt.Sprintf("[%s/%s, name: %s, uid: %s]", ref.APIVersion, ref.Kind, ref.Name, ref.UID)
}

func keysOf(uids []types.UID) []harness.Key {
	keys := make([]harness.Key, len(uids))
	for i, uid := range uids {
		keys[i] = keyOf(uid)
	}
	return keys
}

func (r *reconciler) row(ref metav1.OwnerReference) *api.Resource {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.rows[gv.WithKind(ref.Kind).GroupKind()]
}

func (r *reconciler) namespaced(ref metav1.OwnerReference) (namespaced, known bool) {
	row := r.row(ref)
	return row != nil && row.Namespaced, row != nil
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	n, ok := r.graph.look(types.UID(key.Name))
	switch {
	case !ok:
		return 0, nil
	case n.virtual:
		return 0, r.verify(ctx, n)
	case n.orphaning:
		return 0, r.orphanDependents(ctx, n)
	case n.foreground:
		return 0, r.deleteDependents(ctx, n)
	case n.deleting:
		return 0, nil
	}
	return 0, r.attempt(ctx, n)
}

// verify looks for an owner that something refers to but no informer has shown. If it isn't there, whatever names it decides for itself:
// it may have been named wrongly by one and rightly by another.
func (r *reconciler) verify(ctx context.Context, n view) error {
	row := r.row(n.ref)
	if row == nil || !collected(row) {
		return nil // of a kind not served here: it cannot be known to be gone
	}
	_, found, err := r.live(ctx, row, n.namespace, n.ref.Name, n.uid)
	if err != nil || found {
		return err // the informer is about to show it
	}
	for _, d := range n.dependents {
		r.wake(keyOf(d.uid))
	}
	return nil
}

// attempt deletes a dependent whose owners are all gone, and removes references to gone owners from one that has others.
func (r *reconciler) attempt(ctx context.Context, n view) error {
	obj, found, err := r.live(ctx, n.row, n.namespace, n.name, n.uid)
	if err != nil || !found || len(obj.GetOwnerReferences()) == 0 {
		return err // gone: its own deletion event cleans the graph
	}
	var solid, gone, waiting []metav1.OwnerReference
	for _, ref := range obj.GetOwnerReferences() {
		state, err := r.state(ctx, n, ref)
		if err != nil {
			return err
		}
		switch state {
		case ownerLives:
			solid = append(solid, ref)
		case ownerWaits:
			waiting = append(waiting, ref)
		default:
			gone = append(gone, ref)
			if r.graph.elsewhere(ref.UID, n.namespace) {
				r.events.Eventf(obj, corev1.EventTypeWarning, "OwnerRefInvalidNamespace", "ownerRef %s does not exist in namespace %q", describe(ref), n.namespace)
			}
		}
	}
	switch {
	case len(solid) > 0 && len(gone)+len(waiting) == 0:
		return nil
	case len(solid) > 0:
		return r.patch(ctx, n.row, obj, map[string]any{"ownerReferences": solid})
	case len(waiting) > 0 && len(n.dependents) > 0:
		if slices.ContainsFunc(n.dependents, func(d dependent) bool { return d.foreground }) {
			// A circle of owners that wait for one another: it is cut here, by waiting for this one no longer.
			if err := r.patch(ctx, n.row, obj, map[string]any{"ownerReferences": unblocking(obj.GetOwnerReferences())}); err != nil {
				return err
			}
		}
		return r.delete(ctx, n.row, obj, metav1.DeletePropagationForeground)
	}
	return r.delete(ctx, n.row, obj, policyOf(obj))
}

type ownerState int

const (
	ownerGone  ownerState = iota
	ownerLives            // or cannot be judged
	ownerWaits            // is being deleted in the foreground, after its dependents
)

func (r *reconciler) state(ctx context.Context, n view, ref metav1.OwnerReference) (ownerState, error) {
	row := r.row(ref)
	if row == nil || row.Namespaced && n.namespace == "" {
		return ownerLives, nil // a kind not served, or an owner in no namespace we could name: keep
	}
	namespace := ""
	if row.Namespaced {
		namespace = n.namespace
	}
	owner, found, err := r.live(ctx, row, namespace, ref.Name, ref.UID)
	switch {
	case err != nil || !found:
		return ownerGone, err
	case owner.GetDeletionTimestamp() != nil && slices.Contains(owner.GetFinalizers(), metav1.FinalizerDeleteDependents):
		return ownerWaits, nil
	}
	return ownerLives, nil
}

// deleteDependents is the foreground deletion of an owner: it goes once nothing that blocks it is left.
func (r *reconciler) deleteDependents(ctx context.Context, n view) error {
	blocked := false
	for _, d := range n.dependents {
		blocked = blocked || d.blocks
		if !d.deleting {
			r.wake(keyOf(d.uid))
		}
	}
	if blocked {
		return nil // each dependent that goes wakes us
	}
	return r.dropFinalizer(ctx, n, metav1.FinalizerDeleteDependents)
}

// orphanDependents lets go of all dependents, then of the owner.
func (r *reconciler) orphanDependents(ctx context.Context, n view) error {
	for _, d := range n.dependents {
		obj, found, err := r.live(ctx, d.row, d.namespace, d.name, d.uid)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		refs := slices.DeleteFunc(slices.Clone(obj.GetOwnerReferences()), func(ref metav1.OwnerReference) bool { return ref.UID == n.uid })
		if len(refs) == len(obj.GetOwnerReferences()) {
			continue
		}
		if err := r.patch(ctx, d.row, obj, map[string]any{"ownerReferences": refs}); err != nil {
			return fmt.Errorf("orphan a dependent: %w", err)
		}
	}
	return r.dropFinalizer(ctx, n, metav1.FinalizerOrphanDependents)
}

func (r *reconciler) dropFinalizer(ctx context.Context, n view, name string) error {
	obj, found, err := r.live(ctx, n.row, n.namespace, n.name, n.uid)
	if err != nil || !found || !slices.Contains(obj.GetFinalizers(), name) {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f == name })
	return r.patch(ctx, n.row, obj, map[string]any{"finalizers": left})
}

// live reads an object past every cache; one of another UID is not it.
func (r *reconciler) live(ctx context.Context, row *api.Resource, namespace, name string, uid types.UID) (obj api.Object, found bool, err error) {
	obj = row.New()
	err = r.client.Live().Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, obj)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look for %s %s/%s: %w", row.Kind, namespace, name, err)
	}
	return obj, obj.GetUID() == uid, nil
}

// patch changes metadata, provided nothing else changed since obj was read.
func (r *reconciler) patch(ctx context.Context, row *api.Resource, obj api.Object, metadata map[string]any) error {
	metadata["uid"], metadata["resourceVersion"] = obj.GetUID(), obj.GetResourceVersion()
	body, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	target := named(row, obj)
	if err := r.client.Patch(ctx, target, crclient.RawPatch(types.MergePatchType, body)); crclient.IgnoreNotFound(err) != nil {
		return fmt.Errorf("change the owners or finalizers of %s %s/%s: %w", row.Kind, obj.GetNamespace(), obj.GetName(), err)
	}
	return nil
}

func (r *reconciler) delete(ctx context.Context, row *api.Resource, obj api.Object, policy metav1.DeletionPropagation) error {
	uid := obj.GetUID()
	err := r.client.Delete(ctx, named(row, obj), crclient.PropagationPolicy(policy), crclient.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete %s %s/%s, whose owners are gone: %w", row.Kind, obj.GetNamespace(), obj.GetName(), err)
	}
	r.log.Debug("garbage collected", "kind", row.Kind, "namespace", obj.GetNamespace(), "name", obj.GetName(), "propagation", policy)
	return nil
}

func named(row *api.Resource, obj api.Object) api.Object {
	target := row.New()
	target.SetNamespace(obj.GetNamespace())
	target.SetName(obj.GetName())
	return target
}

func unblocking(refs []metav1.OwnerReference) []metav1.OwnerReference {
	free := slices.Clone(refs)
	for i := range free {
		free[i].BlockOwnerDeletion = new(bool)
	}
	return free
}

// policyOf continues what an earlier deletion asked for.
func policyOf(obj api.Object) metav1.DeletionPropagation {
	switch {
	case slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents):
		return metav1.DeletePropagationOrphan
	case slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents):
		return metav1.DeletePropagationForeground
	}
	return metav1.DeletePropagationBackground
}
