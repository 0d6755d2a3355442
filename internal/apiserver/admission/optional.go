package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"skiff.dev/skiff/internal/registry"
)

// Small plug-ins that upstream has off by default.

// namespaceThere (NamespaceExists) refuses whatever is of a namespace that isn't there, deletions too.
func namespaceThere(ctx context.Context, a *registry.Attributes) error {
	if !a.Resource.Namespaced || a.Namespace == "" || a.Resource.Group == "authorization.k8s.io" || a.Operation == "CONNECT" {
		return nil
	}
	ns, err := find[*corev1.Namespace](ctx, a, "", "namespaces", a.Namespace)
	if err == nil && ns == nil {
		return apierrors.NewNotFound(corev1.Resource("namespaces"), a.Namespace)
	}
	return err
}

// newPod is the pod that a request creates, or changes by the main resource if updates count.
func newPod(a *registry.Attributes, updates bool) *corev1.Pod {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !is(a, "", "pods") || a.Operation != create && !(updates && a.Operation == update) {
		return nil
	}
	return pod
}

// hardAntiAffinity (LimitPodHardAntiAffinityTopology) lets a pod keep others off its node, but not off more.
func hardAntiAffinity(_ context.Context, a *registry.Attributes) error {
	pod := newPod(a, true)
	if pod == nil || pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, term := range pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if term.TopologyKey != corev1.LabelHostname {
			return forbid(a, fmt.Errorf("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", term.TopologyKey, corev1.LabelHostname))
		}
	}
	return nil
}

// tolerateExtended (ExtendedResourceToleration) lets pods onto nodes that are tainted by the name of a device that the pods ask for.
func tolerateExtended(_ context.Context, a *registry.Attributes) error {
	pod := newPod(a, true)
	if pod == nil {
		return nil
	}
	var names []string
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			for name := range list[i].Resources.Requests {
				if extended(name) && !slices.Contains(names, string(name)) {
					names = append(names, string(name))
				}
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		want := corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.MatchToleration(&want) }) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, want)
		}
	}
	return nil
}

// extended: a resource that is of somebody's domain, not Kubernetes' own.
func extended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), "kubernetes.io/") && !strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
}

// noExternalIPs (DenyServiceExternalIPs) lets nobody add addresses from outside to a Service; those that it has may stay.
func noExternalIPs(_ context.Context, a *registry.Attributes) error {
	svc, ok := a.Object.(*corev1.Service)
	if !ok || !is(a, "", "services") {
		return nil
	}
	var before []string
	if old, ok := a.Old.(*corev1.Service); ok {
		before = old.Spec.ExternalIPs
	}
	for _, ip := range svc.Spec.ExternalIPs {
		if !slices.Contains(before, ip) {
			return forbid(a, errors.New("Use of external IPs is denied by admission control")) //nolint:staticcheck // upstream's words
		}
	}
	return nil
}
