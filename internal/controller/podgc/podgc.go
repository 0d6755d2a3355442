// Package podgc removes pods that nobody else will: of nodes that are gone, deleted before they had a node, and the oldest of too many
// terminated ones.
//
// Keys are pods, nodes (no namespace) and the one key of the terminated. Nothing here looks through all pods: the books are kept by events.
package podgc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

const (
	// threshold is how many terminated pods may lie about for their logs and status to be read.
	threshold = 12500
	// quarantine is how long a node must have been missing: it may only just be registering.
	quarantine = 40 * time.Second
)

// terminatedKey can be no pod and no node: their names have no slash.
var terminatedKey = harness.Key{Name: "terminated/pods"}

type reconciler struct {
	client    client.Client
	now       func() time.Time
	threshold int

	mu         sync.Mutex
	terminated map[harness.Key]*corev1.Pod
	missing    map[string]time.Time // nodes, since when
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Watches:   []harness.Watch{harness.On(&corev1.Node{}, r.nodeChanged), harness.On(&corev1.Pod{}, r.podChanged)},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{
		client: c, now: time.Now, threshold: threshold,
		terminated: map[harness.Key]*corev1.Pod{}, missing: map[string]time.Time{},
	}
}

func (r *reconciler) nodeChanged(old, current *corev1.Node) []harness.Key {
	if current != nil {
		r.mu.Lock()
		delete(r.missing, current.Name)
		r.mu.Unlock()
		return nil
	}
	return []harness.Key{{Name: old.Name}}
}

func (r *reconciler) podChanged(old, current *corev1.Pod) []harness.Key {
	if current == nil {
		r.mu.Lock()
		delete(r.terminated, crclient.ObjectKeyFromObject(old))
		r.mu.Unlock()
		return nil
	}
	var keys []harness.Key
	key := crclient.ObjectKeyFromObject(current)
	if podstate.Terminal(current) {
		r.mu.Lock()
		r.terminated[key] = current
		if len(r.terminated) > r.threshold {
			keys = append(keys, terminatedKey)
		}
		r.mu.Unlock()
	}
	switch node := current.Spec.NodeName; {
	case node == "" && current.DeletionTimestamp != nil:
		keys = append(keys, key)
	case node != "" && (old == nil || old.Spec.NodeName != node):
		var n corev1.Node
		if err := r.client.Get(context.Background(), harness.Key{Name: node}, &n); apierrors.IsNotFound(err) {
			keys = append(keys, harness.Key{Name: node})
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	switch {
	case key == terminatedKey:
		return 0, r.trim(ctx)
	case key.Namespace == "":
		return r.orphans(ctx, key.Name)
	}
	var pod corev1.Pod
	if err := r.client.Get(ctx, key, &pod); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if pod.DeletionTimestamp == nil || pod.Spec.NodeName != "" {
		return 0, nil
	}
	return 0, r.remove(ctx, &pod, "")
}

// trim deletes the oldest terminated pods beyond the threshold, evicted ones first.
func (r *reconciler) trim(ctx context.Context) error {
	r.mu.Lock()
	victims := excess(r.terminated, r.threshold)
	r.mu.Unlock()
	var errs []error
	for _, pod := range victims {
		errs = append(errs, r.remove(ctx, pod, ""))
	}
	return errors.Join(errs...)
}

func excess(terminated map[harness.Key]*corev1.Pod, threshold int) []*corev1.Pod {
	if len(terminated) <= threshold {
		return nil
	}
	all := make([]*corev1.Pod, 0, len(terminated))
	for _, p := range terminated {
		all = append(all, p)
	}
	evicted := func(p *corev1.Pod) int {
		if p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted" {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(evicted(a), evicted(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return all[:len(all)-threshold]
}

// orphans removes the pods of a node that has been missing long enough and is truly gone.
func (r *reconciler) orphans(ctx context.Context, node string) (time.Duration, error) {
	var n corev1.Node
	err := r.client.Live().Get(ctx, harness.Key{Name: node}, &n)
	if err == nil || !apierrors.IsNotFound(err) {
		r.forget(node)
		return 0, err
	}
	if left := quarantine - r.gone(node); left > 0 {
		return left, nil
	}
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, crclient.MatchingFields{"spec.nodeName": node}, crclient.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list the pods of node %s: %w", node, err)
	}
	var errs []error
	for i := range pods.Items {
		errs = append(errs, r.remove(ctx, &pods.Items[i], "PodGC: node no longer exists"))
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	r.forget(node)
	return 0, nil
}

func (r *reconciler) gone(node string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.missing[node]
	if !ok {
		at = r.now()
		r.missing[node] = at
	}
	return r.now().Sub(at)
}

func (r *reconciler) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.missing, node)
}

// remove deletes a pod without grace, because no kubelet would end it. A pod that might still count as running is failed first, with the
// reason, so that whoever owns it can tell.
func (r *reconciler) remove(ctx context.Context, pod *corev1.Pod, because string) error {
	if !podstate.Terminal(pod) {
		failed := pod.DeepCopy()
		failed.Status.Phase = corev1.PodFailed
		if because != "" {
			podstate.Set(&failed.Status, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: because,
				LastTransitionTime: metav1.NewTime(r.now()), ObservedGeneration: pod.Generation,
			})
		}
		if err := r.client.SubResource("status").Update(ctx, failed); crclient.IgnoreNotFound(err) != nil {
			return fmt.Errorf("fail pod %s/%s before it goes: %w", pod.Namespace, pod.Name, err)
		}
	}
	uid := pod.UID
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	err := r.client.Delete(ctx, target, crclient.GracePeriodSeconds(0), crclient.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
