package filter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, p := range pairs {
		name, q, _ := strings.Cut(p, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(q)
	}
	return l
}

func node(name string, change func(n *corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
		Status: corev1.NodeStatus{Allocatable: list("cpu=2", "memory=4Gi", "ephemeral-storage=10Gi", "pods=3", "example.com/gpu=1")}}
	if change != nil {
		change(n)
	}
	return n
}

func pod(change func(p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "new"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	if change != nil {
		change(p)
	}
	return p
}

func requests(pairs ...string) func(p *corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list(pairs...) }
}

func TestFilters(t *testing.T) {
	sidecar := corev1.ContainerRestartPolicyAlways
	for _, tt := range []struct {
		name string
		node func(n *corev1.Node)
		pod  func(p *corev1.Pod)
		want string // "" fits
	}{
		{name: "empty pod fits"},
		{name: "cordoned", node: func(n *corev1.Node) { n.Spec.Unschedulable = true }, want: "node(s) were unschedulable"},
		{name: "cordoned and tolerated", node: func(n *corev1.Node) { n.Spec.Unschedulable = true },
			pod: func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }},
		{name: "tainted", node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}}
		}, want: "node(s) had untolerated taint(s)"},
		{name: "NoExecute too", node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoExecute}}
		}, want: "node(s) had untolerated taint(s)"},
		{name: "tainted, tolerated", node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}}
		}, pod: func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Value: "v"}} }},
		{name: "a preference is no bar", node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectPreferNoSchedule}}
		}},
		{name: "selector", pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} },
			want: "node(s) didn't match Pod's node affinity/selector"},
		{name: "selector met", pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": "n"} }},
		{name: "affinity", pod: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"other"}}}}}}}}
		}, want: "node(s) didn't match Pod's node affinity/selector"},
		{name: "a feature it does not declare", node: func(n *corev1.Node) { n.Status.DeclaredFeatures = []string{"RestartAllContainersOnContainerExits"} },
			pod: func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.HostUsers = true, new(false) }, want: "node(s) didn't match Pod's required features"},
		{name: "a feature it declares", node: func(n *corev1.Node) {
			n.Status.DeclaredFeatures = []string{"Another", "UserNamespacesHostNetworkSupport"}
		},
			pod: func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.HostUsers = true, new(false) }},
		{name: "port taken", pod: func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, HostIP: "127.0.0.1", Protocol: corev1.ProtocolTCP}}
		}, want: "node(s) didn't have free ports for the requested pod ports"},
		{name: "same number, other protocol", pod: func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, Protocol: corev1.ProtocolUDP}}
		}},
		{name: "too much of two", pod: requests("cpu=1800m", "memory=5Gi"), want: "Insufficient cpu, Insufficient memory"},
		{name: "exactly what is left", pod: requests("cpu=1500m", "memory=3Gi")},
		{name: "a resource nobody has", pod: requests("example.com/fpga=1"), want: "Insufficient example.com/fpga"},
		{name: "the last gpu", pod: requests("example.com/gpu=1")},
		{name: "too many pods", node: func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse("1") }, want: "Too many pods"},
		{name: "an init container needs more than all others", pod: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu=1600m")}}}
		}, want: "Insufficient cpu"},
		{name: "a sidecar counts with the containers", pod: func(p *corev1.Pod) {
			requests("cpu=1")(p)
			p.Spec.InitContainers = []corev1.Container{{RestartPolicy: &sidecar, Resources: corev1.ResourceRequirements{Requests: list("cpu=600m")}}}
		}, want: "Insufficient cpu"},
		{name: "hugepages", pod: requests("hugepages-2Mi=2Mi"), want: "Insufficient hugepages-2Mi"},
		{name: "ephemeral storage", pod: requests("ephemeral-storage=11Gi"), want: "Insufficient ephemeral-storage"},
		{name: "nothing of a resource nobody has", pod: requests("example.com/fpga=0")},
		{name: "all that is missing", node: func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse("1") },
			pod:  requests("cpu=3", "memory=5Gi", "ephemeral-storage=11Gi", "example.com/gpu=2", "example.com/fpga=1"),
			want: "Insufficient cpu, Insufficient ephemeral-storage, Insufficient example.com/fpga, Insufficient example.com/gpu, Insufficient memory, Too many pods"},
		{name: "the pod's own resources count instead of its containers'", pod: func(p *corev1.Pod) {
			requests("cpu=100m")(p)
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu=1600m")}
		}, want: "Insufficient cpu"},
		{name: "a port that only a container's init container wants", pod: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 80}}}}
		}},
		{name: "a port that a sidecar wants, without a protocol", pod: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{RestartPolicy: &sidecar, Ports: []corev1.ContainerPort{{HostPort: 80, HostIP: "0.0.0.0"}}}}
		}, want: "node(s) didn't have free ports for the requested pod ports"},
		{name: "another node's name", pod: func(p *corev1.Pod) { p.Spec.NodeName = "m" }, want: "node(s) didn't match the requested node name"},
		{name: "its name", pod: func(p *corev1.Pod) { p.Spec.NodeName = "n" }},
		{name: "a key that is tolerated only as a preference", node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}}
		}, pod: func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Value: "v", Effect: corev1.TaintEffectPreferNoSchedule}}
		}, want: "node(s) had untolerated taint(s)"},
		{name: "cordoned, and its taint tolerated", node: func(n *corev1.Node) { n.Spec.Unschedulable = true }, pod: func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
		}},
		{name: "a selector that cannot be read", pod: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: "Some"}}}}}}}
		}, want: "node(s) didn't match Pod's node affinity/selector"},
		{name: "affinity without terms", pod: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
		}, want: "node(s) didn't match Pod's node affinity/selector"},
		{name: "overhead counts", pod: func(p *corev1.Pod) { requests("cpu=1400m")(p); p.Spec.Overhead = list("cpu=200m") }, want: "Insufficient cpu"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := cluster.New()
			n.Set(node("n", tt.node))
			n.Place(cluster.PodOf(pod(func(p *corev1.Pod) {
				p.UID = "there"
				requests("cpu=500m", "memory=1Gi")(p)
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, Protocol: corev1.ProtocolTCP}}
			})), "n")
			p, got := cluster.PodOf(pod(tt.pod)), ""
			for _, plugin := range append(append(Static[:], Load[:]...), Last) {
				if check := plugin.Prepare(p, n); check != nil && got == "" {
					if r := check(0); r != nil {
						got = strings.Join(slices.Sorted(slices.Values(r.Reasons)), ", ")
					}
				}
			}
			if got != tt.want {
				t.Errorf("reasons %q, want %q", got, tt.want)
			}
		})
	}
}

// A pod is bound by name only if each of its terms names a node, and to none where one's fields contradict one another.
func TestNamed(t *testing.T) {
	in := func(names ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: names}
	}
	notIn := corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"a"}}
	other := corev1.NodeSelectorRequirement{Key: "metadata.namespace", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}
	type fields = []corev1.NodeSelectorRequirement
	for _, row := range []struct {
		terms []fields
		want  string
	}{
		{nil, "[] false"},
		{[]fields{{in("a")}}, "[a] true"},
		{[]fields{{in("a")}, {in("b")}}, "[a b] true"},
		{[]fields{{in("a")}, {}}, "[] false"},
		{[]fields{{notIn}}, "[] false"},
		{[]fields{{other}}, "[] false"},
		{[]fields{{in("a"), notIn, other}}, "[a] true"},
		{[]fields{{in("a", "b"), in("b", "c")}}, "[b] true"},
		{[]fields{{in("a"), in("b")}}, "[] true"},
		{[]fields{{in("a"), in("b")}, {in("c")}}, "[c] true"},
		{[]fields{{in()}}, "[] true"},
	} {
		required := &corev1.NodeSelector{}
		for _, f := range row.terms {
			required.NodeSelectorTerms = append(required.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchFields: f})
		}
		names, bound := Named(cluster.PodOf(pod(func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
		})))
		if got := fmt.Sprint(names, bound); got != row.want {
			t.Errorf("%v: %s, want %s", row.terms, got, row.want)
		}
	}
	if _, bound := Named(cluster.PodOf(pod(nil))); bound {
		t.Error("bound without affinity")
	}
}

// A node that has less than a pod asks for, empty or not, is of no use whoever leaves it. One that lets no pod in is, to upstream.
func TestWhatIsFinal(t *testing.T) {
	for _, row := range []struct {
		pods  string
		asked []string
		final bool
	}{
		{"3", []string{"cpu=2"}, false}, {"3", []string{"cpu=2001m"}, true}, {"3", []string{"memory=4Gi"}, false}, {"3", []string{"memory=5Gi"}, true},
		{"3", []string{"example.com/gpu=1"}, false}, {"3", []string{"example.com/gpu=2"}, true}, {"3", []string{"example.com/fpga=1"}, true},
		{"0", nil, false}, {"0", []string{"cpu=2"}, false}, {"0", []string{"cpu=3"}, true}, {"3", []string{"cpu=2", "memory=5Gi"}, true},
	} {
		n := cluster.New()
		n.Set(node("n", func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse(row.pods) }))
		n.Place(cluster.PodOf(pod(func(p *corev1.Pod) { p.UID = "there"; requests("cpu=1", "memory=1Gi", "example.com/gpu=1")(p) })), "n")
		if r := nodeResourcesFit(cluster.PodOf(pod(requests(row.asked...))), n)(0); r == nil || r.Final != row.final {
			t.Errorf("%v where %s pods may be: %+v", row.asked, row.pods, r)
		}
	}
}

// Books must balance: after any sequence of placing and displacing, requested is what the pods that are there request.
func TestColumnsBalance(t *testing.T) {
	n := cluster.New()
	n.Set(node("a", nil))
	for i := range 50 {
		p := pod(requests(fmt.Sprintf("cpu=%dm", i), "example.com/gpu=1"))
		p.UID = "p" + p.UID
		n.Place(cluster.PodOf(p), []string{"a", "early"}[i%2])
	}
	if i, _ := n.Where("pnew"); n.Requested[cluster.CPU][i] != 49 || n.Requested[cluster.Pods][i] != 1 {
		t.Errorf("requested %v", n.Requested)
	}
	if !n.Displace("pnew") || n.Displace("pnew") {
		t.Error("a pod leaves once")
	}
	for r := range n.Requested {
		for i, q := range n.Requested[r] {
			if q != 0 {
				t.Errorf("resource %d of node %d: %d left", r, i, q)
			}
		}
	}
	if _, known := n.Index("early"); known || n.Count() != 1 {
		t.Error("something of the node that never was is left")
	}
	n.Remove("a")
	if n.Set(node("b", nil)) != cluster.Added || n.Len() != 2 {
		t.Errorf("%d indexes, want the two of before", n.Len())
	}
}
