package schedulertest

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// events are those of upstream's folder event_handling: pods wait, each sort for something else, until it happens.
func events(n func(int) int) []Workload {
	return []Workload{
		{Name: "EventHandlingPodDelete/50Nodes_500Pods", Steps: podsGo(n(50))},
		{Name: "EventHandlingPodUpdate/1Node_1000Pods", Steps: podsChange(n(1000))},
		{Name: "EventHandlingNodeAdd/100Nodes_1000Pods", Steps: nodesCome(n(100))},
		{Name: "EventHandlingPodAdd/1000Pods", Steps: podsCome(n(1000))},
		{Name: "EventHandlingNodeUpdate/100Nodes_1000Pods", Steps: nodesChange(n(100))},
	}
}

// perSecond objects are changed or deleted.
const perSecond = 100

// waiting pods count, but nothing waits for them before the next step.
func waiting(count int, namespace string, s Shape) Pods {
	return Pods{Count: count, Shape: s, Namespace: namespace, Loose: true, Measured: true}
}

// podsGo has pods wait until others are gone.
func podsGo(count int) []Step {
	const ports, affinity, room = "blockertopologyportsresources", "blockeraffinity", 20
	pods := count * 10
	blockers := pods - max(pods/25, 1) // upstream's are as many fewer, so that their places are not the only ones
	blue := func(skew int32) feature {
		return spread(spreading{skew, 10000, corev1.LabelHostname, "topology", "blue"})
	}
	port := onHostPort(func(i int) int32 {
		p, _ := strconv.ParseInt(fmt.Sprintf("8%d", i%12), 10, 32)
		return int32(p)
	})
	nodes := some(count, attaches(room))
	nodes.Objects = attachLimits(nodes.Node, room, "")
	return []Step{nodes,
		Pods{Count: blockers, Namespace: ports, Objects: boundVolumes(byCSI, corev1.ReadOnlyMany), Shape: light("pod-blocker-topology",
			counts("topology=blue", "type=blocker"), blue(10), takes("0.35", "3Gi", false), port, withoutGrace, claims)},
		Pods{Count: blockers, Namespace: affinity, Objects: boundVolumes(byCSI, corev1.ReadWriteOncePod), Shape: light("pod-blocker-affinity",
			counts("color=green", "type=blocker"), withoutGrace, claims)},
		waiting(pods, ports, light("pod-spread", counts("topology=blue", "type=unsched"), blue(11))),
		waiting(blockers, affinity, light("pod-volume", counts("type=unsched"), claims)),
		waiting(pods, "nodeports", light("pod-port", counts("type=unsched"), port)),
		waiting(pods, "noderesources", light("pod-resources", counts("type=unsched"), takes("0.2", "1Gi", false))),
		Pods{Count: blockers, Namespace: "nodevolumelimits", Objects: boundVolumes(byCSI, corev1.ReadOnlyMany), Loose: true, Measured: true,
			Shape: light("pod-limits", counts("type=unsched"), claims)},
		waiting(pods, "interpodaffinity", light("pod-affinity", counts("color=green", "type=unsched"), far(required, in("green", corev1.LabelHostname, affinity)))),
		Tried{}, Remove{ports, "type=blocker", perSecond}, Remove{affinity, "type=blocker", perSecond}, Bound{}}
}

// podsChange has pods wait until they, or others, are changed.
func podsChange(pods int) []Step {
	const blocker, memory = "blocker", 30000
	each := fmt.Sprintf("%dMi", memory/pods)
	one := one()
	lone := func(name string, with func(n *corev1.Node, i int)) Nodes {
		return Nodes{Count: 1, Node: numbered(name, "4", "32Gi", "90000", with)}
	}
	tolerate := func(namespace, name, key string) Change {
		return patches(pods, namespace, name, "", func(int) string {
			return fmt.Sprintf(`[{"op":"add","path":"/spec/tolerations/-","value":{"key":%q,"operator":"Exists","effect":"NoSchedule"}}]`, key)
		})
	}
	color := func(i int) string { return fmt.Sprintf("green-%d", i) }
	return []Step{
		lone("unschedulable-node", unschedulable), waiting(pods, "nodeunschedulable", light("pod-nodeunschedulable", counts("type=unsched"))),
		lone("node-with-taint", tainted("toleration")), waiting(pods, "tainttoleration", light("pod-tainttoleration", counts("type=unsched"))),
		Tried{},
		tolerate("nodeunschedulable", "pod-nodeunschedulable", corev1.TaintNodeUnschedulable), tolerate("tainttoleration", "pod-tainttoleration", "toleration"),
		Bound{},
		one, Pods{Count: pods, Namespace: blocker, Shape: light("pod-blocker", takes("0.0001", each, false), func(p *corev1.Pod, i int) {
			p.Labels = map[string]string{"color": color(i), "topology": "blue"}
		})},
		waiting(pods, "interpodaffinity", light("pod-interpodaffinity", func(p *corev1.Pod, i int) {
			p.Labels = map[string]string{"color": color(i), "type": "unsched"}
			far(required, in(color(i), corev1.LabelHostname, blocker))(p, i)
		})),
		waiting(pods, "noderesources", light("pod-noderesources", counts("type=unsched"), takes("0.0001", each, false))),
		waiting(pods, blocker, light("pod-podtopologyspread", counts("type=unsched", "topology=blue"),
			spread(spreading{int32(pods), 100, corev1.LabelHostname, "topology", "blue"}))),
		waiting(pods, "schedulinggates", light("pod-schedulinggates", counts("type=unsched"), gated("test.k8s.io/hold"))),
		Tried{},
		patches(pods, blocker, "pod-blocker", "", func(int) string {
			return `[{"op":"remove","path":"/metadata/labels/color"},{"op":"remove","path":"/metadata/labels/topology"}]`
		}),
		patches(pods, blocker, "pod-blocker", "resize", func(int) string {
			return `[{"op":"replace","path":"/spec/containers/0/resources/requests/memory","value":"1Mi"}]`
		}),
		patches(pods, "schedulinggates", "pod-schedulinggates", "", func(int) string { return `[{"op":"remove","path":"/spec/schedulingGates"}]` }),
		Bound{}}
}

// patches changes so many pods of a name, or nodes where there is no namespace.
func patches(count int, namespace, name, subresource string, body func(i int) string) Change {
	return Change{count, perSecond, func(i int) Patch {
		return Patch{namespace, fmt.Sprintf("%s-%d", name, i), subresource, body(i)}
	}}
}

// What pods wait for that nodes bring, be it that they come or that they change.
var (
	allowed  = tolerates(always("allow"))
	untimely = light("pod-unsched", allowed)
	fond     = light("pod-unsched", counts("color=green"), allowed, near(required, corev1.PodAffinityTerm{TopologyKey: corev1.LabelTopologyZone, LabelSelector: having("color", "green")}))
	choosy   = light("pod-unsched", allowed, amongNodes("affinity", "allow"))

	allowing = []func(n *corev1.Node, i int){labelled(corev1.LabelTopologyZone+"=zone1", "affinity=allow", "topology=allow"), tainted("allow")}
)

// dispersed pods are spread over what is labelled with a topology.
func dispersed(skew, domains int32) Shape {
	return light("pod-unsched", counts("color=blue"), allowed, spread(spreading{skew, domains, "topology", "color", "blue"}))
}

// nodesCome has pods wait until there are nodes for them.
func nodesCome(nodes int) []Step {
	pods := nodes * 10
	made := func(count int, name, cpu, memory string, with ...func(n *corev1.Node, i int)) Nodes {
		return Nodes{Count: count, Node: numbered(name, cpu, memory, "3000", with...)}
	}
	return []Step{
		made(1, "node-unschedulable", "4", "32Gi", append(allowing, unschedulable)...), waiting(pods, "nodeunschedulable", untimely),
		Tried{},
		made(1, "node-low-capacity", "0.1", "100Mi", tainted("allow")), waiting(pods, "noderesources", light("pod-unsched", allowed, takes("0.2", "200Mi", false))),
		Tried{},
		made(nodes, "node-high-capacity", "200", "200Gi", tainted("allow")), Bound{},
		waiting(pods, "interpodaffinity", fond), waiting(pods, "nodeaffinity", choosy), waiting(pods, "podtopologyspread", dispersed(1000, 10000)),
		Tried{},
		made(nodes, "node-unblocker", "4", "32Gi", allowing...), Bound{},
		waiting(pods, "tainttoleration", light("pod-unsched", tolerates(always("toleration")))),
		Tried{},
		made(nodes, "node-with-taint", "4", "32Gi", tainted("toleration")), Bound{}}
}

// podsCome has pods wait until others are there.
func podsCome(pods int) []Step {
	const spreads, affine = "podtopologyspread", "interpodaffinity"
	green := in("green", corev1.LabelHostname, spreads)
	yellow := func(i int) string { return fmt.Sprintf("yellow-%d", i) }
	return []Step{
		Nodes{Count: 2, Node: numbered("scheduler-perf", "4", "32Gi", "3000")},
		Pods{Count: 1, Shape: light("pod-with-label", counts("color=green")), Namespace: spreads},
		waiting(pods, spreads, light("pod-podtopologyspread", counts("type=unsched", "topology=blue"), far(required, green),
			spread(spreading{1, 0, corev1.LabelHostname, "topology", "blue"}))),
		waiting(pods, affine, light("pod-interpodaffinity", counts("type=unsched"), func(p *corev1.Pod, i int) {
			near(required, in(yellow(i), corev1.LabelHostname, affine))(p, i)
		})),
		Tried{},
		Pods{Count: pods, Namespace: spreads, Shape: light("pod-unblocker-topology", counts("topology=blue", "color=green"), near(required, green))},
		Pods{Count: pods, Namespace: affine, Shape: light("pod-unblocker-affinity", func(p *corev1.Pod, i int) { p.Labels = map[string]string{"color": yellow(i)} })},
		Bound{}}
}

// nodesChange has pods wait until nodes are changed.
func nodesChange(nodes int) []Step {
	pods := nodes * 10
	made := func(name, cpu, memory string, with ...func(n *corev1.Node, i int)) Nodes {
		return Nodes{Count: nodes, Node: numbered(name, cpu, memory, "3000", with...)}
	}
	changed := func(name, subresource string, body func(i int) string) Change {
		return patches(nodes, "", name, subresource, body)
	}
	return []Step{
		made("node-unschedulable", "4", "32Gi", tainted("allow"), unschedulable), waiting(pods, "nodeunschedulable", untimely),
		Tried{}, changed("node-unschedulable", "", always(`[{"op":"remove","path":"/spec/unschedulable"}]`)), Bound{},
		made("node-low-capacity", "0.0001", "1Mi", tainted("allow-noderesources")),
		waiting(pods, "noderesources", light("pod-unsched", tolerates(always("allow-noderesources")), takes("0.35", "3Gi", false))),
		Tried{}, changed("node-low-capacity", "status", always(`[{"op":"add","path":"/status/capacity","value":{"cpu":"4","memory":"32Gi","pods":"3000"}},`+
			`{"op":"add","path":"/status/allocatable","value":{"cpu":"4","memory":"32Gi","pods":"3000"}}]`)), Bound{},
		made("node-without-labels", "4", "32Gi", tainted("allow")),
		waiting(pods, "interpodaffinity", fond), waiting(pods, "nodeaffinity", choosy), waiting(pods, "podtopologyspread", dispersed(1, 1)),
		Tried{}, changed("node-without-labels", "", always(`[{"op":"add","path":"/metadata/labels/topology.kubernetes.io~1zone","value":"zone1"},`+
			`{"op":"add","path":"/metadata/labels/affinity","value":"allow"},{"op":"add","path":"/metadata/labels/topology","value":"allow"}]`)), Bound{},
		made("node-without-taints", "4", "32Gi", tainted("allow")),
		waiting(pods, "tainttoleration", light("pod-unsched", tolerates(func(i int) string { return fmt.Sprintf("toleration-%d", i/10) }))),
		Tried{}, changed("node-without-taints", "", func(i int) string {
			return fmt.Sprintf(`[{"op":"replace","path":"/spec/taints","value":[{"key":"toleration-%d","effect":"NoSchedule"}]}]`, i)
		}), Bound{}}
}
