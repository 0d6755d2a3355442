package devicetainteviction

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

// rules are the keys of all DeviceTaintRules: whatever changes about claims and their users may change what is left to do for them.
func (r *reconciler) rules() (keys []harness.Key) {
	var list resourcev1.DeviceTaintRuleList
	if err := r.client.List(context.Background(), &list, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping
	}
	for i := range list.Items {
		keys = append(keys, harness.Key{Name: list.Items[i].Name})
	}
	return keys
}

// progress says in a rule's condition EvictionInProgress how many pods are still to go. For the effect None it says once what NoExecute would do.
func (r *reconciler) progress(ctx context.Context, name string) error {
	var rule resourcev1.DeviceTaintRule
	if err := r.client.Get(ctx, crclient.ObjectKey{Name: name}, &rule); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	was := meta.FindStatusCondition(rule.Status.Conditions, resourcev1.DeviceTaintConditionEvictionInProgress)
	effect := rule.Spec.Taint.Effect
	if was != nil && was.ObservedGeneration == rule.Generation && effect != resourcev1.DeviceTaintEffectNoExecute {
		return nil
	}
	pods, namespaces, err := r.affected(ctx, &rule)
	if err != nil {
		return err
	}
	c := metav1.Condition{Type: resourcev1.DeviceTaintConditionEvictionInProgress, Status: metav1.ConditionFalse, ObservedGeneration: rule.Generation}
	where := fmt.Sprintf("%s in %s", plural(pods, "pod"), plural(namespaces, "namespace"))
	evicted := plural(r.evictedBy(rule.UID), "pod") + " evicted since the controller started."
	switch {
	case effect == resourcev1.DeviceTaintEffectNone:
		c.Reason, c.Message = "NoEffect", where+" would be evicted if the effect was NoExecute. This is not updated before the rule changes."
	case effect != resourcev1.DeviceTaintEffectNoExecute:
		c.Reason, c.Message = "OtherEffect", "Pods are evicted only if the effect is NoExecute."
	case pods > 0:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, "PodsPendingEviction", where+" to be evicted. "+evicted
	default:
		c.Reason, c.Message = "Completed", evicted
	}
	if was != nil && was.Status == c.Status && was.Reason == c.Reason && was.Message == c.Message && was.ObservedGeneration == c.ObservedGeneration {
		return nil
	}
	c.LastTransitionTime = metav1.NewTime(r.now())
	next := rule.DeepCopy()
	meta.SetStatusCondition(&next.Status.Conditions, c)
	return crclient.IgnoreNotFound(r.client.SubResource("status").Update(ctx, next))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// affected counts the pods that run with devices which a rule selects, and do not tolerate its taint for ever.
func (r *reconciler) affected(ctx context.Context, rule *resourcev1.DeviceTaintRule) (pods, namespaces int, err error) {
	var claims resourcev1.ResourceClaimList
	if err := r.client.List(ctx, &claims, crclient.UnsafeDisableDeepCopy); err != nil {
		return 0, 0, err
	}
	users, spaces := map[types.UID]bool{}, map[string]bool{}
	for i := range claims.Items {
		c := &claims.Items[i]
		if !affects(rule, c) {
			continue
		}
		for _, u := range c.Status.ReservedFor {
			var pod corev1.Pod
			err := r.client.Get(ctx, crclient.ObjectKey{Namespace: c.Namespace, Name: u.Name}, &pod)
			switch {
			case crclient.IgnoreNotFound(err) != nil:
				return 0, 0, err
			case err == nil && pod.UID == u.UID && pod.Spec.NodeName != "" && podstate.Active(&pod):
				users[u.UID], spaces[c.Namespace] = true, true
			}
		}
	}
	return len(users), len(spaces), nil
}

// affects says that a claim has a device which a rule selects, and does not tolerate for ever what NoExecute would do.
func affects(rule *resourcev1.DeviceTaintRule, c *resourcev1.ResourceClaim) bool {
	if c.Status.Allocation == nil {
		return false
	}
	executed := []resourcev1.DeviceTaintRule{*rule}
	executed[0].Spec.Taint.Effect = resourcev1.DeviceTaintEffectNoExecute
	for i := range c.Status.Allocation.Devices.Results {
		d := &c.Status.Allocation.Devices.Results[i]
		if _, limited := until(taints(d, nil, executed), d.Tolerations); limited {
			return true
		}
	}
	return false
}

func (r *reconciler) evictedBy(rule types.UID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.evicted[rule]
}

// noteEvicted counts a pod for each rule that it goes for.
func (r *reconciler) noteEvicted(ctx context.Context, pod *corev1.Pod) error {
	var rules resourcev1.DeviceTaintRuleList
	if err := r.client.List(ctx, &rules, crclient.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	claims, err := r.claimsOf(ctx, pod)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range rules.Items {
		rule := &rules.Items[i]
		if rule.Spec.Taint.Effect != resourcev1.DeviceTaintEffectNoExecute {
			continue
		}
		for _, c := range claims {
			if affects(rule, c) {
				r.evicted[rule.UID]++
				break
			}
		}
	}
	return nil
}
