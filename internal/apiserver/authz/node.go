package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

const nodeUserPrefix = "system:node:"

// nodeOf is the node that a user is, and whether it is one.
func nodeOf(u user.Info) (string, bool) {
	name, ok := strings.CutPrefix(u.GetName(), nodeUserPrefix)
	return name, ok && name != "" && slices.Contains(u.GetGroups(), user.NodesGroup)
}

var (
	read   = []string{"get", "list", "watch"}
	modify = []string{"update", "patch"}
)

func rule(groups, resources string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: strings.Split(groups, ","), Resources: strings.Split(resources, ","), Verbs: verbs}
}

// nodeRules are what every node may do, whichever pods it runs. What a write may say is the NodeRestriction admission plug-in's to judge. Beyond upstream's
// kubelet a node here is also its own proxy, resolver and overlay, in one process with one identity: it follows services, endpoints and the other nodes.
var nodeRules = []rbacv1.PolicyRule{
	rule("authentication.k8s.io", "tokenreviews,selfsubjectreviews", "create"),
	rule("authorization.k8s.io", "subjectaccessreviews,localsubjectaccessreviews,selfsubjectaccessreviews", "create"),
	rule("", "services,nodes,namespaces", read...),
	rule("", "endpoints", read...),
	rule("discovery.k8s.io", "endpointslices", read...),
	rule("networking.k8s.io", "networkpolicies,servicecidrs", read...),
	rule("", "nodes", "create", "update", "patch"),
	rule("", "nodes/status", modify...),
	rule(",events.k8s.io", "events", "create", "update", "patch"),
	rule("", "pods", "create", "delete"),
	rule("", "pods/status", modify...),
	rule("", "pods/eviction", "create"),
	rule("certificates.k8s.io", "certificatesigningrequests", "create", "get", "list", "watch"),
	rule("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", "create"),
	rule("certificates.k8s.io", "clustertrustbundles", read...),
	rule("storage.k8s.io", "csidrivers", read...),
	rule("node.k8s.io", "runtimeclasses", read...),
	rule("skiff.dev", "addons", read...), // a disabled part is disabled on every node
}

// nodes decides for nodes: beside the fixed rules, a node reads what the pods bound to it refer to, and no more.
type nodes struct {
	reg   *registry.Registry
	fixed *ruleSet
}

func (n *nodes) allow(ctx context.Context, node string, at authorizer.Attributes) (allowed bool, reason string, err error) {
	if at.IsResourceRequest() {
		switch (target{at.GetAPIGroup(), at.GetResource()}) {
		case target{"", "secrets"}:
			return n.byReference(ctx, node, at, read, podUsesSecret)
		case target{"", "configmaps"}:
			return n.byReference(ctx, node, at, read, podUsesConfigMap)
		case target{"", "persistentvolumeclaims"}:
			verbs := read // a claim that grows concerns the node
			if at.GetSubresource() == "status" {
				verbs = []string{"get", "update", "patch"}
			}
			return n.byReference(ctx, node, at, verbs, podUsesClaim)
		case target{"", "persistentvolumes"}:
			return n.volume(ctx, node, at)
		case target{"", "serviceaccounts"}:
			verbs := []string{"get"}
			if at.GetSubresource() == "token" {
				verbs = []string{"create"}
			}
			return n.byReference(ctx, node, at, verbs, func(p *corev1.Pod, name string) bool { return p.Spec.ServiceAccountName == name })
		case target{"", "pods"}:
			if slices.Contains(read, at.GetVerb()) && at.GetSubresource() == "" {
				return n.pods(ctx, node, at)
			}
		case target{"resource.k8s.io", "resourceclaims"}:
			return n.byReference(ctx, node, at, []string{"get"}, podUsesResourceClaim)
		case target{"resource.k8s.io", "resourceslices"}:
			return n.slices(ctx, node, at)
		case target{"certificates.k8s.io", "podcertificaterequests"}:
			return n.podCertificates(ctx, node, at)
		case target{"coordination.k8s.io", "leases"}:
			return own(node, at, corev1.NamespaceNodeLease, "lease")
		case target{"storage.k8s.io", "csinodes"}:
			return own(node, at, "", "CSINode")
		case target{"storage.k8s.io", "volumeattachments"}:
			return at.GetVerb() == "get" && at.GetSubresource() == "" && at.GetName() != "", "can only get individual resources of this type", nil
		}
	}
	q := queryOf(at)
	return n.fixed.allows(&q), "", nil
}

// own: objects that carry the node's name.
func own(node string, at authorizer.Attributes, namespace, what string) (bool, string, error) {
	switch verb := at.GetVerb(); {
	case at.GetSubresource() != "":
		return false, "cannot authorize " + what + " subresources", nil
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, verb):
		return false, fmt.Sprintf("can only get, create, update, patch, or delete a node %s", what), nil
	case at.GetNamespace() != namespace:
		return false, fmt.Sprintf("can only access leases in the %q system namespace", namespace), nil
	case verb != "create" && at.GetName() != node:
		// A create's name is in its body, which admission looks at.
		return false, fmt.Sprintf("can only access node %s with the same name as the requesting node", what), nil
	}
	return true, "", nil
}

// byReference allows the verbs on one object by name, if a pod on the node uses it.
func (n *nodes) byReference(
	ctx context.Context, node string, at authorizer.Attributes, verbs []string, uses func(p *corev1.Pod, name string) bool,
) (bool, string, error) {
	const denied = "no relationship found between node '%s' and this object"
	switch {
	case !slices.Contains(verbs, at.GetVerb()):
		return false, fmt.Sprintf("can only %s individual resources of this type", strings.Join(verbs, ", ")), nil
	case at.GetName() == "":
		return false, "No Object name found", nil
	case at.GetSubresource() != "" && at.GetSubresource() != "status" && at.GetSubresource() != "token":
		return false, "cannot access subresources", nil
	}
	pods, err := n.podsOn(ctx, node)
	if err != nil {
		return false, "", err
	}
	for _, p := range pods {
		if p.Namespace == at.GetNamespace() && uses(p, at.GetName()) {
			return true, "", nil
		}
	}
	if at.GetResource() == "secrets" {
		// Storage drivers' secrets are named by the volumes behind the pods' claims.
		for _, pv := range n.volumesOf(ctx, pods) {
			if volumeUsesSecret(pv, at.GetNamespace(), at.GetName()) {
				return true, "", nil
			}
		}
	}
	return false, fmt.Sprintf(denied, node), nil
}

// keeps: a node follows and changes the local volumes that are marked with its name; what it may change of them is admission's to say.
func (n *nodes) keeps(ctx context.Context, node string, at authorizer.Attributes) (bool, error) {
	switch at.GetVerb() {
	case "list", "watch":
		requirements, err := at.GetLabelSelector()
		if err != nil {
			return false, nil //nolint:nilerr // a selector that cannot be read selects nothing in particular
		}
		return slices.ContainsFunc(requirements, func(r labels.Requirement) bool {
			one, equal := r.Values(), r.Operator() == selection.Equals || r.Operator() == selection.DoubleEquals || r.Operator() == selection.In
			return r.Key() == localvolume.NodeLabel && equal && one.Len() == 1 && one.Has(node)
		}), nil
	case "get", "update", "patch":
		e, err := n.collection("persistentvolumes").Get(ctx, at.GetName(), store.Read{})
		if err != nil || e == nil {
			return false, err
		}
		pv, ok := e.Object().(*corev1.PersistentVolume)
		return ok && localvolume.Of(pv) && pv.Labels[localvolume.NodeLabel] == node, nil
	}
	return false, nil
}

func (n *nodes) volume(ctx context.Context, node string, at authorizer.Attributes) (bool, string, error) {
	if at.GetSubresource() == "" {
		if keeps, err := n.keeps(ctx, node, at); keeps || err != nil {
			return keeps, "", err
		}
	}
	if at.GetVerb() != "get" || at.GetName() == "" || at.GetSubresource() != "" {
		return false, "can only get individual resources of this type", nil
	}
	pods, err := n.podsOn(ctx, node)
	if err != nil {
		return false, "", err
	}
	for _, pv := range n.volumesOf(ctx, pods) {
		if pv.Name == at.GetName() {
			return true, "", nil
		}
	}
	return false, fmt.Sprintf("no relationship found between node '%s' and this object", node), nil
}

// pods: a node reads its own pods. It may also learn that a pod is gone, or it could never finish with it.
func (n *nodes) pods(ctx context.Context, node string, at authorizer.Attributes) (bool, string, error) {
	if at.GetName() != "" && at.GetNamespace() != "" {
		e, err := n.collection("pods").Get(ctx, at.GetNamespace()+"/"+at.GetName(), store.Read{})
		if err != nil {
			return false, "", err
		}
		if e == nil || e.Object().(*corev1.Pod).Spec.NodeName == node {
			return true, "", nil
		}
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node), nil
	}
	// Policies are enforced on every node, by the addresses and labels of all pods; without one, a node has no business with others' pods.
	if at.GetName() == "" && at.GetVerb() != "get" {
		policies := n.reg.Store().Collection(n.reg.Table().ByResource(schema.GroupResource{Group: "networking.k8s.io", Resource: "networkpolicies"}))
		if page, err := policies.List(ctx, store.ListOptions{Limit: 1}); err != nil {
			return false, "", err
		} else if len(page.Entries) > 0 {
			return true, "", nil
		}
	}
	requirements, err := at.GetFieldSelector()
	if err != nil {
		return false, "can only list/watch pods with spec.nodeName field selector", nil
	}
	for _, r := range requirements {
		equal := r.Operator == selection.Equals || r.Operator == selection.DoubleEquals
		if r.Field == "spec.nodeName" && r.Value == node && equal {
			return true, "", nil
		}
	}
	return false, "can only list/watch pods with spec.nodeName field selector", nil
}

func (n *nodes) collection(plural string) *store.Collection {
	return n.reg.Store().Collection(n.reg.Table().ByResource(schema.GroupResource{Resource: plural}))
}

func (n *nodes) podsOn(ctx context.Context, node string) ([]*corev1.Pod, error) {
	page, err := n.collection("pods").List(ctx, store.ListOptions{Predicate: store.Predicate{Index: "spec.nodeName", Value: node}})
	if err != nil {
		return nil, fmt.Errorf("find the pods of node %s: %w", node, err)
	}
	pods := make([]*corev1.Pod, len(page.Entries))
	for i, e := range page.Entries {
		pods[i] = e.Object().(*corev1.Pod)
	}
	return pods, nil
}

// volumesOf are the volumes that the pods' claims are bound to.
func (n *nodes) volumesOf(ctx context.Context, pods []*corev1.Pod) []*corev1.PersistentVolume {
	var out []*corev1.PersistentVolume
	get := func(plural, k string) api.Object {
		if e, err := n.collection(plural).Get(ctx, k, store.Read{}); err == nil && e != nil {
			return e.Object()
		}
		return nil
	}
	for _, p := range pods {
		for _, claim := range claimsOf(p) {
			pvc, ok := get("persistentvolumeclaims", p.Namespace+"/"+claim).(*corev1.PersistentVolumeClaim)
			if !ok || pvc.Spec.VolumeName == "" {
				continue
			}
			if pv, ok := get("persistentvolumes", pvc.Spec.VolumeName).(*corev1.PersistentVolume); ok {
				out = append(out, pv)
			}
		}
	}
	return out
}
