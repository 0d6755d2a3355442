// Package disruption says how many pods each PodDisruptionBudget can spare: the status by which people, and whoever evicts, decide.
//
// It also takes back the condition DisruptionTarget of pods that nobody deleted in the end. want and statusOf are pure. Their
// invariant: when something cannot be known, the status says that nothing may be disrupted.
package disruption

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
	"skiff.dev/skiff/internal/controller/podstate"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
	now    func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{client: c, events: c.Recorder("controllermanager"), now: time.Now}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.Self(&policyv1.PodDisruptionBudget{}),
			harness.On(&corev1.Pod{}, func(old, current *corev1.Pod) []harness.Key {
				return append(r.podChanged(old, current), disruptedPod(current)...)
			}),
		},
		Reconcile: r.reconcile,
	}
}

// podChanged wakes the budgets that select a pod, or did, when something changed that they count.
func (r *reconciler) podChanged(old, current *corev1.Pod) []harness.Key {
	if old != nil && current != nil && podstate.Ready(old) == podstate.Ready(current) && old.Status.Phase == current.Status.Phase &&
		(old.DeletionTimestamp == nil) == (current.DeletionTimestamp == nil) && equality.Semantic.DeepEqual(old.Labels, current.Labels) &&
		equality.Semantic.DeepEqual(owner.Of(old), owner.Of(current)) {
		return nil
	}
	present := current
	if present == nil {
		present = old
	}
	var list policyv1.PodDisruptionBudgetList
	if r.client.List(context.Background(), &list, crclient.InNamespace(present.Namespace), crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	var keys []harness.Key
	for i := range list.Items {
		selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.Selector)
		if err == nil && (selector.Matches(labels.Set(present.Labels)) || old != nil && selector.Matches(labels.Set(old.Labels))) {
			keys = append(keys, crclient.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	if strings.HasPrefix(key.Name, podKey) {
		return r.reprieve(ctx, key)
	}
	b := &policyv1.PodDisruptionBudget{}
	if err := r.client.Get(ctx, key, b); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	pods, goal, err := r.observe(ctx, b)
	if err != nil {
		return 0, r.giveUp(ctx, b, err)
	}
	status, late, after := statusOf(b, pods, goal, r.now())
	for _, pod := range late {
		r.events.Eventf(pod, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
	}
	return after, r.writeStatus(ctx, b, status)
}

// observe lists the budget's pods and works out what it wants of them.
func (r *reconciler) observe(ctx context.Context, b *policyv1.PodDisruptionBudget) ([]*corev1.Pod, goal, error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return nil, goal{}, fmt.Errorf("read the selector of PodDisruptionBudget %s: %w", b.Name, err)
	}
	var list corev1.PodList
	err = r.client.List(ctx, &list, crclient.InNamespace(b.Namespace), crclient.MatchingLabelsSelector{Selector: selector}, crclient.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, goal{}, fmt.Errorf("list pods of PodDisruptionBudget %s: %w", b.Name, err)
	}
	pods := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = &list.Items[i]
	}
	if len(pods) == 0 {
		r.events.Event(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	g, err := want(b, pods, func(ref *metav1.OwnerReference) (types.UID, int, error) { return r.scale(ctx, b.Namespace, ref) })
	if err != nil {
		r.events.Eventf(b, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
		return nil, goal{}, err
	}
	if len(g.unmanaged) > 0 {
		r.events.Eventf(b, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found to be unmanaged. "+
			"As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", selector)
	}
	return pods, g, nil
}

// scale is how many pods a controller is to have, and which controller that is: a ReplicaSet's is its Deployment. Any kind with a scale will
// do; a zero UID means that the controller has none, or is gone.
func (r *reconciler) scale(ctx context.Context, namespace string, ref *metav1.OwnerReference) (types.UID, int, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return "", 0, nil
	}
	key := harness.Key{Namespace: namespace, Name: ref.Name}
	if ref.Kind == "ReplicaSet" && gv.Group == appsv1.GroupName {
		var rs appsv1.ReplicaSet
		if err := r.client.Get(ctx, key, &rs); err != nil || rs.UID != ref.UID {
			return "", 0, crclient.IgnoreNotFound(err)
		}
		if d := owner.Of(&rs); d != nil && d.Kind == "Deployment" {
			return r.scale(ctx, namespace, d)
		}
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(gv.WithKind(ref.Kind))
	o.SetNamespace(namespace)
	o.SetName(ref.Name)
	var scale autoscalingv1.Scale
	err = r.client.SubResource("scale").Get(ctx, o, &scale)
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) || meta.IsNoMatchError(err):
		return "", 0, nil
	case err != nil:
		return "", 0, fmt.Errorf("read the scale of %s %s: %w", ref.Kind, ref.Name, err)
	case scale.UID != ref.UID:
		return "", 0, nil
	}
	return scale.UID, int(scale.Spec.Replicas), nil
}

// giveUp writes down that nothing may be disrupted, and returns the reason to be tried again.
func (r *reconciler) giveUp(ctx context.Context, b *policyv1.PodDisruptionBudget, reason error) error {
	status := *b.Status.DeepCopy()
	status.DisruptionsAllowed = 0
	status.ObservedGeneration = b.Generation
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason,
		Message: reason.Error(), ObservedGeneration: b.Generation,
	})
	if err := r.writeStatus(ctx, b, status); err != nil {
		return err
	}
	return reason
}

func (r *reconciler) writeStatus(ctx context.Context, b *policyv1.PodDisruptionBudget, status policyv1.PodDisruptionBudgetStatus) error {
	if equality.Semantic.DeepEqual(b.Status, status) {
		return nil
	}
	changed := b.DeepCopy()
	changed.Status = status
	if err := crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, changed)); err != nil {
		return fmt.Errorf("write the status of PodDisruptionBudget %s: %w", b.Name, err)
	}
	return nil
}
