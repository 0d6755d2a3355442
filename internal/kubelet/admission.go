package kubelet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/kubelet/admit"
	"skiff.dev/skiff/internal/kubelet/evict"
	"skiff.dev/skiff/internal/kubelet/pod"
)

// fresh: no kubelet has taken the pod up yet. One that was taken up is not asked about again when this process starts anew.
func fresh(one *corev1.Pod) bool {
	return one.Status.StartTime == nil && one.DeletionTimestamp == nil && !terminal(one)
}

// admit says why this node doesn't take a pod that it sees for the first time. The caller holds mu, so pods are judged one after another.
func (p *pods) admit(one *corev1.Pod) *pod.Verdict {
	if !fresh(one) {
		return nil
	}
	if v := p.k.refuseInShutdown(); v != nil {
		return v
	}
	if !p.deps.Settings.AppArmor && pod.Confined(one) {
		return &pod.Verdict{Reason: "AppArmor", Message: "Cannot enforce AppArmor: AppArmor is not enabled on the host"}
	}
	if v := admit.Unsupported(one, declared); v != nil {
		return v
	}
	if v := p.k.refuseUnderPressure(one); v != nil {
		return v
	}
	others := p.taken()
	if p.statics[one.UID] != nil { // the API may not be there yet
		return p.judge(one, p.unregistered(), others)
	}
	if verdict := admit.Refuse(one, p.node(p.ctx, p.k.cfg.Client), others); verdict == nil && !evict.Critical(one) {
		return nil
	}
	// The scheduler may have seen a newer node than the cache has: its labels, taints or what it has to give.
	return p.judge(one, p.node(p.ctx, p.k.cfg.Client.Live()), others)
}

// judge refuses a pod, or makes room for it if it is critical.
func (p *pods) judge(one *corev1.Pod, node *corev1.Node, others []*corev1.Pod) *pod.Verdict {
	if verdict := admit.Refuse(one, node, others); verdict != nil {
		return verdict
	}
	victims, verdict := admit.Preempt(one, node, others)
	for _, v := range victims {
		p.k.log.Warn("ending a pod to make room for a critical one", "pod", v.Namespace+"/"+v.Name, "for", one.Namespace+"/"+one.Name)
		p.actors[v.UID].Preempt()
	}
	return verdict
}

// taken are the pods that take up room. One that is terminal or gone from the API doesn't, for the scheduler has given its room to
// others by then; the API tells of both in the order in which the scheduler learnt of them.
func (p *pods) taken() []*corev1.Pod {
	out := make([]*corev1.Pod, 0, len(p.actors))
	for _, a := range p.actors {
		if one := a.Holds(); one != nil {
			out = append(out, one)
		}
	}
	return out
}

// node as reader has it; before it is registered, what it will be.
func (p *pods) node(ctx context.Context, reader crclient.Reader) *corev1.Node {
	var node corev1.Node
	if err := reader.Get(ctx, crclient.ObjectKey{Name: p.k.cfg.NodeName}, &node); err == nil && len(node.Status.Allocatable) > 0 {
		return &node
	}
	return p.unregistered()
}

// unregistered is the node as it will be registered.
func (p *pods) unregistered() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: p.k.cfg.NodeName, Labels: p.k.labels()},
		Status:     corev1.NodeStatus{Allocatable: p.k.machine.allocatable(p.k.cfg.MaxPods)},
	}
}

// beginFirst takes up the pods that came with the first list, in the order in which they were created. The caller holds mu.
func (p *pods) beginFirst() {
	for _, one := range slices.SortedFunc(maps.Values(p.first), func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(string(a.UID), string(b.UID)))
	}) {
		p.begin(one, false)
	}
	p.first = nil
}
