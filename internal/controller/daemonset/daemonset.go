// Package daemonset keeps one pod of each DaemonSet on every node that suits it.
//
// decide is pure: a DaemonSet, the nodes, its pods and the time in, a plan out. Its invariant: a pod is bound to its node by a required
// affinity to the node's name and placed by the scheduler like any other; a rollout never takes more nodes out of service than maxUnavailable,
// nodes that are out of service anyway included. While changes of its own are not yet visible in the cache it changes nothing.
package daemonset

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/batch"
	"skiff.dev/skiff/internal/controller/expect"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/history"
	"skiff.dev/skiff/internal/controller/podset"
)

const (
	// burst is the most pods one pass creates or deletes.
	burst = 250
	// A node's failed pod is replaced after failedFirst, further ones each twice as late, up to failedLast.
	failedFirst = time.Second
	failedLast  = 15 * time.Minute
)

var gvk = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

type reconciler struct {
	client client.Client
	events record.EventRecorder
	pods   podset.Kind
	failed *flowcontrol.Backoff // by DaemonSet and node
	now    func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	events := c.Recorder("daemonset-controller")
	r := &reconciler{
		client: c, events: events, pods: podset.Kind{GVK: gvk, Client: c, Events: events},
		failed: flowcontrol.NewBackOff(failedFirst, failedLast), now: time.Now,
	}
	r.pods.Owners = r.owners
	return harness.Controller{
		Workers: 2,
		Watches: []harness.Watch{
			harness.On(&appsv1.DaemonSet{}, r.setChanged),
			harness.On(&corev1.Pod{}, r.pods.Changed),
			harness.On(&corev1.Node{}, r.nodeChanged),
		},
		Reconcile: r.reconcile,
	}
}

func (r *reconciler) setChanged(old, current *appsv1.DaemonSet) []harness.Key {
	if current == nil {
		r.pods.Expect.Forget(crclient.ObjectKeyFromObject(old))
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

// nodeChanged wakes the sets for which a node changed in what they ask for. Heartbeats change nothing of that.
func (r *reconciler) nodeChanged(old, current *corev1.Node) []harness.Key {
	if old != nil && current != nil && equality.Semantic.DeepEqual(old.Labels, current.Labels) && equality.Semantic.DeepEqual(old.Spec.Taints, current.Spec.Taints) {
		return nil
	}
	var keys []harness.Key
	for _, d := range r.list("") {
		m := matcherOf(&d)
		if m.on(old) != m.on(current) {
			keys = append(keys, crclient.ObjectKeyFromObject(&d))
		}
	}
	return keys
}

func (r *reconciler) list(namespace string) []appsv1.DaemonSet {
	var list appsv1.DaemonSetList
	if r.client.List(context.Background(), &list, crclient.InNamespace(namespace), crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	return list.Items
}

func (r *reconciler) owners(namespace string) []podset.Owner {
	var owners []podset.Owner
	for _, d := range r.list(namespace) {
		owners = append(owners, podset.Owner{Key: crclient.ObjectKeyFromObject(&d), Selector: d.Spec.Selector})
	}
	return owners
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var d appsv1.DaemonSet
	if err := r.client.Get(ctx, key, &d); err != nil {
		r.pods.Expect.Forget(key)
		return 0, crclient.IgnoreNotFound(err)
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("read the selector of DaemonSet %s: %w", key, err)
	}
	if selector.Empty() {
		r.events.Event(&d, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return 0, nil
	}
	o := observed{set: &d, mayAct: r.pods.Expect.Met(key) && d.DeletionTimestamp == nil, now: r.now()}
	keeper := &history.Keeper{Client: r.client, Owner: &d, GVK: gvk, Selector: selector, HashLabel: appsv1.DefaultDaemonSetUniqueLabelKey}
	revisions, err := r.revisions(ctx, keeper, &o)
	if err != nil {
		return 0, err
	}
	if err := r.observe(ctx, &o); err != nil {
		return 0, err
	}
	if o.pods, err = r.pods.Claim(ctx, &d, selector, nil); err != nil {
		return 0, err
	}
	p := decide(o)
	changed, applyErr := r.apply(ctx, key, &d, p)
	if changed { // a status of what is there now spares the write of one that is already old
		if o.pods, err = r.pods.Claim(ctx, &d, selector, nil); err != nil {
			return 0, err
		}
		p.status, p.after = statusOf(o)
	}
	if err := r.writeStatus(ctx, &d, p.status); err != nil {
		return 0, err
	}
	if applyErr != nil {
		return 0, applyErr
	}
	if !o.mayAct && p.after == 0 {
		p.after = expect.Patience // nothing may ever come to wake it, if the change was lost
	}
	return p.after, r.trim(ctx, keeper, &o, revisions)
}

// revisions finds or makes the revision of the present template.
func (r *reconciler) revisions(ctx context.Context, keeper *history.Keeper, o *observed) ([]*appsv1.ControllerRevision, error) {
	all, err := keeper.List(ctx)
	if err != nil {
		return nil, err
	}
	if c := o.set.Status.CollisionCount; c != nil {
		o.collisions = *c
	}
	var present *appsv1.ControllerRevision
	if o.set.DeletionTimestamp == nil {
		if present, all, o.collisions, err = keeper.Present(ctx, all, &o.set.Spec.Template, o.collisions); err != nil {
			return nil, err
		}
	} else if len(all) > 0 {
		present = all[len(all)-1]
	}
	if present != nil {
		o.hash = present.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
	}
	return all, nil
}

func (r *reconciler) observe(ctx context.Context, o *observed) error {
	var nodes corev1.NodeList
	if err := r.client.List(ctx, &nodes, crclient.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list nodes for DaemonSet %s: %w", o.set.Name, err)
	}
	o.nodes = make([]*corev1.Node, len(nodes.Items))
	for i := range nodes.Items {
		o.nodes[i] = &nodes.Items[i]
	}
	o.patience = func(node string) time.Duration {
		if id := backoffID(o.set, node); r.failed.IsInBackOffSinceUpdate(id, o.now) {
			return r.failed.Get(id)
		}
		return 0
	}
	return nil
}

func backoffID(d *appsv1.DaemonSet, node string) string { return string(d.UID) + "/" + node }

// apply carries a plan out and says whether it changed anything.
func (r *reconciler) apply(ctx context.Context, key harness.Key, d *appsv1.DaemonSet, p plan) (changed bool, err error) {
	for _, pod := range p.failed {
		node := nodeOf(pod)
		r.failed.GC()
		r.failed.Next(backoffID(d, node), r.now())
		r.events.Eventf(d, corev1.EventTypeWarning, "FailedDaemonPod",
			"Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, node)
	}
	for _, pod := range p.succeeded {
		r.events.Eventf(d, corev1.EventTypeNormal, "SucceededDaemonPod",
			"Found succeeded daemon pod %s/%s on node %s, will try to delete it", pod.Namespace, pod.Name, nodeOf(pod))
	}
	nodes, victims := p.create[:min(len(p.create), burst)], p.remove[:min(len(p.remove), burst)]
	if len(nodes)+len(victims) == 0 {
		return false, nil
	}
	r.pods.Expect.Changes(key, len(nodes), victims)
	made, err := batch.Growing(len(nodes), func(i int) error { return r.pods.Create(ctx, d, r.podFor(d, nodes[i], p.hash)) })
	r.pods.Expect.Give(key, len(nodes)-made)
	if _, removeErr := batch.Parallel(len(victims), func(i int) error { return r.pods.Remove(ctx, d, victims[i]) }); err == nil {
		err = removeErr
	}
	return true, err
}

// trim forgets the oldest templates that no pod is of any more.
func (r *reconciler) trim(ctx context.Context, keeper *history.Keeper, o *observed, revisions []*appsv1.ControllerRevision) error {
	if o.set.DeletionTimestamp != nil || o.set.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	used := map[string]bool{o.hash: true}
	for _, p := range o.pods {
		used[p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	isUsed := func(r *appsv1.ControllerRevision) bool { return used[r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] }
	return keeper.Remove(ctx, history.Excess(revisions, isUsed, *o.set.Spec.RevisionHistoryLimit))
}

func (r *reconciler) writeStatus(ctx context.Context, d *appsv1.DaemonSet, status appsv1.DaemonSetStatus) error {
	if equality.Semantic.DeepEqual(d.Status, status) {
		return nil
	}
	changed := d.DeepCopy()
	changed.Status = status
	if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, changed)); err != nil {
		return fmt.Errorf("write the status of DaemonSet %s: %w", d.Name, err)
	}
	return nil
}
