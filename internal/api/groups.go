package api

import (
	"maps"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
)

// The groups here are plain: rows with names, a place in the store, defaults and basic checks.

func policyRows() []*Resource {
	return []*Resource{
		of[policyv1.PodDisruptionBudget, policyv1.PodDisruptionBudgetList](Resource{
			Group: "policy", Version: "v1", Kind: "PodDisruptionBudget", Plural: "poddisruptionbudgets", Short: []string{"pdb"}, Key: "poddisruptionbudgets",
			Namespaced: true, Status: true, Generation: true, Validate: validateDisruptionBudget, ValidateUpdate: sameAsCreate(validateDisruptionBudget), ValidateStatus: validateDisruptionStatus,
			Columns: disruptionBudgetColumns,
		}),
	}
}

func rbacRows() []*Resource {
	const g, v = "rbac.authorization.k8s.io", "v1"
	return []*Resource{
		of[rbacv1.Role, rbacv1.RoleList](Resource{Group: g, Version: v, Kind: "Role", Plural: "roles", Key: "roles", Namespaced: true, CreateOnUpdate: true, ValidateName: pathSegment,
			Validate: validateRole, ValidateUpdate: sameAsCreate(validateRole), Columns: createdAtColumns}),
		of[rbacv1.RoleBinding, rbacv1.RoleBindingList](Resource{Group: g, Version: v, Kind: "RoleBinding", Plural: "rolebindings", Key: "rolebindings", Namespaced: true, CreateOnUpdate: true,
			ValidateName: pathSegment, Default: defaultBinding, Validate: validateRoleBinding, ValidateUpdate: validateBindingUpdate, Columns: roleBindingColumns}),
		of[rbacv1.ClusterRole, rbacv1.ClusterRoleList](Resource{Group: g, Version: v, Kind: "ClusterRole", Plural: "clusterroles", Key: "clusterroles", CreateOnUpdate: true, ValidateName: pathSegment,
			Validate: validateRole, ValidateUpdate: sameAsCreate(validateRole), Columns: createdAtColumns}),
		of[rbacv1.ClusterRoleBinding, rbacv1.ClusterRoleBindingList](Resource{Group: g, Version: v, Kind: "ClusterRoleBinding", Plural: "clusterrolebindings",
			Key: "clusterrolebindings", CreateOnUpdate: true, ValidateName: pathSegment, Default: defaultBinding, Validate: validateRoleBinding, ValidateUpdate: validateBindingUpdate, Columns: roleBindingColumns}),
	}
}

func networkingRows() []*Resource {
	const g, v = "networking.k8s.io", "v1"
	return []*Resource{
		of[networkingv1.NetworkPolicy, networkingv1.NetworkPolicyList](Resource{Group: g, Version: v, Kind: "NetworkPolicy", Plural: "networkpolicies", Short: []string{"netpol"},
			Key: "networkpolicies", Namespaced: true, Generation: true, Default: func(o Object) { defaultNetworkPolicy(o.(*networkingv1.NetworkPolicy)) }, Columns: networkPolicyColumns, Warn: warnNetworkPolicy,
			Validate: validateNetworkPolicy, ValidateUpdate: sameAsCreate(validateNetworkPolicy)}),
		of[networkingv1.Ingress, networkingv1.IngressList](Resource{Group: g, Version: v, Kind: "Ingress", Plural: "ingresses", Short: []string{"ing"}, Key: "ingress",
			Namespaced: true, Status: true, Generation: true, Columns: ingressColumns, Warn: warnIngress, Validate: validateNewIngress, ValidateUpdate: sameAsCreate(validateIngress), ValidateStatus: validateIngressStatus}),
		of[networkingv1.IngressClass, networkingv1.IngressClassList](Resource{Group: g, Version: v, Kind: "IngressClass", Plural: "ingressclasses", Key: "ingressclasses",
			Generation: true, Columns: ingressClassColumns, Default: func(o Object) { defaultIngressClass(o.(*networkingv1.IngressClass)) },
			Validate: validateIngressClass, ValidateUpdate: validateIngressClassUpdate}),
		of[networkingv1.IPAddress, networkingv1.IPAddressList](Resource{Group: g, Version: v, Kind: "IPAddress", Plural: "ipaddresses", Short: []string{"ip"}, Key: "ipaddresses", Cold: true,
			ValidateName: addressName, Validate: validateIPAddress, ValidateUpdate: validateIPAddressUpdate,
			Columns: columns(text("ParentRef", func(a *networkingv1.IPAddress) string { return parentText(a.Spec.ParentRef) }))}),
		of[networkingv1.ServiceCIDR, networkingv1.ServiceCIDRList](Resource{Group: g, Version: v, Kind: "ServiceCIDR", Plural: "servicecidrs", Key: "servicecidrs", Status: true, StatusAlone: true,
			Validate: validateServiceCIDR, ValidateUpdate: validateServiceCIDRUpdate,
			Columns: columns(text("CIDRs", func(c *networkingv1.ServiceCIDR) string { return strings.Join(c.Spec.CIDRs, ",") }))}),
	}
}

func discoveryRows() []*Resource {
	return []*Resource{of[discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList](Resource{
		Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice", Plural: "endpointslices", Key: "endpointslices", Namespaced: true, Generation: true,
		Indexes: map[string]func(Object) []string{"service": func(o Object) []string {
			return []string{o.GetNamespace() + "/" + o.GetLabels()[discoveryv1.LabelServiceName]}
		}},
		Counts:   func(o, old Object) bool { return !maps.Equal(o.GetLabels(), old.GetLabels()) }, // they say whose it is
		Default:  func(o Object) { defaultEndpointSlice(o.(*discoveryv1.EndpointSlice)) },
		Validate: validateEndpointSlice, ValidateUpdate: validateEndpointSliceUpdate, Columns: endpointSliceColumns,
	})}
}

func schedulingRows() []*Resource {
	return []*Resource{
		of[schedulingv1.PriorityClass, schedulingv1.PriorityClassList](Resource{Group: "scheduling.k8s.io", Version: "v1", Kind: "PriorityClass", Plural: "priorityclasses",
			Short: []string{"pc"}, Key: "priorityclasses", Generation: true, Default: func(o Object) { defaultPriorityClass(o.(*schedulingv1.PriorityClass)) },
			Validate: validatePriorityClass, ValidateUpdate: validatePriorityClassUpdate, Keep: keepSystemPriorityClass, Columns: priorityClassColumns}),
	}
}

func coordinationRows() []*Resource {
	return []*Resource{of[coordinationv1.Lease, coordinationv1.LeaseList](Resource{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Plural: "leases", Key: "leases", CreateOnUpdate: true,
		Namespaced: true, Validate: validateLease, ValidateUpdate: sameAsCreate(validateLease), Columns: leaseColumns})}
}

func reviewRows() []*Resource {
	const an, az, v = "authentication.k8s.io", "authorization.k8s.io", "v1"
	return []*Resource{
		review[authenticationv1.TokenReview](Resource{Group: an, Version: v, Kind: "TokenReview", Plural: "tokenreviews"}),
		review[authenticationv1.SelfSubjectReview](Resource{Group: an, Version: v, Kind: "SelfSubjectReview", Plural: "selfsubjectreviews"}),
		review[authorizationv1.SubjectAccessReview](Resource{Group: az, Version: v, Kind: "SubjectAccessReview", Plural: "subjectaccessreviews"}),
		review[authorizationv1.SelfSubjectAccessReview](Resource{Group: az, Version: v, Kind: "SelfSubjectAccessReview", Plural: "selfsubjectaccessreviews"}),
		review[authorizationv1.SelfSubjectRulesReview](Resource{Group: az, Version: v, Kind: "SelfSubjectRulesReview", Plural: "selfsubjectrulesreviews"}),
		review[authorizationv1.LocalSubjectAccessReview](Resource{Group: az, Version: v, Kind: "LocalSubjectAccessReview", Plural: "localsubjectaccessreviews", Namespaced: true}),
	}
}
