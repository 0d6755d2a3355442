// Package nodelifecycle notices nodes that stopped reporting and keeps the taints that follow from a node's conditions.
//
// Its invariant: time is what this process's monotonic clock measured since it saw a sign of life itself, never the difference of two
// machines' wall clocks; so a jump of any clock evicts nobody, and after a start every node has the full grace.
package nodelifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

// grace is how long a node may be silent before it counts as lost (upstream's node-monitor-grace-period). Nodes give a sign of life every 5 s,
// so two in a row may get lost, and a node that dies is noticed within 15 s.
const grace = 14 * time.Second

type reconciler struct {
	client client.Client
	events record.EventRecorder
	now    func() time.Time

	mu   sync.Mutex
	seen map[string]time.Time // last sign of life by node
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Workers:   2,
		Watches:   []harness.Watch{harness.On(&corev1.Node{}, r.nodeChanged), harness.On(&coordinationv1.Lease{}, r.leaseChanged)},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("node-controller"), now: time.Now, seen: map[string]time.Time{}}
}

func (r *reconciler) nodeChanged(old, current *corev1.Node) []harness.Key {
	if current == nil {
		r.mu.Lock()
		delete(r.seen, old.Name)
		r.mu.Unlock()
		return nil
	}
	if old == nil || !heartbeat(old).Equal(heartbeat(current)) {
		r.sign(current.Name)
	}
	return []harness.Key{{Name: current.Name}}
}

func heartbeat(n *corev1.Node) *metav1.Time {
	if c := findCondition(n, corev1.NodeReady); c != nil {
		return &c.LastHeartbeatTime
	}
	return nil
}

// leaseChanged only notes the time: the wake-up that the last reconcile asked for will see it.
func (r *reconciler) leaseChanged(old, current *coordinationv1.Lease) []harness.Key {
	if current == nil || current.Namespace != corev1.NamespaceNodeLease {
		return nil
	}
	if old == nil || !old.Spec.RenewTime.Equal(current.Spec.RenewTime) {
		r.sign(current.Name)
	}
	return nil
}

func (r *reconciler) sign(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[node] = r.now()
}

// silence is how long nothing was heard of a node.
func (r *reconciler) silence(node string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.seen[node]
	if !ok {
		at = r.now()
		r.seen[node] = at
	}
	return r.now().Sub(at)
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var found corev1.Node
	if err := r.client.Get(ctx, key, &found); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	node := &found
	silent := r.silence(node.Name)
	if silent >= grace {
		lost, err := r.markLost(ctx, node)
		if err != nil {
			return 0, err
		}
		node = lost
	}
	if err := r.writeTaints(ctx, node); err != nil {
		return 0, err
	}
	if readiness(node) == corev1.ConditionUnknown {
		if err := r.markPods(ctx, node.Name); err != nil {
			return 0, err
		}
	}
	if silent >= grace {
		return 0, nil // its next sign of life comes as a change of its status
	}
	return grace - silent + time.Millisecond, nil
}

// markLost writes that nothing is known of the node any more, and returns it as it is then.
func (r *reconciler) markLost(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	conditions, changed := lost(node.Status.Conditions, r.now())
	if !changed {
		return node, nil
	}
	after := node.DeepCopy()
	after.Status.Conditions = conditions
	if err := r.client.SubResource("status").Update(ctx, after); err != nil {
		return nil, fmt.Errorf("mark node %s as lost: %w", node.Name, err)
	}
	r.events.Eventf(node, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", node.Name)
	return after, nil
}

func (r *reconciler) writeTaints(ctx context.Context, node *corev1.Node) error {
	taints, changed := wantedTaints(node, r.now())
	if !changed {
		return nil
	}
	after := node.DeepCopy()
	after.Spec.Taints = taints
	err := r.client.Patch(ctx, after, crclient.MergeFromWithOptions(node, crclient.MergeFromWithOptimisticLock{}))
	if crclient.IgnoreNotFound(err) != nil {
		return fmt.Errorf("taint node %s: %w", node.Name, err)
	}
	return nil
}

// markPods takes the pods of a lost node out of service; nobody is there to do it for them.
func (r *reconciler) markPods(ctx context.Context, node string) error {
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, crclient.MatchingFields{"spec.nodeName": node}, crclient.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list the pods of node %s: %w", node, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		ready := podstate.Condition(pod, corev1.PodReady)
		if ready == nil || ready.Status != corev1.ConditionTrue {
			continue
		}
		after := pod.DeepCopy()
		c := podstate.Condition(after, corev1.PodReady)
		c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(r.now())
		err := r.client.SubResource("status").Update(ctx, after)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mark pod %s/%s of lost node %s: %w", pod.Namespace, pod.Name, node, err)
		}
		r.events.Event(pod, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return nil
}
