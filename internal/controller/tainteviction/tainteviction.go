// Package tainteviction deletes pods from nodes whose NoExecute taints they don't tolerate, or tolerate only for a time.
//
// The time counts from when this process first saw the pod under such a taint, by the monotonic clock.
package tainteviction

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
	now    func() time.Time

	mu    sync.Mutex
	since map[types.UID]time.Time // pods whose time runs
}

// New returns the controller. Its keys are pods.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Workers:   4,
		Watches:   []harness.Watch{harness.On(&corev1.Node{}, r.nodeChanged), harness.On(&corev1.Pod{}, r.podChanged)},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("taint-eviction-controller"), now: time.Now, since: map[types.UID]time.Time{}}
}

func (r *reconciler) nodeChanged(old, current *corev1.Node) []harness.Key {
	if current == nil {
		return nil // the pod garbage collector's
	}
	before := []corev1.Taint(nil)
	if old != nil {
		before = noExecute(old)
	}
	if slices.EqualFunc(before, noExecute(current), func(a, b corev1.Taint) bool { return a.Key == b.Key && a.Value == b.Value }) {
		return nil
	}
	var pods corev1.PodList
	err := r.client.List(context.Background(), &pods, crclient.MatchingFields{"spec.nodeName": current.Name}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil // the cache is stopping
	}
	keys := make([]harness.Key, len(pods.Items))
	for i := range pods.Items {
		keys[i] = crclient.ObjectKeyFromObject(&pods.Items[i])
	}
	return keys
}

func (r *reconciler) podChanged(old, current *corev1.Pod) []harness.Key {
	switch {
	case current == nil:
		r.stop(old.UID)
		return nil
	case current.Spec.NodeName == "":
		return nil
	case old != nil && old.Spec.NodeName == current.Spec.NodeName && slices.EqualFunc(old.Spec.Tolerations, current.Spec.Tolerations, sameToleration):
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

func sameToleration(a, b corev1.Toleration) bool {
	return a.MatchToleration(&b) && (a.TolerationSeconds == nil) == (b.TolerationSeconds == nil) &&
		(a.TolerationSeconds == nil || *a.TolerationSeconds == *b.TolerationSeconds)
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var pod corev1.Pod
	if err := r.client.Get(ctx, key, &pod); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	var node corev1.Node
	if pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil {
		r.stop(pod.UID)
		return 0, nil
	}
	if err := r.client.Get(ctx, harness.Key{Name: pod.Spec.NodeName}, &node); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	patience, limited := tolerated(noExecute(&node), pod.Spec.Tolerations)
	if !limited {
		if r.stop(pod.UID) {
			r.events.Eventf(&pod, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s/%s", pod.Namespace, pod.Name)
		}
		return 0, nil
	}
	if left := patience - r.running(pod.UID); left > 0 {
		return left, nil
	}
	return 0, r.evict(ctx, &pod)
}

// running starts a pod's time if it doesn't run yet, and returns how long it has.
func (r *reconciler) running(uid types.UID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.since[uid]
	if !ok {
		at = r.now()
		r.since[uid] = at
	}
	return r.now().Sub(at)
}

func (r *reconciler) stop(uid types.UID) (ran bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ran = r.since[uid]
	delete(r.since, uid)
	return ran
}

func (r *reconciler) evict(ctx context.Context, pod *corev1.Pod) error {
	r.events.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", pod.Namespace, pod.Name)
	return Evict(ctx, r.client, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", r.now())
}

// Evict says of a pod that it is disrupted, and why, and deletes it.
func Evict(ctx context.Context, c client.Client, pod *corev1.Pod, reason, message string, now time.Time) error {
	marked := pod.DeepCopy()
	if podstate.Set(&marked.Status, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason,
		Message: message, LastTransitionTime: metav1.NewTime(now),
		ObservedGeneration: pod.Generation,
	}) {
		if err := c.SubResource("status").Update(ctx, marked); crclient.IgnoreNotFound(err) != nil {
			return fmt.Errorf("mark pod %s/%s for eviction: %w", pod.Namespace, pod.Name, err)
		}
	}
	uid := pod.UID
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	err := c.Delete(ctx, target, crclient.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
