package admit

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const node = `
metadata: {name: n, labels: {disk: ssd}}
spec: {taints: [{key: soft, effect: NoSchedule}]}
status: {allocatable: {cpu: "2", memory: 1Gi, pods: "3", ephemeral-storage: 1Gi, example.com/card: "1"}}
`

func parse[T any](t *testing.T, text string) *T {
	t.Helper()
	var out T
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestRefuse(t *testing.T) {
	const small, web = "containers: [{name: a, resources: {requests: {cpu: 100m}}}]", "containers: [{name: a, ports: [{hostPort: 80, containerPort: 80}]}]"
	const port = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
	const card = `containers: [{name: a, resources: {requests: {example.com/card: "1"}}}]`
	for name, c := range map[string]struct {
		pod             string
		others          []string
		reason, message string
	}{
		"fits":                 {pod: small, others: []string{small, web}},
		"cpu":                  {`containers: [{name: a, resources: {requests: {cpu: "4"}}}]`, []string{small}, "OutOfcpu", "Node didn't have enough resource: cpu, requested: 4000, used: 100, capacity: 2000"},
		"memory":               {"containers: [{name: a, resources: {requests: {memory: 2Gi}}}]", nil, "OutOfmemory", "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"},
		"storage":              {"containers: [{name: a, resources: {requests: {ephemeral-storage: 2Gi}}}]", nil, "OutOfephemeral-storage", "Node didn't have enough resource: ephemeral-storage, requested: 2147483648, used: 0, capacity: 1073741824"},
		"pods":                 {small, []string{small, small, small}, "OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"},
		"extended":             {card, []string{card}, "OutOfexample.com/card", "Node didn't have enough resource: example.com/card, requested: 1, used: 1, capacity: 1"},
		"unknown to the node":  {pod: `containers: [{name: a, resources: {requests: {example.com/other: "1"}}}]`},
		"critical":             {pod: `{priority: 2000001000, containers: [{name: a, resources: {requests: {cpu: "4"}}}]}`},
		"critical, but a port": {"{priority: 2000001000, " + web + "}", []string{web}, "NodePorts", port},
		"port":                 {web, []string{small, web}, "NodePorts", port},
		"port of another address": {pod: "containers: [{name: a, ports: [{hostPort: 80, hostIP: 127.0.0.1}]}]",
			others: []string{"containers: [{name: a, ports: [{hostPort: 80, hostIP: 127.0.0.2}]}]"}},
		"port of another protocol": {pod: "containers: [{name: a, ports: [{hostPort: 80, protocol: UDP}]}]", others: []string{web}},
		"selector":                 {"nodeSelector: {disk: hdd}", nil, "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"good selector":            {pod: "nodeSelector: {disk: ssd}"},
		"affinity": {"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: DoesNotExist}]}]}}}",
			nil, "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"name":               {"nodeName: m", nil, "NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name"},
		"OS":                 {"os: {name: windows}", nil, "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"},
		"resources go first": {`{nodeSelector: {disk: hdd}, containers: [{name: a, resources: {requests: {cpu: "4"}}}]}`, nil, "OutOfcpu", "Node didn't have enough resource: cpu, requested: 4000, used: 0, capacity: 2000"},
	} {
		t.Run(name, func(t *testing.T) {
			var others []*corev1.Pod
			for _, o := range c.others {
				others = append(others, &corev1.Pod{Spec: *parse[corev1.PodSpec](t, o)})
			}
			check(t, &corev1.Pod{Spec: *parse[corev1.PodSpec](t, c.pod)}, parse[corev1.Node](t, node), others, c.reason, c.message)
		})
	}
}

func TestRefuseByLabelAndTaint(t *testing.T) {
	n := parse[corev1.Node](t, node)
	check(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelOSStable: "windows"}}}, n, nil,
		"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label")
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "out", Effect: corev1.TaintEffectNoExecute})
	one := &corev1.Pod{}
	check(t, one, n, nil, "TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate")
	one.Spec.Tolerations = []corev1.Toleration{{Key: "out", Operator: corev1.TolerationOpExists}}
	check(t, one, n, nil, "", "")
}

func TestUnsupported(t *testing.T) {
	one := &corev1.Pod{Spec: *parse[corev1.PodSpec](t, `{hostNetwork: true, hostUsers: false, containers: [{name: a, restartPolicyRules: [{action: RestartAllContainers}]}]}`)}
	if v := Unsupported(one, []string{"RestartAllContainersOnContainerExits", "UserNamespacesHostNetworkSupport"}); v != nil {
		t.Errorf("refused: %+v", v)
	}
	v := Unsupported(one, []string{"InPlacePodVerticalScalingInitContainers"})
	if v == nil || v.Reason != "PodFeatureUnsupported" ||
		v.Message != "Pod requires node features that are not available: RestartAllContainersOnContainerExits, UserNamespacesHostNetworkSupport" {
		t.Errorf("verdict %+v", v)
	}
}

func check(t *testing.T, one *corev1.Pod, n *corev1.Node, others []*corev1.Pod, reason, message string) {
	t.Helper()
	v := Refuse(one, n, others)
	switch {
	case v == nil && reason != "":
		t.Errorf("it was let in, but for %s it must not be", reason)
	case v != nil && (v.Reason != reason || v.Message != message):
		t.Errorf("refused as %s: %s\nwant %q: %s", v.Reason, v.Message, reason, message)
	}
}
