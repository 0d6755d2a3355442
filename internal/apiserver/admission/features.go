package admission

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	versionutil "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/version"
)

var current = versionutil.MustParse(version.Kubernetes)

// declaredFeatures (NodeDeclaredFeatureValidator, KEP-5328) refuses a change of a pod for which its node lacks a feature.
func declaredFeatures(ctx context.Context, a *registry.Attributes) error {
	if a.Operation != update || !is(a, "", "pods") && !isResize(a) {
		return nil
	}
	pod, old := a.Object.(*corev1.Pod), a.Old.(*corev1.Pod)
	if pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil
	}
	framework := nodedeclaredfeatures.DefaultFramework
	needs, err := framework.InferForPodUpdate(
		&nodedeclaredfeatures.PodInfo{Spec: &old.Spec, Status: &old.Status}, &nodedeclaredfeatures.PodInfo{Spec: &pod.Spec, Status: &pod.Status}, current)
	if err != nil || needs.IsEmpty() {
		return err
	}
	node, err := find[*corev1.Node](ctx, a, "", "nodes", pod.Spec.NodeName)
	if err != nil {
		return err
	}
	if node == nil {
		return forbid(a, fmt.Errorf("node %q not found", pod.Spec.NodeName))
	}
	match, err := framework.MatchNode(needs, node)
	if err != nil || match.IsMatch {
		return err
	}
	return forbid(a, fmt.Errorf("pod update requires features %s which are not available on node %q", strings.Join(match.UnsatisfiedRequirements, ", "), node.Name))
}
