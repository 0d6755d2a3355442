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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/batch"
	"skiff.dev/skiff/internal/controller/expect"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podrank"
	"skiff.dev/skiff/internal/controller/podset"
	"skiff.dev/skiff/internal/controller/podstate"
)

// burst is the most pods one reconcile creates or deletes.
const burst = 500

type reconciler struct {
	kind   Kind
	client client.Client
	pods   podset.Kind
	now    func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller { return Of(c, replicaSets) }

// Of returns the controller of a kind.
func Of(c client.Client, k Kind) harness.Controller {
	r := &reconciler{kind: k, client: c, pods: podset.Kind{GVK: k.GVK, Client: c, Events: c.Recorder(k.Component)}, now: time.Now}
	r.pods.Owners = r.owners
	return harness.Controller{
		Workers:   4,
		Watches:   []harness.Watch{harness.Any(k.New(), r.ownerChanged), harness.On(&corev1.Pod{}, r.pods.Changed)},
		Reconcile: r.reconcile,
	}
}

func (r *reconciler) ownerChanged(old, current crclient.Object) []harness.Key {
	if current == nil {
		key := crclient.ObjectKeyFromObject(old)
		r.pods.Expect.Forget(key)
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

func (r *reconciler) owners(namespace string) []podset.Owner {
	var owners []podset.Owner
	for _, o := range r.kind.List(r.client, namespace) {
		owners = append(owners, podset.Owner{Key: crclient.ObjectKeyFromObject(o), Selector: r.kind.View(o).Spec.Selector})
	}
	return owners
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	object := r.kind.New()
	if err := r.client.Get(ctx, key, object); err != nil {
		r.pods.Expect.Forget(key)
		return 0, crclient.IgnoreNotFound(err)
	}
	rs := &set{ReplicaSet: r.kind.View(object), object: object}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("read the selector of %s %s: %w", r.kind.GVK.Kind, key, err)
	}
	mayAct := r.pods.Expect.Met(key)
	pods, err := r.pods.Claim(ctx, rs.object, selector, nil)
	if err != nil {
		return 0, err
	}
	var manageErr error
	if mayAct && rs.DeletionTimestamp == nil {
		var changed bool
		changed, manageErr = r.manage(ctx, key, rs, pods)
		if changed { // a status of what is there now spares the write of one that is already old
			if pods, err = r.pods.Claim(ctx, rs.object, selector, nil); err != nil {
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

// manage creates or deletes the difference and says whether it changed anything.
func (r *reconciler) manage(ctx context.Context, key harness.Key, rs *set, pods []*corev1.Pod) (bool, error) {
	active := activePods(pods)
	missing := int(value(rs.Spec.Replicas)) - len(active)
	switch {
	case missing > 0:
		n := min(missing, burst)
		r.pods.Expect.Changes(key, n, nil)
		made, err := batch.Growing(n, func(int) error { return r.pods.Create(ctx, rs.object, r.podFrom(rs)) })
		r.pods.Expect.Give(key, n-made)
		return made > 0, err
	case missing < 0:
		victims := podrank.First(active, r.related(ctx, rs), min(-missing, burst))
		r.pods.Expect.Changes(key, 0, victims)
		_, err := batch.Parallel(len(victims), func(i int) error { return r.pods.Remove(ctx, rs.object, victims[i]) })
		return true, err
	}
	return false, nil
}

func (r *reconciler) podFrom(rs *set) *corev1.Pod {
	pod := r.pods.FromTemplate(rs, &rs.Spec.Template)
	pod.GenerateName = rs.Name + "-"
	return pod
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
	if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, changed)); err != nil {
		return fmt.Errorf("write the status of %s %s: %w", r.kind.GVK.Kind, rs.Name, err)
	}
	return nil
}

func value(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
