package registry

import (
	"context"
	"fmt"
	"maps"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/store"
)

// mostDisrupted is how many evicted pods a budget may wait for to be seen going. More means that nobody counts them.
const mostDisrupted = 2000

var budgetResource = schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"}

// evict deletes a pod unless a PodDisruptionBudget says that it must stay for now: the POST of an Eviction.
func (r *Registry) evict(ctx context.Context, q *Request, body runtime.Object, dryRun bool) (runtime.Object, error) {
	ev, ok := body.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest("the body must be a policy/v1 Eviction")
	}
	pq := r.podRequest(q, ev.Name)
	o := metav1.DeleteOptions{}
	if ev.DeleteOptions != nil {
		o = *ev.DeleteOptions.DeepCopy()
	}
	if dryRun {
		o.DryRun = []string{metav1.DryRunAll}
	}
	if errs := metavalidation.ValidateDeleteOptions(&o); len(errs) > 0 {
		return nil, invalidOptions("DeleteOptions", errs)
	}
	dryRun = len(o.DryRun) > 0
	e, err := r.get(ctx, pq, store.Read{Consistent: true})
	if err != nil {
		return nil, err
	}
	if err := preconditions(pq, e.Object(), o.Preconditions); err != nil {
		return nil, err
	}
	if err := r.spend(ctx, e.Object().(*corev1.Pod), dryRun); err != nil {
		return nil, err
	}
	if !dryRun {
		if err := r.markEvicted(ctx, pq, e, &o); err != nil {
			return nil, err
		}
	}
	if _, err := r.Delete(ctx, pq, &o); err != nil {
		return nil, err
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Code: http.StatusCreated}, nil
}

// markEvicted writes on a pod why it is about to go, for its owner to tell an eviction from a failure. A resourceVersion that the caller asked
// for was right until then and moves on with the mark.
func (r *Registry) markEvicted(ctx context.Context, pq *Request, e *store.Entry, o *metav1.DeleteOptions) error {
	for try := 1; ; try++ {
		p := e.Object().(*corev1.Pod)
		if ended(p) || p.DeletionTimestamp != nil {
			return nil
		}
		p = p.DeepCopy()
		setPodCondition(p, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
		})
		marked, err := r.cfg.Store.Collection(pq.Resource).Update(ctx, e, p)
		switch {
		case err == nil:
			if o.Preconditions != nil && o.Preconditions.ResourceVersion != nil {
				version := marked.Object().GetResourceVersion()
				o.Preconditions.ResourceVersion = &version
			}
			return nil
		case !apierrors.IsConflict(err) || try == patchTries:
			return err
		}
		if e, err = r.get(ctx, pq, store.Read{Consistent: true}); err != nil {
			return err
		}
		if err := preconditions(pq, e.Object(), o.Preconditions); err != nil {
			return err
		}
	}
}

// spend takes one disruption from the budget that selects the pod, if there is one and the pod counts. What a budget allows is in its status: its
// controller counts it out, evictions draw on it, and both write on condition that nobody else wrote meanwhile. So it is never overdrawn.
func (r *Registry) spend(ctx context.Context, p *corev1.Pod, dryRun bool) error {
	if ended(p) || p.Status.Phase == corev1.PodPending || p.DeletionTimestamp != nil {
		return nil
	}
	budgets := r.cfg.Store.Collection(r.cfg.Table.ByResource(budgetResource))
	for try := 1; ; try++ {
		page, err := budgets.List(ctx, store.ListOptions{Predicate: store.Predicate{Namespace: p.Namespace}, Read: store.Read{Consistent: true}})
		if err != nil {
			return err
		}
		var found *store.Entry
		for _, e := range page.Entries {
			selector, err := metav1.LabelSelectorAsSelector(e.Object().(*policyv1.PodDisruptionBudget).Spec.Selector)
			if err != nil || !selector.Matches(labels.Set(p.Labels)) {
				continue
			}
			if found != nil {
				return apierrors.NewInternalError(fmt.Errorf("this pod has more than one PodDisruptionBudget, which the eviction subresource does not support"))
			}
			found = e
		}
		if found == nil {
			return nil
		}
		drawn, err := draw(found.Object().(*policyv1.PodDisruptionBudget), p)
		if err != nil || drawn == nil || dryRun {
			return err
		}
		if _, err = budgets.Update(ctx, found, drawn); !apierrors.IsConflict(err) || try == patchTries {
			return err
		}
	}
}

// draw returns the budget with one disruption less, for p; nil if p is not healthy and may go without.
func draw(b *policyv1.PodDisruptionBudget, p *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	s := &b.Status
	if !ready(p) {
		policy := policyv1.IfHealthyBudget
		if b.Spec.UnhealthyPodEvictionPolicy != nil {
			policy = *b.Spec.UnhealthyPodEvictionPolicy
		}
		if policy == policyv1.AlwaysAllow || s.CurrentHealthy >= s.DesiredHealthy && s.DesiredHealthy > 0 {
			return nil, nil
		}
	}
	const message = "Cannot evict pod as it would violate the pod's disruption budget."
	refuse := func(wait int, format string, args ...any) error {
		err := apierrors.NewTooManyRequests(message, wait)
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...),
		})
		return err
	}
	switch {
	case s.ObservedGeneration < b.Generation:
		return nil, refuse(10, "The disruption budget %s is still being processed by the server.", b.Name)
	case len(s.DisruptedPods) > mostDisrupted:
		return nil, apierrors.NewForbidden(budgetResource, b.Name, fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case s.DisruptionsAllowed <= 0:
		return nil, refuse(0, "The disruption budget %s needs %d healthy pods and has %d currently", b.Name, s.DesiredHealthy, s.CurrentHealthy)
	}
	b = b.DeepCopy()
	b.Status.DisruptionsAllowed--
	b.Status.DisruptedPods = maps.Clone(b.Status.DisruptedPods)
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = map[string]metav1.Time{}
	}
	b.Status.DisruptedPods[p.Name] = now() // not counted as healthy until it is seen going
	if b.Status.DisruptionsAllowed == 0 {
		meta.SetStatusCondition(&b.Status.Conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason, ObservedGeneration: b.Generation,
		})
	}
	return b, nil
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
