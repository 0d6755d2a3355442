// Package replicaset keeps as many pods running as each ReplicaSet asks for.
//
// A reconcile claims pods, then creates or deletes the difference, then writes the status of what is there afterwards, once. Its
// invariant: while changes of its own are not yet visible in the cache, a ReplicaSet creates and deletes nothing (expectations), so that
// a stale cache never makes a pod too many.
package replicaset

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podstate"
)

// burst is the most pods one reconcile creates or deletes.
const burst = 500

var gvk = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

type reconciler struct {
	client  client.Client
	events  record.EventRecorder
	expect  expectations
	orphans owner.Orphans[*corev1.Pod]
	now     func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Workers:   4,
		Watches:   []harness.Watch{harness.On(&appsv1.ReplicaSet{}, r.replicaSetChanged), harness.On(&corev1.Pod{}, r.podChanged)},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("replicaset-controller"), now: time.Now}
}

func (r *reconciler) replicaSetChanged(old, current *appsv1.ReplicaSet) []harness.Key {
	if current == nil {
		key := crclient.ObjectKeyFromObject(old)
		r.expect.forget(key)
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

// podChanged wakes the owner a pod has or had, and every ReplicaSet that could adopt it.
func (r *reconciler) podChanged(old, current *corev1.Pod) []harness.Key {
	r.orphans.Saw(old, current)
	var keys []harness.Key
	wake := func(p *corev1.Pod) (key harness.Key, ok bool) {
		ref := owner.Of(p)
		if ref == nil || ref.Kind != gvk.Kind || ref.APIVersion != gvk.GroupVersion().String() {
			return key, false
		}
		key = harness.Key{Namespace: p.Namespace, Name: ref.Name}
		keys = append(keys, key)
		return key, true
	}
	if old != nil && (current == nil || !equality.Semantic.DeepEqual(owner.Of(old), owner.Of(current))) {
		if key, ok := wake(old); ok {
			r.expect.deleted(key, old.UID)
		}
	}
	if current == nil {
		return keys
	}
	key, ok := wake(current)
	switch {
	case ok && current.DeletionTimestamp != nil:
		r.expect.deleted(key, current.UID)
	case ok && old == nil:
		r.expect.created(key)
	case !ok && owner.Of(current) == nil && (old == nil || !equality.Semantic.DeepEqual(old.Labels, current.Labels) || owner.Of(old) != nil):
		keys = append(keys, r.adopters(current)...)
	}
	return keys
}

func (r *reconciler) adopters(pod *corev1.Pod) []harness.Key {
	var list appsv1.ReplicaSetList
	if err := r.client.List(context.Background(), &list, crclient.InNamespace(pod.Namespace), crclient.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping
	}
	var keys []harness.Key
	for i := range list.Items {
		selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, crclient.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var rs appsv1.ReplicaSet
	if err := r.client.Get(ctx, key, &rs); err != nil {
		r.expect.forget(key)
		return 0, crclient.IgnoreNotFound(err)
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("read the selector of ReplicaSet %s: %w", key, err)
	}
	mayAct := r.expect.met(key)
	pods, err := r.claim(ctx, &rs, selector)
	if err != nil {
		return 0, err
	}
	var manageErr error
	if mayAct && rs.DeletionTimestamp == nil {
		var changed bool
		changed, manageErr = r.manage(ctx, key, &rs, pods)
		if changed { // a status of what is there now spares the write of one that is already old
			if pods, err = r.claim(ctx, &rs, selector); err != nil {
				return 0, err
			}
		}
	}
	status, after := statusOf(&rs, pods, manageErr, r.now())
	if err := r.writeStatus(ctx, &rs, status); err != nil {
		return 0, err
	}
	if !mayAct && after == 0 {
		after = patience // nothing may ever come to wake it, if the change was lost
	}
	return after, manageErr
}

// claim returns the pods that are the ReplicaSet's, after adoption and release.
func (r *reconciler) claim(ctx context.Context, rs *appsv1.ReplicaSet, selector labels.Selector) ([]*corev1.Pod, error) {
	var owned corev1.PodList
	err := r.client.List(ctx, &owned, crclient.InNamespace(rs.Namespace), crclient.MatchingFields{"owner.uid": string(rs.UID)}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list pods of ReplicaSet %s: %w", rs.Name, err)
	}
	candidates := r.orphans.In(rs.Namespace)
	for i := range owned.Items {
		candidates = append(candidates, &owned.Items[i])
	}
	claimer := owner.Claimer{Client: r.client, Live: r.client.Live(), Owner: rs, GVK: gvk, Selector: selector}
	mine := make([]*corev1.Pod, 0, len(candidates))
	for _, pod := range candidates {
		if podstate.Terminal(pod) && owner.Of(pod) == nil {
			continue
		}
		ok, err := claimer.Claim(ctx, pod)
		if err != nil {
			return nil, err
		}
		if ok {
			mine = append(mine, pod)
		}
	}
	return mine, nil
}

// manage creates or deletes the difference and says whether it changed anything.
func (r *reconciler) manage(ctx context.Context, key harness.Key, rs *appsv1.ReplicaSet, pods []*corev1.Pod) (bool, error) {
	active := activePods(pods)
	missing := int(value(rs.Spec.Replicas)) - len(active)
	switch {
	case missing > 0:
		n := min(missing, burst)
		r.expect.creations(key, n)
		made, err := inBatches(n, func() error { return r.create(ctx, rs) })
		r.expect.give(key, n-made)
		return made > 0, err
	case missing < 0:
		victims := rank(active, r.related(ctx, rs), min(-missing, burst))
		r.expect.deletions(key, victims)
		err := inParallel(len(victims), func(i int) error { return r.remove(ctx, key, rs, victims[i]) })
		return true, err
	}
	return false, nil
}

func (r *reconciler) create(ctx context.Context, rs *appsv1.ReplicaSet) error {
	pod := podFrom(rs)
	err := r.client.Create(ctx, pod)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace life cycle deletes us too
	case err != nil:
		r.events.Eventf(rs, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	r.events.Eventf(rs, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
	return nil
}

func (r *reconciler) remove(ctx context.Context, key harness.Key, rs *appsv1.ReplicaSet, pod *corev1.Pod) error {
	uid := pod.UID
	err := r.client.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}},
		crclient.Preconditions{UID: &uid})
	if err == nil {
		r.events.Eventf(rs, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
		return nil
	}
	r.expect.deleted(key, pod.UID)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone already
	}
	r.events.Eventf(rs, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
	return err
}

// related returns the pods of all ReplicaSets with the same controller, by which doubling up on a node is judged.
func (r *reconciler) related(ctx context.Context, rs *appsv1.ReplicaSet) []*corev1.Pod {
	ids := []string{string(rs.UID)}
	if ref := owner.Of(rs); ref != nil {
		var siblings appsv1.ReplicaSetList
		if r.client.List(ctx, &siblings, crclient.InNamespace(rs.Namespace), crclient.MatchingFields{"owner.uid": string(ref.UID)}, crclient.UnsafeDisableDeepCopy) == nil {
			ids = ids[:0]
			for i := range siblings.Items {
				ids = append(ids, string(siblings.Items[i].UID))
			}
		}
	}
	var related []*corev1.Pod
	for _, id := range ids {
		var pods corev1.PodList
		if r.client.List(ctx, &pods, crclient.InNamespace(rs.Namespace), crclient.MatchingFields{"owner.uid": id}, crclient.UnsafeDisableDeepCopy) == nil {
			for i := range pods.Items {
				if podstate.Active(&pods.Items[i]) {
					related = append(related, &pods.Items[i])
				}
			}
		}
	}
	return related
}

func (r *reconciler) writeStatus(ctx context.Context, rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) error {
	if equality.Semantic.DeepEqual(rs.Status, status) {
		return nil
	}
	changed := rs.DeepCopy()
	changed.Status = status
	if err := r.client.SubResource("status").Update(ctx, changed); err != nil {
		return fmt.Errorf("write the status of ReplicaSet %s: %w", rs.Name, crclient.IgnoreNotFound(err))
	}
	return nil
}

func value(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
