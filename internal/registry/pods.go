package registry

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/store"
)

var podResource = schema.GroupResource{Resource: "pods"}

// podRequest turns a request for a pod's subresource, or for a Binding that names a pod, into one for the pod.
func (r *Registry) podRequest(q *Request, name string) *Request {
	p := *q
	p.Resource, p.Served, p.Subresource = r.cfg.Table.ByResource(podResource), nil, ""
	if p.Name == "" {
		p.Name = name
	}
	return &p
}

// bind gives a pod its node: the POST of a Binding.
func (r *Registry) bind(ctx context.Context, q *Request, body runtime.Object, dryRun bool) (runtime.Object, error) {
	b, ok := body.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest("the body must be a v1 Binding")
	}
	if errs := bindingErrors(b); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), b.Name, errs)
	}
	pq := r.podRequest(q, b.Name)
	prev, err := r.get(ctx, pq, store.Read{})
	if err != nil {
		return nil, err
	}
	old := prev.Object().(*corev1.Pod)
	refuse := func(format string, args ...any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, old.Name, fmt.Errorf(format, args...))
	}
	switch {
	case b.UID != "" && b.UID != old.UID:
		return nil, refuse("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, old.UID)
	case old.DeletionTimestamp != nil:
		return nil, refuse("pod %s is being deleted, cannot be assigned to a host", old.Name)
	case old.Spec.NodeName != "":
		return nil, refuse("pod %v is already assigned to node %q", old.Name, old.Spec.NodeName)
	case len(old.Spec.SchedulingGates) > 0:
		return nil, refuse("pod %v has non-empty .spec.schedulingGates", old.Name)
	}
	p := old.DeepCopy()
	p.Spec.NodeName = b.Target.Name
	for k, v := range b.Annotations {
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, k, v)
	}
	setScheduled(p)
	if !dryRun {
		if _, err := r.cfg.Store.Collection(pq.Resource).Update(ctx, prev, p); err != nil {
			return nil, err
		}
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Code: http.StatusCreated}, nil
}

func bindingErrors(b *corev1.Binding) (errs field.ErrorList) {
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}

func setScheduled(p *corev1.Pod) {
	c := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now(), ObservedGeneration: p.Generation}
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == c.Type {
			p.Status.Conditions[i] = c
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, c)
}

// evict deletes a pod unless a PodDisruptionBudget says that it must stay for now: the POST of an Eviction.
func (r *Registry) evict(ctx context.Context, q *Request, body runtime.Object, dryRun bool) (runtime.Object, error) {
	ev, ok := body.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest("the body must be a policy/v1 Eviction")
	}
	pq := r.podRequest(q, ev.Name)
	// One eviction at a time, or two could use up the same disruption.
	r.services.evictions.Lock()
	defer r.services.evictions.Unlock()
	e, err := r.get(ctx, pq, store.Read{Consistent: true})
	if err != nil {
		return nil, err
	}
	if err := r.disruptable(ctx, e.Object().(*corev1.Pod)); err != nil {
		return nil, err
	}
	o := metav1.DeleteOptions{}
	if ev.DeleteOptions != nil {
		o = *ev.DeleteOptions
	}
	if dryRun {
		o.DryRun = []string{metav1.DryRunAll}
	}
	if _, err := r.Delete(ctx, pq, &o); err != nil {
		return nil, err
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Code: http.StatusCreated}, nil
}

// disruptable asks every budget that selects the pod. What a budget allows is counted here and now, over the pods it selects.
func (r *Registry) disruptable(ctx context.Context, p *corev1.Pod) error {
	if !healthy(p) || p.DeletionTimestamp != nil {
		return nil
	}
	table := r.cfg.Table
	budgets, err := r.cfg.Store.Collection(table.ByResource(schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"})).
		List(ctx, store.ListOptions{Predicate: store.Predicate{Namespace: p.Namespace}})
	if err != nil {
		return err
	}
	for _, e := range budgets.Entries {
		b := e.Object().(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		page, err := r.cfg.Store.Collection(table.ByResource(podResource)).
			List(ctx, store.ListOptions{Predicate: store.Predicate{Namespace: p.Namespace, Labels: selector}})
		if err != nil {
			return err
		}
		up := 0
		for _, e := range page.Entries {
			if other := e.Object().(*corev1.Pod); healthy(other) && other.DeletionTimestamp == nil {
				up++
			}
		}
		if need := atLeast(&b.Spec, len(page.Entries)); up <= need {
			// Without a time to come back: clients would wait and try again by themselves, where drains want to know.
			err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
			err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
				Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, need, up),
			})
			return err
		}
	}
	return nil
}

// atLeast is how many of total pods a budget wants healthy.
func atLeast(s *policyv1.PodDisruptionBudgetSpec, total int) int {
	switch {
	case s.MinAvailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(s.MinAvailable, total, true)
		if err == nil {
			return n
		}
	case s.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(s.MaxUnavailable, total, true)
		if err == nil {
			return total - n
		}
	}
	return total
}

func healthy(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
