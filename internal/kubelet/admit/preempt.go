package admit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/evict"
	"skiff.dev/skiff/internal/kubelet/pod"
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// needs are amounts that are lacking, by resource.
type needs map[corev1.ResourceName]int64

// without is what is still lacking once pods are gone.
func (n needs) without(pods ...*cluster.Pod) needs {
	out := maps.Clone(n)
	for name := range n {
		for _, p := range pods {
			out[name] -= amount(p, name)
		}
		if out[name] <= 0 {
			delete(out, name)
		}
	}
	return out
}

func (n needs) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(n)) {
		fmt.Fprintf(&b, "(res: %s, q: %d), ", name, n[name])
	}
	return "[" + b.String() + "]"
}

var basic = map[corev1.ResourceName]int{
	corev1.ResourcePods: cluster.Pods, corev1.ResourceCPU: cluster.CPU, corev1.ResourceMemory: cluster.Memory, corev1.ResourceEphemeralStorage: cluster.Ephemeral,
}

func amount(p *cluster.Pod, name corev1.ResourceName) int64 {
	if index, ok := basic[name]; ok {
		return p.Requests[index]
	}
	return p.Extended[name]
}

func capacity(node *corev1.Node, name corev1.ResourceName) int64 {
	q := node.Status.Allocatable[name]
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// Preempt chooses the pods that must go for a critical one to fit, as upstream's kubelet does: of the least class of quality of service first, and of
// these those whose requests come closest to what is lacking. The verdict says that all that may go wouldn't do.
func Preempt(one *corev1.Pod, node *corev1.Node, others []*corev1.Pod) (victims []*corev1.Pod, refused *pod.Verdict) {
	if !evict.Critical(one) {
		return nil, nil
	}
	p := cluster.PodOf(one)
	placed := make([]*cluster.Pod, len(others))
	classes := map[corev1.PodQOSClass][]*cluster.Pod{}
	for i, o := range others {
		placed[i] = cluster.PodOf(o)
		if !evict.Critical(o) {
			classes[cgroup.Class(o)] = append(classes[cgroup.Class(o)], placed[i])
		}
	}
	lacking := shortages(p, node, placed)
	if len(lacking) == 0 {
		return nil, nil
	}
	best, burst, sure := classes[corev1.PodQOSBestEffort], classes[corev1.PodQOSBurstable], classes[corev1.PodQOSGuaranteed]
	if never := lacking.without(slices.Concat(best, burst, sure)...); len(never) > 0 {
		return nil, &pod.Verdict{Reason: "UnexpectedAdmissionError", Message: "Unexpected error while attempting to recover from admission failure: " +
			"preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: " + never.String()}
	}
	sure = closest(sure, lacking.without(slices.Concat(best, burst)...))
	burst = closest(burst, lacking.without(slices.Concat(best, sure)...))
	best = closest(best, lacking.without(slices.Concat(burst, sure)...))
	for _, v := range slices.Concat(best, burst, sure) {
		victims = append(victims, v.Pod)
	}
	return victims, nil
}

func shortages(p *cluster.Pod, node *corev1.Node, placed []*cluster.Pod) needs {
	out := needs{}
	for name := range node.Status.Allocatable {
		want := amount(p, name)
		if _, is := basic[name]; want <= 0 || !is && claimed(p.Pod, name) {
			continue
		}
		free := capacity(node, name)
		for _, o := range placed {
			free -= amount(o, name)
		}
		if want > free {
			out[name] = want - free
		}
	}
	return out
}

// closest takes pods until nothing is lacking, each time the one whose requests come closest to that; of several the smallest.
func closest(pods []*cluster.Pod, lacking needs) (taken []*cluster.Pod) {
	pods = slices.Clone(pods)
	for len(lacking) > 0 && len(pods) > 0 {
		i := 0
		for j := range pods {
			if d, least := lacking.distance(pods[j]), lacking.distance(pods[i]); d < least || d == least && smaller(pods[j], pods[i]) {
				i = j
			}
		}
		taken = append(taken, pods[i])
		lacking = lacking.without(pods[i])
		pods = slices.Delete(pods, i, i+1)
	}
	return taken
}

// distance is the sum of the squares of the parts of each need that a pod leaves unmet.
func (n needs) distance(p *cluster.Pod) (sum float64) {
	for name, lacking := range n {
		if left := float64(lacking-amount(p, name)) / float64(lacking); left > 0 {
			sum += left * left
		}
	}
	return sum
}

func smaller(a, b *cluster.Pod) bool {
	if x, y := a.Requests[cluster.Memory], b.Requests[cluster.Memory]; x != y {
		return x < y
	}
	return a.Requests[cluster.CPU] < b.Requests[cluster.CPU]
}
