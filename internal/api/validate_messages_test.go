package api

import "testing"

func TestServiceMessages(t *testing.T) {
	const service = "metadata: {name: s, namespace: default, resourceVersion: \"1\"}\nspec: {ports: [{port: 80}]}\n"
	checkMessages(t, "Service", service, [][2]string{
		{"spec: {trafficDistribution: Near}", `spec.trafficDistribution: Unsupported value: "Near": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"`},
		{"spec: {allocateLoadBalancerNodePorts: true}", "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"},
		{"spec: {loadBalancerSourceRanges: [10.0.0.0/8]}", "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"},
		{"spec: {type: NodePort, healthCheckNodePort: 30000}",
			"spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"},
		{"spec: {type: ExternalName, externalName: example.com., ports: null}", ""},
		{"spec: {ports: [{port: 80, appProtocol: kubernetes.io/h2c}]}", ""},
	})
	checkUpdateMessages(t, "Service", "metadata: {name: s, namespace: default, resourceVersion: \"1\"}\nspec: {type: LoadBalancer, loadBalancerClass: example.com/a, ports: [{port: 80}]}\n", [][2]string{
		{"spec: {loadBalancerClass: example.com/b}", `spec.loadBalancerClass: Invalid value: "example.com/b": may not change once set`},
		{"spec: {type: ClusterIP, loadBalancerClass: null}", ""},
	})
}

func TestFurtherMessages(t *testing.T) {
	const slice = "metadata: {name: s, namespace: default}\naddressType: IPv6\nendpoints: [{addresses: [\"2001:db8::1\"]}]\n"
	checkMessages(t, "discovery.k8s.io/EndpointSlice", slice, [][2]string{
		{`endpoints: [{addresses: ["10.0.0.1"]}]`, `endpoints[0].addresses[0]: Invalid value: "10.0.0.1": must be an IPv6 address`},
	})
	checkMessages(t, "coordination.k8s.io/Lease", "metadata: {name: l, namespace: default}\n", [][2]string{
		{`spec: {holderIdentity: ""}`, ""}, // client-go gives a lease back so
		{`spec: {leaseDurationSeconds: 0}`, "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"},
	})
	checkMessages(t, "policy/PodDisruptionBudget", "metadata: {name: b, namespace: default}\nspec: {minAvailable: 1}\n", [][2]string{
		{"spec: {minAvailable: 101%}", `spec.minAvailable: Invalid value: "101%": must not be greater than 100%`},
		{"spec: {unhealthyPodEvictionPolicy: Never}", `spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"`},
	})
	checkMessages(t, "rbac.authorization.k8s.io/ClusterRole", "metadata: {name: r}\n", [][2]string{
		{"aggregationRule: {}", "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"},
	})
	const quota = "metadata: {name: q, namespace: default, resourceVersion: \"1\"}\nspec: {hard: {pods: 1}}\n"
	checkMessages(t, "ResourceQuota", quota, [][2]string{
		{"spec: {scopes: [Big]}", `spec.scopes: Invalid value: "Big": unsupported scope`},
		{"spec: {scopes: [BestEffort, NotBestEffort]}", `spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes`},
	})
	checkUpdateMessages(t, "ResourceQuota", quota, [][2]string{{"spec: {scopes: [BestEffort]}", `spec.scopes: Invalid value: ["BestEffort"]: field is immutable`}})
}
