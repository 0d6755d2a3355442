package registry

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
	p := boundTo(old, b)
	if !dryRun {
		if _, err := r.cfg.Store.Collection(pq.Resource).Update(ctx, prev, p); err != nil {
			return nil, err
		}
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess, Code: http.StatusCreated}, nil
}

// boundTo is a pod as a binding leaves it. All else it has in common with the pod before: what is stored is never changed.
func boundTo(old *corev1.Pod, b *corev1.Binding) *corev1.Pod {
	p := *old
	p.Spec.NodeName, p.Status.NominatedNodeName = b.Target.Name, ""
	p.Annotations, p.Labels = with(p.Annotations, b.Annotations), with(p.Labels, b.Labels)
	p.Status.Conditions = slices.Clone(p.Status.Conditions)
	setScheduled(&p)
	return &p
}

// with is a map with more in it; the map itself stays as it is.
func with(m, more map[string]string) map[string]string {
	if len(more) == 0 {
		return m
	}
	out := make(map[string]string, len(m)+len(more))
	maps.Copy(out, m)
	maps.Copy(out, more)
	return out
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
	setPodCondition(p, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
}

// setPodCondition puts a new condition in the place of the one of its type.
func setPodCondition(p *corev1.Pod, c corev1.PodCondition) {
	c.LastTransitionTime, c.ObservedGeneration = now(), p.Generation
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == c.Type {
			p.Status.Conditions[i] = c
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, c)
}
