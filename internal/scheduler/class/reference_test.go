package class

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
	"skiff.dev/skiff/internal/scheduler/volume"
)

// world is a cluster as plain objects, and this file the slow, obvious way to schedule: it counts everything anew for every pod and node.
type world struct {
	nodes    []*corev1.Node
	pods     []*corev1.Pod // with spec.nodeName
	spaces   map[string]map[string]string
	siblings map[string]labels.Selector // by namespace: pods that are spread by default
	rules    *profile.Profile
	storage  *shelf
	book     *volume.Book // the fast way's, of the same shelf
	at       setting
}

func (w *world) on(node string) (pods []*corev1.Pod) {
	for _, p := range w.pods {
		if p.Spec.NodeName == node {
			pods = append(pods, p)
		}
	}
	return pods
}

func (w *world) node(name string) *corev1.Node {
	for _, n := range w.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (w *world) selects(owner *corev1.Pod, t *corev1.PodAffinityTerm, p *corev1.Pod) bool {
	in := slices.Contains(t.Namespaces, p.Namespace) || len(t.Namespaces) == 0 && t.NamespaceSelector == nil && p.Namespace == owner.Namespace ||
		t.NamespaceSelector != nil && cluster.Selector(t.NamespaceSelector).Matches(labels.Set(w.spaces[p.Namespace]))
	if !in || !cluster.Selector(t.LabelSelector).Matches(labels.Set(p.Labels)) {
		return false
	}
	for _, k := range t.MatchLabelKeys {
		if v, has := owner.Labels[k]; has && p.Labels[k] != v {
			return false
		}
	}
	for _, k := range t.MismatchLabelKeys {
		if v, has := owner.Labels[k]; has && p.Labels[k] == v {
			return false
		}
	}
	return true
}

func requiredTerms(p *corev1.Pod) (with, without []corev1.PodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			with = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			without = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
	}
	return with, without
}

func preferredTerms(p *corev1.Pod) (list []corev1.WeightedPodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			list = append(list, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
		}
		if a.PodAntiAffinity != nil {
			for _, t := range a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
				t.Weight = -t.Weight
				list = append(list, t)
			}
		}
	}
	return list
}

// same says that two nodes are in one domain.
func same(a, b *corev1.Node, key string) bool {
	v, has := a.Labels[key]
	u, also := b.Labels[key]
	return has && also && v == u
}

func (w *world) static(p *corev1.Pod, n *corev1.Node) (affine, tolerates bool, other string) {
	match, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(n)
	affine, tolerates = err == nil && match, true
	for i := range n.Spec.Taints {
		if t := &n.Spec.Taints[i]; t.Effect != corev1.TaintEffectPreferNoSchedule &&
			!helpers.TolerationsTolerateTaint(klog.Background(), p.Spec.Tolerations, t, true) {
			tolerates = false
		}
	}
	if n.Spec.Unschedulable && !helpers.TolerationsTolerateTaint(klog.Background(), p.Spec.Tolerations,
		&corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}, true) {
		other = "node(s) were unschedulable"
	}
	return affine, tolerates, other
}

func request(p *corev1.Pod, name corev1.ResourceName) int64 { return needs(p, name, 0) }

// view is one way to see a container's request: as its spec has it, as the kubelet has granted it, as it is in force.
type view int

const (
	spec view = iota
	allocated
	actuated
)

// needs is what a pod takes: the most that its containers need as any view has it, spec left out if the node can't ever give that; or what the pod itself asks
// for; and overhead. A container that asks for nothing counts as missing.
func needs(p *corev1.Pod, name corev1.ResourceName, missing int64) int64 {
	total := max(together(p, name, missing, allocated), together(p, name, missing, actuated))
	if !infeasible(p) {
		total = max(total, together(p, name, missing, spec))
	}
	if p.Spec.Resources != nil {
		if q, has := p.Spec.Resources.Requests[name]; has {
			total = amount(name, q)
		}
	}
	return total + amount(name, p.Spec.Overhead[name])
}

// together is what runs side by side, or what the init containers need one after the other beside the sidecars begun before them.
func together(p *corev1.Pod, name corev1.ResourceName, missing int64, as view) int64 {
	running, peak, sidecars := int64(0), int64(0), int64(0)
	for i := range p.Spec.Containers {
		running += one(p, &p.Spec.Containers[i], name, missing, as)
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		v := one(p, c, name, missing, as)
		if c.RestartPolicy != nil {
			sidecars += v
			peak = max(peak, sidecars)
		} else {
			peak = max(peak, sidecars+v)
		}
	}
	return max(running+sidecars, peak)
}

// one is a container's request in a view.
func one(p *corev1.Pod, c *corev1.Container, name corev1.ResourceName, missing int64, as view) int64 {
	list := c.Resources.Requests
	if as != spec && infeasible(p) {
		list = nil
	}
	for _, s := range p.Status.ContainerStatuses {
		switch {
		case s.Name != c.Name || as == spec:
		case as == allocated:
			list = s.AllocatedResources
		default:
			list = s.Resources.Requests
		}
	}
	q, has := list[name]
	if !has {
		return missing
	}
	return amount(name, q)
}

func infeasible(p *corev1.Pod) bool {
	for _, r := range p.Status.Conditions {
		if r.Type == corev1.PodResizePending && r.Reason == corev1.PodReasonInfeasible {
			return true
		}
	}
	return false
}

func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func capacity(n *corev1.Node, name corev1.ResourceName) int64 {
	q := n.Status.Allocatable[name]
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// everywhere says that a port is on every address.
func everywhere(p corev1.ContainerPort) bool { return p.HostIP == "" || p.HostIP == "0.0.0.0" }

// asked are the nodes to which a pod is bound by name; nil if it is not. All terms of a random pod name one, or none does.
func asked(p *corev1.Pod) (names []string) {
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, f := range t.MatchFields {
				names = append(names, f.Values...)
			}
		}
	}
	return names
}

// refusal is the first reason against a node, "" if there is none.
func (w *world) refusal(p *corev1.Pod, n *corev1.Node) string {
	affine, tolerates, other := w.static(p, n)
	names := asked(p)
	switch {
	case names != nil && !slices.Contains(names, n.Name):
		return "node(s) didn't satisfy plugin(s) [NodeAffinity]"
	case other != "":
		return other
	case !tolerates:
		return "node(s) had untolerated taint(s)"
	case w.rules != nil && w.rules.Enforced != nil && n.Labels["disk"] != "ssd":
		return "node(s) didn't match scheduler-enforced node affinity"
	case !affine:
		return "node(s) didn't match Pod's node affinity/selector"
	}
	here := w.on(n.Name)
	for _, q := range here {
		for _, a := range p.Spec.Containers[0].Ports {
			for _, b := range q.Spec.Containers[0].Ports {
				if a.HostPort == b.HostPort && a.HostPort > 0 && a.Protocol == b.Protocol && (everywhere(a) || everywhere(b) || a.HostIP == b.HostIP) {
					return "node(s) didn't have free ports for the requested pod ports"
				}
			}
		}
	}
	if int64(len(here)+1) > capacity(n, "pods") {
		return "Too many pods"
	}
	for _, name := range []corev1.ResourceName{"cpu", "memory", "ephemeral-storage", gpu} {
		used := request(p, name)
		for _, q := range here {
			used += request(q, name)
		}
		devices := p.Annotations[backed] == string(name) && capacity(n, name) == 0 // somebody else gives them
		if request(p, name) > 0 && used > capacity(n, name) && !devices {
			return "Insufficient " + string(name)
		}
	}
	if r := w.keepsOff(p, n); r != "" {
		return r
	}
	if r := w.skew(p, n); r != "" && w.rules.Runs("PodTopologySpread") {
		return r
	}
	if r := w.others(p, n); r != "" && w.rules.Runs("InterPodAffinity") {
		return r
	}
	if len(p.Spec.Containers[0].RestartPolicyRules) > 0 && !slices.Contains(n.Status.DeclaredFeatures, restartsAll) ||
		len(p.Spec.Containers[0].VolumeMounts) > 0 && !slices.Contains(n.Status.DeclaredFeatures, bindsMounts) {
		return "node(s) didn't match Pod's required features"
	}
	return ""
}

func (w *world) constraints(p *corev1.Pod, when corev1.UnsatisfiableConstraintAction) (list []corev1.TopologySpreadConstraint, own bool) {
	for _, c := range p.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == when {
			list = append(list, c)
		}
	}
	if len(p.Spec.TopologySpreadConstraints) == 0 && w.siblings[p.Namespace] != nil {
		if w.rules == nil || w.rules.System {
			if names := asked(p); len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool { return name != names[0] }) {
				return nil, false // nothing to choose
			}
			if when == corev1.ScheduleAnyway {
				return defaultConstraints, false
			}
			return nil, false
		}
		for _, c := range w.rules.Constraints {
			if c.WhenUnsatisfiable == when {
				list = append(list, c)
			}
		}
	}
	return list, true
}

func (w *world) spreadSelector(p *corev1.Pod, c *corev1.TopologySpreadConstraint, own bool) labels.Selector {
	if !own || len(p.Spec.TopologySpreadConstraints) == 0 {
		return w.siblings[p.Namespace]
	}
	return cluster.WithLabelKeys(cluster.Selector(c.LabelSelector), p.Labels, c.MatchLabelKeys, "in")
}

func (w *world) counted(p *corev1.Pod, s labels.Selector, node string) (count int64) {
	for _, q := range w.on(node) {
		if !s.Empty() && q.DeletionTimestamp == nil && q.Namespace == p.Namespace && s.Matches(labels.Set(q.Labels)) {
			count++
		}
	}
	return count
}

func (w *world) includes(p *corev1.Pod, c *corev1.TopologySpreadConstraint, n *corev1.Node) bool {
	affine, tolerates, _ := w.static(p, n)
	return (affine || c.NodeAffinityPolicy != nil && *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyIgnore) &&
		(tolerates || c.NodeTaintsPolicy == nil || *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyIgnore)
}

func hasAll(n *corev1.Node, list []corev1.TopologySpreadConstraint) bool {
	for _, c := range list {
		if _, has := n.Labels[c.TopologyKey]; !has {
			return false
		}
	}
	return true
}

func (w *world) skew(p *corev1.Pod, n *corev1.Node) string {
	list, own := w.constraints(p, corev1.DoNotSchedule)
	for i := range list {
		c := &list[i]
		selector := w.spreadSelector(p, c, own)
		here, has := n.Labels[c.TopologyKey]
		if !has {
			return "node(s) didn't match pod topology spread constraints (missing required label)"
		}
		counts := map[string]int64{}
		for _, m := range w.nodes {
			if hasAll(m, list) && w.includes(p, c, m) {
				counts[m.Labels[c.TopologyKey]] += w.counted(p, selector, m.Name)
			}
		}
		lowest := int64(math.MaxInt32)
		for _, v := range counts {
			lowest = min(lowest, v)
		}
		if c.MinDomains != nil && len(counts) < int(*c.MinDomains) || len(counts) == 0 {
			lowest = 0
		}
		self := int64(0)
		if selector.Matches(labels.Set(p.Labels)) {
			self = 1
		}
		if counts[here]+self-lowest > int64(c.MaxSkew) {
			return "node(s) didn't match pod topology spread constraints"
		}
	}
	return ""
}

func (w *world) others(p *corev1.Pod, n *corev1.Node) string {
	with, without := requiredTerms(p)
	all := func(q *corev1.Pod) bool {
		for i := range with {
			if !w.selects(p, &with[i], q) {
				return false
			}
		}
		return true
	}
	met, anywhere := true, false
	for i := range with {
		found := false
		if _, has := n.Labels[with[i].TopologyKey]; !has {
			return "node(s) didn't match pod affinity rules"
		}
		for _, q := range w.pods {
			m := w.node(q.Spec.NodeName)
			if m == nil || !all(q) {
				continue
			}
			if _, has := m.Labels[with[i].TopologyKey]; has {
				anywhere = true
			}
			found = found || same(n, m, with[i].TopologyKey)
		}
		met = met && found
	}
	if !met && (anywhere || !all(p)) {
		return "node(s) didn't match pod affinity rules"
	}
	reason := ""
	for _, q := range w.pods {
		m := w.node(q.Spec.NodeName)
		if m == nil {
			continue
		}
		for i := range without {
			if same(n, m, without[i].TopologyKey) && w.selects(p, &without[i], q) {
				return "node(s) didn't match pod anti-affinity rules"
			}
		}
		_, theirs := requiredTerms(q)
		for i := range theirs {
			if same(n, m, theirs[i].TopologyKey) && w.selects(q, &theirs[i], p) {
				reason = "node(s) didn't satisfy existing pods anti-affinity rules"
			}
		}
	}
	return reason
}

// scores of the feasible nodes by name.
func (w *world) scores(p *corev1.Pod, feasible []*corev1.Node) map[string]int64 {
	total := map[string]int64{}
	taints, prefers := map[string]int64{}, map[string]int64{}
	var mostTaints, mostPrefers int64
	for _, n := range feasible {
		total[n.Name] = w.load(p, n)
		for _, t := range n.Spec.Taints {
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !helpers.TolerationsTolerateTaint(klog.Background(), p.Spec.Tolerations, &t, true) {
				taints[n.Name]++
			}
		}
		if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil {
			for _, term := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
				if ok, _ := helpers.MatchNodeSelectorTerms(n, &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term.Preference}}); ok {
					prefers[n.Name] += int64(term.Weight)
				}
			}
		}
		mostTaints, mostPrefers = max(mostTaints, taints[n.Name]), max(mostPrefers, prefers[n.Name])
	}
	spread, likes := w.spreadScores(p, feasible), w.likes(p, feasible)
	for _, n := range feasible {
		tolerated, preferred := int64(100), int64(0)
		if mostTaints > 0 {
			tolerated = 100 - 100*taints[n.Name]/mostTaints
		}
		if mostPrefers > 0 {
			preferred = 100 * prefers[n.Name] / mostPrefers
		}
		s := w.rules.Scale()
		total[n.Name] += s.ImageLocality*w.locality(p, n) + s.TaintToleration*tolerated + s.NodeAffinity*preferred + s.PodTopologySpread*spread[n.Name] + s.InterPodAffinity*likes[n.Name] +
			s.VolumeBinding*w.stored(p, n)
	}
	return total
}

// locality is what a pod's images that a node has are worth, each by its size and by how many of all nodes have it.
func (w *world) locality(p *corev1.Pod, n *corev1.Node) int64 {
	const mb = 1 << 20
	size := func(m *corev1.Node, image string) int64 {
		for _, i := range m.Status.Images {
			if i.Names[0] == image || i.Names[0] == image+":latest" {
				return i.SizeBytes
			}
		}
		return 0
	}
	all, sum := append(slices.Clone(p.Spec.InitContainers), p.Spec.Containers...), int64(0)
	for _, c := range all {
		having := 0
		for _, m := range w.nodes {
			if size(m, c.Image) > 0 {
				having++
			}
		}
		sum += int64(float64(size(n, c.Image)) * float64(having) / float64(len(w.nodes)))
	}
	low, high := int64(23*mb), int64(1000*mb*len(all))
	return 100 * (min(max(sum, low), high) - low) / (high - low)
}

func (w *world) load(p *corev1.Pod, n *corev1.Node) int64 {
	guessed := func(q *corev1.Pod, name corev1.ResourceName) int64 {
		if q.Spec.Resources != nil && len(q.Spec.Resources.Requests) > 0 && request(q, name) > 0 {
			return request(q, name)
		}
		return needs(q, name, map[corev1.ResourceName]int64{"cpu": 100, "memory": 200 << 20}[name])
	}
	least, most := int64(0), int64(0)
	var without, with []float64
	for _, name := range []corev1.ResourceName{"cpu", "memory"} {
		used, guess := int64(0), guessed(p, name)
		for _, q := range w.on(n.Name) {
			used, guess = used+request(q, name), guess+guessed(q, name)
		}
		if guess <= capacity(n, name) {
			least += (capacity(n, name) - guess) * 100 / capacity(n, name)
		}
		most += min(guess, capacity(n, name)) * 100 / capacity(n, name)
		without = append(without, min(1, float64(used)/float64(capacity(n, name))))
		with = append(with, min(1, float64(used+request(p, name))/float64(capacity(n, name))))
	}
	even := func(f []float64) int64 { return int64((1 - math.Abs(f[0]-f[1])/2) * 100) }
	balanced := int64(0)
	if request(p, "cpu") > 0 || request(p, "memory") > 0 {
		balanced = 50 + (50+even(with)-even(without))/2
	}
	fit := least / 2
	if w.rules != nil && w.rules.Fit != nil {
		fit = most / 2
	}
	return w.rules.Scale().NodeResourcesFit*fit + w.rules.Scale().NodeResourcesBalancedAllocation*balanced
}

func (w *world) spreadScores(p *corev1.Pod, feasible []*corev1.Node) map[string]int64 {
	list, own := w.constraints(p, corev1.ScheduleAnyway)
	scores := map[string]int64{}
	if len(list) == 0 {
		return scores
	}
	var counting []*corev1.Node
	for _, n := range feasible {
		if !own || hasAll(n, list) {
			counting = append(counting, n)
		}
	}
	raw, lowest, highest := map[string]int64{}, int64(math.MaxInt64), int64(0)
	for _, n := range counting {
		sum := 0.0
		for i := range list {
			c := &list[i]
			here, has := n.Labels[c.TopologyKey]
			if !has {
				continue
			}
			selector, domains := w.spreadSelector(p, c, own), map[string]bool{}
			for _, m := range counting {
				domains[m.Labels[c.TopologyKey]] = true // "" for all that have no such label
			}
			size, count := len(domains), int64(0)
			if c.TopologyKey == corev1.LabelHostname {
				size, count = len(counting), w.counted(p, selector, n.Name)
			} else {
				for _, m := range w.nodes {
					if m.Labels[c.TopologyKey] == here && (!own || hasAll(m, list)) && w.includes(p, c, m) {
						count += w.counted(p, selector, m.Name)
					}
				}
			}
			sum += float64(count)*math.Log(float64(size+2)) + float64(c.MaxSkew-1)
		}
		raw[n.Name] = int64(math.Round(sum))
		lowest, highest = min(lowest, raw[n.Name]), max(highest, raw[n.Name])
	}
	for _, n := range counting {
		scores[n.Name] = 100
		if highest > 0 {
			scores[n.Name] = 100 * (highest + lowest - raw[n.Name]) / highest
		}
	}
	return scores
}

func (w *world) hardWeight() int64 {
	if w.rules == nil {
		return 1
	}
	return w.rules.HardWeight
}

func (w *world) likes(p *corev1.Pod, feasible []*corev1.Node) map[string]int64 {
	raw, lowest, highest := map[string]int64{}, int64(math.MaxInt64), int64(math.MinInt64)
	for _, n := range feasible {
		sum := int64(0)
		for _, q := range w.pods {
			m := w.node(q.Spec.NodeName)
			if m == nil {
				continue
			}
			for _, t := range preferredTerms(p) {
				if same(n, m, t.PodAffinityTerm.TopologyKey) && w.selects(p, &t.PodAffinityTerm, q) {
					sum += int64(t.Weight)
				}
			}
			for _, t := range preferredTerms(q) {
				if same(n, m, t.PodAffinityTerm.TopologyKey) && w.selects(q, &t.PodAffinityTerm, p) {
					sum += int64(t.Weight)
				}
			}
			with, _ := requiredTerms(q)
			for i := range with {
				if same(n, m, with[i].TopologyKey) && w.selects(q, &with[i], p) {
					sum += w.hardWeight()
				}
			}
		}
		raw[n.Name] = sum
		lowest, highest = min(lowest, sum), max(highest, sum)
	}
	scores := map[string]int64{}
	if highest > lowest {
		for name, v := range raw {
			scores[name] = int64(100 * (float64(v-lowest) / float64(highest-lowest)))
		}
	}
	return scores
}
