// Package statefulset keeps pods with names, an order and storage of their own: web-0, web-1, …
//
// decide is pure: a StatefulSet, its pods, revisions and claims in, a plan out. Its invariant is the documented one: there is never more than
// one pod of a name; under OrderedReady a pod is made only while all before it are available, and taken away only while all before it are,
// one at a time and from the top. A pod's claims exist before the pod does and outlive it unless the retention policy says otherwise.
package statefulset

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/history"
	"skiff.dev/skiff/internal/controller/podset"
)

// revisionHash is the label in which a StatefulSet's ControllerRevision bears the hash of its data.
const revisionHash = "controller.kubernetes.io/hash"

var gvk = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

type reconciler struct {
	client client.Client
	events record.EventRecorder
	pods   podset.Kind
	now    func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	events := c.Recorder("statefulset-controller")
	r := &reconciler{client: c, events: events, pods: podset.Kind{GVK: gvk, Client: c, Events: events}, now: time.Now}
	r.pods.Owners = r.owners
	return harness.Controller{
		Workers: 4,
		Watches: []harness.Watch{
			harness.Self(&appsv1.StatefulSet{}),
			harness.On(&corev1.Pod{}, r.pods.Changed),
			harness.On(&corev1.PersistentVolumeClaim{}, r.claimChanged),
		},
		Reconcile: r.reconcile,
	}
}

func (r *reconciler) list(namespace string) []appsv1.StatefulSet {
	var list appsv1.StatefulSetList
	if r.client.List(context.Background(), &list, crclient.InNamespace(namespace), crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	return list.Items
}

func (r *reconciler) owners(namespace string) []podset.Owner {
	var owners []podset.Owner
	for _, s := range r.list(namespace) {
		owners = append(owners, podset.Owner{Key: crclient.ObjectKeyFromObject(&s), Selector: s.Spec.Selector})
	}
	return owners
}

// claimChanged wakes the set whose pod waits for a claim of its former life to be gone.
func (r *reconciler) claimChanged(old, current *corev1.PersistentVolumeClaim) []harness.Key {
	if current != nil {
		return nil
	}
	var keys []harness.Key
	for _, s := range r.list(old.Namespace) {
		for i := range s.Spec.VolumeClaimTemplates {
			if strings.HasPrefix(old.Name, s.Spec.VolumeClaimTemplates[i].Name+"-"+s.Name+"-") {
				keys = append(keys, crclient.ObjectKeyFromObject(&s))
				break
			}
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var s appsv1.StatefulSet
	if err := r.client.Get(ctx, key, &s); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	selector, err := metav1.LabelSelectorAsSelector(s.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("read the selector of StatefulSet %s: %w", key, err)
	}
	o := observed{set: &s, now: r.now()}
	o.pods, err = r.pods.Claim(ctx, &s, selector, func(p *corev1.Pod) bool { return ordinalOf(&s, p) >= 0 })
	if err != nil {
		return 0, err
	}
	keeper := &history.Keeper{Client: r.client, Owner: &s, GVK: gvk, Selector: selector, HashLabel: revisionHash}
	revisions, err := r.revisions(ctx, keeper, &o)
	if err != nil || o.update == nil {
		return 0, err
	}
	if o.claims, err = r.claims(ctx, &o); err != nil {
		return 0, err
	}
	p, err := decide(o)
	if err != nil {
		return 0, err
	}
	applyErr := r.apply(ctx, &s, p)
	if err := r.writeStatus(ctx, &s, p.status); err != nil {
		return 0, err
	}
	if applyErr != nil {
		return 0, applyErr
	}
	return p.after, r.trim(ctx, keeper, &o, revisions)
}

// revisions finds or makes the revision of the present template, and that which the set's rollout started from.
func (r *reconciler) revisions(ctx context.Context, keeper *history.Keeper, o *observed) ([]*appsv1.ControllerRevision, error) {
	all, err := keeper.List(ctx)
	if err != nil {
		return nil, err
	}
	if c := o.set.Status.CollisionCount; c != nil {
		o.collisions = *c
	}
	if o.set.DeletionTimestamp == nil {
		o.update, all, o.collisions, err = keeper.Present(ctx, all, &o.set.Spec.Template, o.collisions)
		if err != nil {
			return nil, err
		}
	} else if len(all) > 0 {
		o.update = all[len(all)-1]
	}
	o.current = o.update
	for _, revision := range all {
		if revision.Name == o.set.Status.CurrentRevision {
			o.current = revision
		}
	}
	return all, nil
}

// claims are those of the set's pods that exist, present ones and ones to come.
func (r *reconciler) claims(ctx context.Context, o *observed) (map[string]*corev1.PersistentVolumeClaim, error) {
	if len(o.set.Spec.VolumeClaimTemplates) == 0 || o.set.DeletionTimestamp != nil {
		return nil, nil
	}
	ordinals := map[int]bool{}
	for _, p := range o.pods {
		ordinals[ordinalOf(o.set, p)] = true
	}
	for i := range replicas(o.set) {
		ordinals[start(o.set)+i] = true
	}
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for ordinal := range ordinals {
		for i := range o.set.Spec.VolumeClaimTemplates {
			name := claimName(o.set, &o.set.Spec.VolumeClaimTemplates[i], ordinal)
			claim := &corev1.PersistentVolumeClaim{}
			err := r.client.Get(ctx, harness.Key{Namespace: o.set.Namespace, Name: name}, claim)
			switch {
			case err == nil:
				claims[name] = claim
			case !apierrors.IsNotFound(err):
				return nil, fmt.Errorf("read claim %s of StatefulSet %s: %w", name, o.set.Name, err)
			}
		}
	}
	return claims, nil
}

// trim forgets the oldest templates that no pod is of any more.
func (r *reconciler) trim(ctx context.Context, keeper *history.Keeper, o *observed, revisions []*appsv1.ControllerRevision) error {
	if o.set.DeletionTimestamp != nil || o.set.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	used := map[string]bool{o.current.Name: true, o.update.Name: true}
	for _, p := range o.pods {
		used[p.Labels[appsv1.StatefulSetRevisionLabel]] = true
	}
	isUsed := func(r *appsv1.ControllerRevision) bool { return used[r.Name] }
	return keeper.Remove(ctx, history.Excess(revisions, isUsed, *o.set.Spec.RevisionHistoryLimit))
}

func (r *reconciler) writeStatus(ctx context.Context, s *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(s.Status, status) {
		return nil
	}
	changed := s.DeepCopy()
	changed.Status = status
	if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, changed)); err != nil {
		return fmt.Errorf("write the status of StatefulSet %s: %w", s.Name, err)
	}
	return nil
}
