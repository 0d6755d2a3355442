// Package replicaset keeps as many pods running as each ReplicaSet asks for. ReplicationControllers, the older kind of the same thing, run
// through here too (Kind).
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
	"skiff.dev/skiff/internal/controller/batch"
	"skiff.dev/skiff/internal/controller/expect"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podrank"
	"skiff.dev/skiff/internal/controller/podstate"
)

// burst is the most pods one reconcile creates or deletes.
const burst = 500

type reconciler struct {
	kind    Kind
	client  client.Client
	events  record.EventRecorder
	expect  expect.Book
	orphans owner.Orphans[*corev1.Pod]
	now     func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller { return Of(c, replicaSets) }

// Of returns the controller of a kind.
func Of(c client.Client, k Kind) harness.Controller {
	r := &reconciler{kind: k, client: c, events: c.Recorder(k.Component), now: time.Now}
	return harness.Controller{
		Workers:   4,
		Watches:   []harness.Watch{harness.Any(k.New(), r.ownerChanged), harness.On(&corev1.Pod{}, r.podChanged)},
		Reconcile: r.reconcile,
	}
}

func (r *reconciler) ownerChanged(old, current crclient.Object) []harness.Key {
	if current == nil {
		key := crclient.ObjectKeyFromObject(old)
		r.expect.Forget(key)
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
		if ref == nil || ref.Kind != r.kind.GVK.Kind || ref.APIVersion != r.kind.GVK.GroupVersion().String() {
			return key, false
		}
		key = harness.Key{Namespace: p.Namespace, Name: ref.Name}
		keys = append(keys, key)
		return key, true
	}
	if old != nil && (current == nil || !equality.Semantic.DeepEqual(owner.Of(old), owner.Of(current))) {
		if key, ok := wake(old); ok {
			r.expect.Deleted(key, old.UID)
		}
	}
	if current == nil {
		return keys
	}
	key, ok := wake(current)
	switch {
	case ok && current.DeletionTimestamp != nil:
		r.expect.Deleted(key, current.UID)
	case ok && old == nil:
		r.expect.Created(key)
	case !ok && owner.Of(current) == nil && (old == nil || !equality.Semantic.DeepEqual(old.Labels, current.Labels) || owner.Of(old) != nil):
		keys = append(keys, r.adopters(current)...)
	}
	return keys
}

func (r *reconciler) adopters(pod *corev1.Pod) []harness.Key {
	var keys []harness.Key
	for _, o := range r.kind.List(r.client, pod.Namespace) {
		rs := r.kind.View(o)
		selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, crclient.ObjectKeyFromObject(rs))
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	object := r.kind.New()
	if err := r.client.Get(ctx, key, object); err != nil {
		r.expect.Forget(key)
		return 0, crclient.IgnoreNotFound(err)
	}
	rs := &set{ReplicaSet: r.kind.View(object), object: object}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("read the selector of %s %s: %w", r.kind.GVK.Kind, key, err)
	}
	mayAct := r.expect.Met(key)
	pods, err := r.claim(ctx, rs, selector)
	if err != nil {
		return 0, err
	}
	var manageErr error
	if mayAct && rs.DeletionTimestamp == nil {
		var changed bool
		changed, manageErr = r.manage(ctx, key, rs, pods)
		if changed { // a status of what is there now spares the write of one that is already old
			if pods, err = r.claim(ctx, rs, selector); err != nil {
				return 0, err
			}
		}
	}
	status, after := statusOf(rs.ReplicaSet, pods, manageErr, r.now())
	if err := r.writeStatus(ctx, rs, status); err != nil {
		return 0, err
	}
	if !mayAct && after == 0 {
		after = expect.Patience // nothing may ever come to wake it, if the change was lost
	}
	return after, manageErr
}

// claim returns the pods that are the ReplicaSet's, after adoption and release.
func (r *reconciler) claim(ctx context.Context, rs *set, selector labels.Selector) ([]*corev1.Pod, error) {
	var owned corev1.PodList
	err := r.client.List(ctx, &owned, crclient.InNamespace(rs.Namespace), crclient.MatchingFields{"owner.uid": string(rs.UID)}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list pods of %s %s: %w", r.kind.GVK.Kind, rs.Name, err)
	}
	candidates := r.orphans.In(rs.Namespace)
	for i := range owned.Items {
		candidates = append(candidates, &owned.Items[i])
	}
	claimer := owner.Claimer{Client: r.client, Live: r.client.Live(), Owner: rs.object, GVK: r.kind.GVK, Selector: selector}
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
func (r *reconciler) manage(ctx context.Context, key harness.Key, rs *set, pods []*corev1.Pod) (bool, error) {
	active := activePods(pods)
	missing := int(value(rs.Spec.Replicas)) - len(active)
	switch {
	case missing > 0:
		n := min(missing, burst)
		r.expect.Changes(key, n, nil)
		made, err := batch.Growing(n, func(int) error { return r.create(ctx, rs) })
		r.expect.Give(key, n-made)
		return made > 0, err
	case missing < 0:
		victims := podrank.First(active, r.related(ctx, rs), min(-missing, burst))
		r.expect.Changes(key, 0, victims)
		_, err := batch.Parallel(len(victims), func(i int) error { return r.remove(ctx, key, rs, victims[i]) })
		return true, err
	}
	return false, nil
}

func (r *reconciler) create(ctx context.Context, rs *set) error {
	pod := podFrom(rs.ReplicaSet, r.kind.GVK)
	err := r.client.Create(ctx, pod)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace life cycle deletes us too
	case err != nil:
		r.events.Eventf(rs.object, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	r.events.Eventf(rs.object, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
	return nil
}

func (r *reconciler) remove(ctx context.Context, key harness.Key, rs *set, pod *corev1.Pod) error {
	uid := pod.UID
	err := r.client.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}},
		crclient.Preconditions{UID: &uid})
	if err == nil {
		r.events.Eventf(rs.object, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
		return nil
	}
	r.expect.Deleted(key, pod.UID)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone already
	}
	r.events.Eventf(rs.object, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
	return err
}

// related returns the pods of all ReplicaSets with the same controller, by which doubling up on a node is judged.
func (r *reconciler) related(ctx context.Context, rs *set) []*corev1.Pod {
	ids := []string{string(rs.UID)}
	if ref := owner.Of(rs); ref != nil { // only a ReplicaSet's
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

func (r *reconciler) writeStatus(ctx context.Context, rs *set, status appsv1.ReplicaSetStatus) error {
	if equality.Semantic.DeepEqual(r.kind.Status(status), rs.Status) {
		return nil
	}
	changed := rs.object.DeepCopyObject().(crclient.Object)
	r.kind.SetStatus(changed, status)
	if err := r.client.SubResource("status").Update(ctx, changed); err != nil {
		return fmt.Errorf("write the status of %s %s: %w", r.kind.GVK.Kind, rs.Name, crclient.IgnoreNotFound(err))
	}
	return nil
}

func value(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
