package admission

import (
	"context"
	"errors"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	podsecurity "k8s.io/pod-security-admission/admission"
	configuration "k8s.io/pod-security-admission/admission/api"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/admission/api/validation"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"skiff.dev/skiff/internal/registry"
)

// podSecurityLabels begin all labels by which a namespace asks for a level.
const podSecurityLabels = "pod-security.kubernetes.io/"

// podSecurity (PodSecurity) holds pods to the level that their namespace's labels enforce, and warns of the one they name for that. Without a
// configuration nobody is exempt, and a namespace without labels is free, at the cost of a look at its labels.
func podSecurity(raw []byte) (made, error) {
	configured := raw != nil
	settings, err := load.LoadFromData(raw)
	if err != nil {
		return made{}, err
	}
	if errs := validation.ValidatePodSecurityConfiguration(settings); len(errs) > 0 {
		return made{}, errs.ToAggregate()
	}
	checks := sync.OnceValues(func() (*podsecurity.Admission, error) { return newPodSecurity(settings) })
	extract := podsecurity.DefaultPodSpecExtractor{}
	return made{validate: func(ctx context.Context, a *registry.Attributes) error {
		gr := a.Resource.GroupResource()
		namespace := gr == corev1.Resource("namespaces")
		if a.Object == nil || a.Operation != create && a.Operation != update || !namespace && !extract.HasPodSpec(gr) {
			return nil
		}
		if !configured {
			if labelled, err := asksForSecurity(ctx, a, namespace); err != nil || !labelled {
				return err
			}
		}
		all, err := checks()
		if err != nil {
			return err
		}
		one := *all // with this request's view of the cluster
		one.NamespaceGetter, one.PodLister = lookUp{a}, lookUp{a}
		return outcome(a, one.Validate(ctx, securityAttributes(a)))
	}}, nil
}

func asksForSecurity(ctx context.Context, a *registry.Attributes, namespace bool) (bool, error) {
	if namespace {
		is, ok := a.Object.(*corev1.Namespace)
		was, _ := a.Old.(*corev1.Namespace)
		return ok && (hasSecurityLabel(is) || was != nil && hasSecurityLabel(was)), nil
	}
	ns, err := find[*corev1.Namespace](ctx, a, "", "namespaces", a.Namespace)
	return err == nil && ns != nil && hasSecurityLabel(ns), err
}

func hasSecurityLabel(ns *corev1.Namespace) bool {
	for k := range ns.Labels {
		if strings.HasPrefix(k, podSecurityLabels) {
			return true
		}
	}
	return false
}

func newPodSecurity(settings *configuration.PodSecurityConfiguration) (*podsecurity.Admission, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	out := &podsecurity.Admission{
		Configuration: settings, Evaluator: evaluator, Metrics: unmeasured{}, PodSpecExtractor: podsecurity.DefaultPodSpecExtractor{},
		NamespaceGetter: lookUp{}, PodLister: lookUp{},
	}
	if err := out.CompleteConfiguration(); err != nil {
		return nil, err
	}
	return out, out.ValidateConfiguration()
}

// lookUp reads for one request.
type lookUp struct{ a *registry.Attributes }

func (l lookUp) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	ns, err := find[*corev1.Namespace](ctx, l.a, "", "namespaces", name)
	if err == nil && ns == nil {
		err = apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	}
	return ns, err
}

func (l lookUp) ListPods(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	return all[*corev1.Pod](ctx, l.a, "", "pods", namespace)
}

// unmeasured counts nothing: the request metrics tell what was refused.
type unmeasured struct{}

func (unmeasured) RecordEvaluation(metrics.Decision, api.LevelVersion, metrics.Mode, api.Attributes) {
}
func (unmeasured) RecordExemption(api.Attributes)   {}
func (unmeasured) RecordError(bool, api.Attributes) {}

func securityAttributes(a *registry.Attributes) *api.AttributesRecord {
	out := &api.AttributesRecord{
		Name: nameOf(a), Namespace: a.Namespace, Kind: a.Resource.GVK(), Resource: a.Resource.GVR(), Subresource: a.Subresource,
		Operation: admissionv1.Operation(a.Operation), Object: a.Object, OldObject: a.Old,
	}
	if a.Resource.Kind == "Namespace" {
		out.Namespace = out.Name
	}
	if a.User != nil {
		out.Username = a.User.GetName()
	}
	return out
}

func outcome(a *registry.Attributes, r *admissionv1.AdmissionResponse) error {
	if a.Warn != nil {
		for _, w := range r.Warnings {
			a.Warn(w)
		}
	}
	if r.Allowed {
		return nil
	}
	refusal := forbid(a, errors.New("Not allowed by PodSecurity")) //nolint:staticcheck // upstream's words
	if r.Result != nil {
		if r.Result.Message != "" {
			refusal.ErrStatus.Message = r.Result.Message
		}
		if r.Result.Code != 0 {
			refusal.ErrStatus.Code, refusal.ErrStatus.Reason = r.Result.Code, r.Result.Reason
		}
		if r.Result.Details != nil {
			refusal.ErrStatus.Details = r.Result.Details
		}
	}
	return refusal
}
