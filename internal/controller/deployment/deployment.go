// Package deployment rolls Deployments out: one ReplicaSet a pod template, scaled so that surge and unavailability stay within bounds.
//
// decide is pure: a Deployment, its ReplicaSets and the time in, a plan out. Its invariant is upstream's: ReplicaSets of a Deployment
// differ in their template (pod-template-hash aside), and the one that equals the Deployment's template is the new one. A pass does one
// step; the ReplicaSets' progress wakes the next.
package deployment

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podstate"
)

var gvk = appsv1.SchemeGroupVersion.WithKind("Deployment")

type reconciler struct {
	client  client.Client
	events  record.EventRecorder
	orphans owner.Orphans[*appsv1.ReplicaSet]
	now     func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Workers: 4,
		Watches: []harness.Watch{
			harness.Self(&appsv1.Deployment{}),
			harness.On(&appsv1.ReplicaSet{}, r.replicaSetChanged),
			harness.On(&corev1.Pod{}, r.podChanged),
		},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("deployment-controller"), now: time.Now}
}

func (r *reconciler) replicaSetChanged(old, current *appsv1.ReplicaSet) []harness.Key {
	r.orphans.Saw(old, current)
	var keys []harness.Key
	wake := func(rs *appsv1.ReplicaSet) {
		if ref := owner.Of(rs); ref != nil && ref.Kind == gvk.Kind && ref.APIVersion == gvk.GroupVersion().String() {
			keys = append(keys, harness.Key{Namespace: rs.Namespace, Name: ref.Name})
		}
	}
	if old != nil && (current == nil || !equality.Semantic.DeepEqual(owner.Of(old), owner.Of(current))) {
		wake(old)
	}
	if current == nil {
		return keys
	}
	wake(current)
	if owner.Of(current) == nil && (old == nil || owner.Of(old) != nil || !equality.Semantic.DeepEqual(old.Labels, current.Labels)) {
		keys = append(keys, r.adopters(current)...)
	}
	return keys
}

func (r *reconciler) adopters(rs *appsv1.ReplicaSet) []harness.Key {
	var list appsv1.DeploymentList
	if err := r.client.List(context.Background(), &list, crclient.InNamespace(rs.Namespace), crclient.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping
	}
	var keys []harness.Key
	for i := range list.Items {
		selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(rs.Labels)) {
			keys = append(keys, crclient.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return keys
}

// podChanged wakes a Deployment that waits for its old pods to be gone before it recreates them.
func (r *reconciler) podChanged(old, current *corev1.Pod) []harness.Key {
	if old == nil || current != nil && (podstate.Terminal(old) || !podstate.Terminal(current)) {
		return nil
	}
	ref := owner.Of(old)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	var rs appsv1.ReplicaSet
	if r.client.Get(context.Background(), harness.Key{Namespace: old.Namespace, Name: ref.Name}, &rs) != nil || owner.Of(&rs) == nil {
		return nil
	}
	key := harness.Key{Namespace: old.Namespace, Name: owner.Of(&rs).Name}
	var d appsv1.Deployment
	if r.client.Get(context.Background(), key, &d) != nil || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return nil
	}
	return []harness.Key{key}
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var d appsv1.Deployment
	if err := r.client.Get(ctx, key, &d); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("read the selector of Deployment %s: %w", key, err)
	}
	if selector.Empty() {
		r.events.Event(&d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		status := *d.Status.DeepCopy()
		status.ObservedGeneration = d.Generation
		return 0, r.writeStatus(ctx, &d, status)
	}
	sets, err := r.claim(ctx, &d, selector)
	if err != nil {
		return 0, err
	}
	running, err := r.runningPods(ctx, &d, sets)
	if err != nil {
		return 0, err
	}
	p := decide(observed{deployment: &d, sets: sets, running: running, now: r.now()})
	return p.after, r.apply(ctx, &d, p)
}

func (r *reconciler) claim(ctx context.Context, d *appsv1.Deployment, selector labels.Selector) ([]*appsv1.ReplicaSet, error) {
	var owned appsv1.ReplicaSetList
	err := r.client.List(ctx, &owned, crclient.InNamespace(d.Namespace), crclient.MatchingFields{"owner.uid": string(d.UID)},
		crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list ReplicaSets of Deployment %s: %w", d.Name, err)
	}
	candidates := r.orphans.In(d.Namespace)
	for i := range owned.Items {
		candidates = append(candidates, &owned.Items[i])
	}
	claimer := owner.Claimer{Client: r.client, Live: r.client.Live(), Owner: d, GVK: gvk, Selector: selector}
	var mine []*appsv1.ReplicaSet
	for _, rs := range candidates {
		ok, err := claimer.Claim(ctx, rs)
		if err != nil {
			return nil, err
		}
		if ok {
			mine = append(mine, rs)
		}
	}
	return mine, nil
}

// runningPods counts the pods that are not terminal by ReplicaSet. Only the Recreate strategy asks.
func (r *reconciler) runningPods(ctx context.Context, d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (map[types.UID]int, error) {
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return nil, nil
	}
	running := map[types.UID]int{}
	for _, rs := range sets {
		var pods corev1.PodList
		err := r.client.List(ctx, &pods, crclient.InNamespace(d.Namespace), crclient.MatchingFields{"owner.uid": string(rs.UID)},
			crclient.UnsafeDisableDeepCopy)
		if err != nil {
			return nil, fmt.Errorf("list pods of ReplicaSet %s: %w", rs.Name, err)
		}
		for i := range pods.Items {
			if !podstate.Terminal(&pods.Items[i]) {
				running[rs.UID]++
			}
		}
	}
	return running, nil
}

// apply carries a plan out: the new ReplicaSet first, because nothing old may shrink for a new one that cannot be made.
func (r *reconciler) apply(ctx context.Context, d *appsv1.Deployment, p plan) error {
	if p.create != nil {
		if err := r.create(ctx, d, p.create); err != nil {
			return err
		}
	}
	for _, c := range p.changes {
		if err := r.change(ctx, d, c); err != nil {
			return err
		}
	}
	for _, rs := range p.remove {
		uid := rs.UID
		err := r.client.Delete(ctx, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: rs.Namespace, Name: rs.Name}},
			crclient.Preconditions{UID: &uid})
		if err := crclient.IgnoreNotFound(err); err != nil {
			return fmt.Errorf("remove old ReplicaSet %s: %w", rs.Name, err)
		}
	}
	if p.revision != "" && d.Annotations[revisionAnnotation] != p.revision {
		if err := r.annotate(ctx, d, p.revision); err != nil {
			return err
		}
	}
	return r.writeStatus(ctx, d, p.status)
}

// create makes the new ReplicaSet. A namesake with another template is a hash collision, which the next pass avoids.
func (r *reconciler) create(ctx context.Context, d *appsv1.Deployment, rs *appsv1.ReplicaSet) error {
	made := rs.DeepCopy()
	err := r.client.Create(ctx, made)
	switch {
	case apierrors.IsAlreadyExists(err):
		var namesake appsv1.ReplicaSet
		if err := r.client.Live().Get(ctx, crclient.ObjectKeyFromObject(rs), &namesake); err != nil {
			return fmt.Errorf("look at the existing ReplicaSet %s: %w", rs.Name, err)
		}
		if owner.By(&namesake, d.UID) && sameTemplate(&namesake.Spec.Template, &rs.Spec.Template) {
			return nil // ours, and the cache doesn't know yet
		}
		status := *d.Status.DeepCopy()
		collisions := int32(0)
		if status.CollisionCount != nil {
			collisions = *status.CollisionCount
		}
		collisions++
		status.CollisionCount = &collisions
		if err := r.writeStatus(ctx, d, status); err != nil {
			return err
		}
		return fmt.Errorf("name of new ReplicaSet %s is taken: %w", rs.Name, err)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace life cycle deletes us too
	case err != nil:
		message := fmt.Sprintf("Failed to create new replica set %q: %v", rs.Name, err)
		r.events.Event(d, corev1.EventTypeWarning, reasonCreateFailed, message)
		if hasDeadline(d) {
			status := *d.Status.DeepCopy()
			setCondition(&status, condition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonCreateFailed, message, r.now()))
			if err := r.writeStatus(ctx, d, status); err != nil {
				return err
			}
		}
		return fmt.Errorf("create ReplicaSet %s: %w", rs.Name, err)
	}
	if *rs.Spec.Replicas > 0 {
		r.events.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", made.Name, *rs.Spec.Replicas)
	}
	return nil
}

func (r *reconciler) change(ctx context.Context, d *appsv1.Deployment, c *set) error {
	changed := c.DeepCopy()
	changed.Spec.Replicas = &c.replicas
	changed.Spec.MinReadySeconds = c.minReady
	changed.Annotations = c.annotations
	if err := r.client.Update(ctx, changed); err != nil {
		return fmt.Errorf("update ReplicaSet %s: %w", c.Name, err)
	}
	before := count(c.Spec.Replicas)
	if before == c.replicas {
		return nil
	}
	direction := "down"
	if c.replicas > before {
		direction = "up"
	}
	r.events.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", direction, c.Name, before, c.replicas)
	return nil
}

func (r *reconciler) annotate(ctx context.Context, d *appsv1.Deployment, revision string) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": d.UID, "annotations": map[string]string{revisionAnnotation: revision}}})
	if err != nil {
		return err
	}
	target := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}}
	// Through status, for it is no change of what is wanted: one to the Deployment itself would begin a generation.
	if err := r.client.SubResource("status").Patch(ctx, target, crclient.RawPatch(types.MergePatchType, body)); err != nil {
		return fmt.Errorf("note revision %s on Deployment %s: %w", revision, d.Name, err)
	}
	// So that the status write that follows is not outdated by our own, and does not take back what it says.
	d.ResourceVersion, d.Annotations = target.ResourceVersion, target.Annotations
	return nil
}

// writeStatus writes if there is a difference. d is the pass's own top-level copy; what it points to is shared.
func (r *reconciler) writeStatus(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(d.Status, status) {
		return nil
	}
	changed := d.DeepCopy()
	changed.Status = status
	if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, changed)); err != nil {
		return fmt.Errorf("write the status of Deployment %s: %w", d.Name, err)
	}
	return nil
}
