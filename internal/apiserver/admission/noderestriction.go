package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

const nodeUserPrefix = "system:node:"

// nodeOf is the node that a user is, and whether it is one.
func nodeOf(u user.Info) (string, bool) {
	if u == nil {
		return "", false
	}
	name, ok := strings.CutPrefix(u.GetName(), nodeUserPrefix)
	return name, ok && slices.Contains(u.GetGroups(), user.NodesGroup)
}

// nodeRestriction (NodeRestriction) holds a node to itself: its Node, its lease, the pods bound to it, tokens for those pods. A node that was broken
// into then can't take others with it.
func nodeRestriction(ctx context.Context, a *registry.Attributes) error {
	node, ok := nodeOf(a.User)
	if !ok {
		return nil
	}
	if node == "" {
		return forbid(a, fmt.Errorf("could not determine node from user %q", a.User.GetName()))
	}
	switch a.Resource.Group + "/" + a.Resource.Plural + "/" + a.Subresource {
	case "/pods/":
		return nodePod(ctx, a, node)
	case "/pods/status":
		return nodePodStatus(a, node)
	case "/pods/eviction":
		return nodeEviction(ctx, a, node)
	case "/nodes/", "/nodes/status":
		return nodeItself(a, node)
	case "coordination.k8s.io/leases/":
		return nodeLease(a, node)
	case "storage.k8s.io/csinodes/":
		if nameOf(a) != node {
			return forbid(a, errors.New("can only access CSINode with the same name as the requesting node"))
		}
	case "resource.k8s.io/resourceslices/":
		return nodeSlice(a, node)
	case "certificates.k8s.io/podcertificaterequests/", "certificates.k8s.io/podcertificaterequests/status":
		return nodePodCertificate(ctx, a, node)
	case "/persistentvolumes/":
		return nodeVolume(a, node)
	case "/serviceaccounts/token":
		return nodeToken(ctx, a, node)
	}
	return nil
}

func nodePod(ctx context.Context, a *registry.Attributes, node string) error {
	switch a.Operation {
	case create:
		return nodeCreatesPod(a, node)
	case remove:
		pod, err := oldPod(ctx, a)
		if err != nil || pod == nil {
			return err
		}
		if pod.Spec.NodeName != node {
			return forbid(a, fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node))
		}
		return nil
	}
	return forbid(a, fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.Operation, node))
}

// oldPod is the pod that a delete or an eviction is about.
func oldPod(ctx context.Context, a *registry.Attributes) (*corev1.Pod, error) {
	if pod, ok := a.Old.(*corev1.Pod); ok {
		return pod, nil
	}
	return find[*corev1.Pod](ctx, a, "", "pods", a.Namespace+"/"+a.Name)
}

// nodeCreatesPod: only mirrors of static pods, which need nothing from the API.
func nodeCreatesPod(a *registry.Attributes, node string) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return forbid(a, fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node))
	}
	if pod.Spec.NodeName != node {
		return forbid(a, fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", node))
	}
	if len(pod.OwnerReferences) > 1 {
		return forbid(a, fmt.Errorf("node %q can only create pods with a single owner reference set to itself", node))
	}
	for _, o := range pod.OwnerReferences {
		if o.APIVersion != "v1" || o.Kind != "Node" || o.Name != node {
			return forbid(a, fmt.Errorf("node %q can only create pods with an owner reference set to itself", node))
		}
	}
	if pod.Spec.ServiceAccountName != "" {
		return forbid(a, fmt.Errorf("node %q can not create pods that reference a service account", node))
	}
	if what := api.References(&pod.Spec); what != "" {
		return forbid(a, fmt.Errorf("node %q can not create pods that reference %s", node, what))
	}
	return nil
}

func nodePodStatus(a *registry.Attributes, node string) error {
	old, ok := a.Old.(*corev1.Pod)
	now, ok2 := a.Object.(*corev1.Pod)
	if a.Operation != update || !ok || !ok2 {
		return nil
	}
	if old.Spec.NodeName != node {
		return forbid(a, fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node))
	}
	if !equality.Semantic.DeepEqual(old.Labels, now.Labels) {
		return forbid(a, fmt.Errorf("node %q cannot update labels through pod status", node))
	}
	return nil
}

func nodeEviction(ctx context.Context, a *registry.Attributes, node string) error {
	name := a.Name
	if e, ok := a.Object.(*policyv1.Eviction); ok && name == "" {
		name = e.Name
	}
	pod, err := find[*corev1.Pod](ctx, a, "", "pods", a.Namespace+"/"+name)
	if err != nil || pod == nil {
		return err
	}
	if pod.Spec.NodeName != node {
		return forbid(a, fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", node))
	}
	return nil
}

// nodeItself: a node registers and updates itself, but may neither move taints nor call itself something that workloads are kept apart by.
func nodeItself(a *registry.Attributes, node string) error {
	if name := nameOf(a); name != node {
		return forbid(a, fmt.Errorf("node %q is not allowed to modify node %q", node, name))
	}
	now, _ := a.Object.(*corev1.Node)
	switch {
	case a.Operation == create && now != nil:
		if bad := restrictedLabels(nil, now.Labels); len(bad) > 0 {
			return forbid(a, fmt.Errorf("node %q is not allowed to set the following labels: %s", node, strings.Join(bad, ", ")))
		}
		if len(now.OwnerReferences) > 0 {
			return forbid(a, fmt.Errorf("node %q is not allowed to set owner references", node))
		}
	case a.Operation == update && now != nil:
		old, ok := a.Old.(*corev1.Node)
		if !ok {
			return nil
		}
		if !equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
			return forbid(a, fmt.Errorf("node %q is not allowed to modify taints", node))
		}
		if !equality.Semantic.DeepEqual(old.OwnerReferences, now.OwnerReferences) {
			return forbid(a, fmt.Errorf("node %q is not allowed to modify ownerReferences", node))
		}
		if bad := restrictedLabels(old.Labels, now.Labels); len(bad) > 0 {
			return forbid(a, fmt.Errorf("node %q is not allowed to modify labels: %s", node, strings.Join(bad, ", ")))
		}
	}
	return nil
}

// kubeletLabels may be set by a node under kubernetes.io and k8s.io, beside everything below kubelet.kubernetes.io and node.kubernetes.io.
var kubeletLabels = []string{
	corev1.LabelHostname, corev1.LabelArchStable, corev1.LabelOSStable, "beta.kubernetes.io/arch", "beta.kubernetes.io/os",
	corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
	corev1.LabelInstanceType, corev1.LabelInstanceTypeStable,
}

// restrictedLabels are the labels whose change is not a node's to make, sorted.
func restrictedLabels(old, now map[string]string) []string {
	var bad []string
	look := func(key string) {
		before, had := old[key]
		after, has := now[key]
		if (had != has || before != after) && !labelAllowed(key) && !slices.Contains(bad, key) {
			bad = append(bad, key)
		}
	}
	for key := range old {
		look(key)
	}
	for key := range now {
		look(key)
	}
	slices.Sort(bad)
	return bad
}

func labelAllowed(key string) bool {
	ns, _, qualified := strings.Cut(key, "/")
	within := func(domain string) bool { return ns == domain || strings.HasSuffix(ns, "."+domain) }
	switch {
	case !qualified || !within("kubernetes.io") && !within("k8s.io"):
		return true
	case within("node-restriction.kubernetes.io"):
		return false
	}
	return within("kubelet.kubernetes.io") || within("node.kubernetes.io") || slices.Contains(kubeletLabels, key)
}

func nodeLease(a *registry.Attributes, node string) error {
	if a.Namespace != corev1.NamespaceNodeLease {
		return forbid(a, fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease))
	}
	name := a.Name
	if l, ok := a.Object.(*coordinationv1.Lease); ok && name == "" {
		name = l.Name
	}
	if name != node {
		return forbid(a, errors.New("can only access node lease with the same name as the requesting node"))
	}
	return nil
}

// nodeToken: a node asks for tokens only on behalf of a pod that runs on it.
func nodeToken(ctx context.Context, a *registry.Attributes, node string) error {
	tr, ok := a.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return nil
	}
	ref := tr.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return forbid(a, errors.New("node requested token not bound to a pod"))
	}
	if ref.UID == "" {
		return forbid(a, errors.New("node requested token with a pod binding without a uid"))
	}
	pod, err := find[*corev1.Pod](ctx, a, "", "pods", a.Namespace+"/"+ref.Name)
	switch {
	case err != nil:
		return err
	case pod == nil:
		return forbid(a, fmt.Errorf("pod %q not found", ref.Name))
	case pod.UID != ref.UID:
		return forbid(a, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. "+
			"The object might have been deleted and then recreated", ref.UID))
	case pod.Spec.NodeName != node:
		return forbid(a, errors.New("node requested token bound to a pod scheduled on a different node"))
	}
	return nil
}
