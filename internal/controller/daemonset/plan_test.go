package daemonset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func set(surge, unavailable string, changes ...func(d *appsv1.DaemonSet)) *appsv1.DaemonSet {
	s, u := intstr.Parse(surge), intstr.Parse(unavailable)
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent", UID: "set"}, Spec: appsv1.DaemonSetSpec{
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u}},
	}}
	for _, c := range changes {
		c(d)
	}
	return d
}

func onDelete(d *appsv1.DaemonSet) {
	d.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
}

// nodes are told as "a b:gpu c!NoSchedule": a label, a taint's effect.
func nodes(told string) []*corev1.Node {
	var list []*corev1.Node
	for _, one := range strings.Fields(told) {
		name, effect, tainted := strings.Cut(one, "!")
		name, label, _ := strings.Cut(name, ":")
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"has": label}}}
		if tainted {
			n.Spec.Taints = []corev1.Taint{{Key: "only", Effect: corev1.TaintEffect(effect)}}
		}
		list = append(list, n)
	}
	return list
}

// pods are told as "a old up": a node, a template and a state.
func pods(told string) []*corev1.Pod {
	var list []*corev1.Pod
	for one := range strings.SplitSeq(told, ",") {
		parts := strings.Fields(one)
		if len(parts) == 0 {
			continue
		}
		id := fmt.Sprint(parts[0], "-", parts[1])
		if slices.ContainsFunc(list, func(p *corev1.Pod) bool { return p.Name == id }) {
			id += "-again"
		}
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: id, UID: types.UID(id), CreationTimestamp: metav1.NewTime(noon.Add(time.Duration(len(list)-100) * time.Second)),
			Labels: map[string]string{appsv1.DefaultDaemonSetUniqueLabelKey: parts[1]}}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		p.Spec.NodeName = parts[0]
		switch parts[2] {
		case "up":
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon.Add(-10 * time.Second))}}
		case "unready":
		case "bound":
			p.Spec.NodeName, p.Status.Phase = "", corev1.PodPending
			bindTo(&p.Spec, parts[0])
		case "failed":
			p.Status.Phase = corev1.PodFailed
		case "done":
			p.Status.Phase = corev1.PodSucceeded
		case "ending":
			p.DeletionTimestamp = &metav1.Time{Time: noon}
		}
		list = append(list, p)
	}
	return list
}

func describe(p plan) string {
	var parts []string
	for _, n := range p.create {
		parts = append(parts, "create "+n)
	}
	for _, pod := range p.remove {
		parts = append(parts, "remove "+pod.Name)
	}
	return strings.Join(parts, ", ")
}

func TestDecide(t *testing.T) {
	gpu := func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.NodeSelector = map[string]string{"has": "gpu"} }
	slow := func(d *appsv1.DaemonSet) { d.Spec.MinReadySeconds = 30 }
	for _, tt := range []struct {
		name, nodes, pods, want string
		set                     *appsv1.DaemonSet
		backoff                 time.Duration
	}{
		{name: "one a node", set: set("0", "1"), nodes: "a b", want: "create a, create b"},
		{name: "a node came", set: set("0", "1"), nodes: "a b", pods: "a new up", want: "create b"},
		{name: "bound and waiting counts", set: set("0", "1"), nodes: "a", pods: "a new bound"},
		{name: "selected nodes only", set: set("0", "1", gpu), nodes: "a b:gpu", want: "create b"},
		{name: "a label went", set: set("0", "1", gpu), nodes: "a", pods: "a new up", want: "remove a-new"},
		{name: "NoSchedule keeps out, and leaves alone", set: set("0", "1"), nodes: "a!NoSchedule b!NoSchedule", pods: "a new up"},
		{name: "NoExecute drives out", set: set("0", "1"), nodes: "a!NoExecute", pods: "a new up", want: "remove a-new"},
		{name: "PreferNoSchedule is nothing", set: set("0", "1"), nodes: "a!PreferNoSchedule", want: "create a"},
		{name: "bound for a node that is gone", set: set("0", "1"), nodes: "b", pods: "a new bound, b new up", want: "remove a-new"},
		{name: "on a node that is gone", set: set("0", "1"), nodes: "b", pods: "a new up, b new up"},
		{name: "two on a node: the oldest stays", set: set("0", "1"), nodes: "a", pods: "a new up, a new up", want: "remove a-new-again"},
		{name: "failed", set: set("0", "1"), nodes: "a", pods: "a new failed", want: "remove a-new"},
		{name: "failed too often", set: set("0", "1"), nodes: "a", pods: "a new failed", backoff: time.Second},
		{name: "succeeded", set: set("0", "1"), nodes: "a", pods: "a new done", want: "remove a-new"},
		{name: "the ending one is waited for", set: set("0", "1"), nodes: "a", pods: "a new ending"},
		{name: "rollout: one", set: set("0", "1"), nodes: "a b c", pods: "a old up, b old up, c old up", want: "remove a-old"},
		{name: "rollout: waits", set: set("0", "1"), nodes: "a b c", pods: "a new unready, b old up, c old up"},
		{name: "rollout: not for long enough", set: set("0", "1", slow), nodes: "a b", pods: "a new up, b old up", want: "remove b-old"},
		{name: "rollout: broken ones cost nothing", set: set("0", "1"), nodes: "a b c", pods: "a old unready, b old up, c old unready", want: "remove a-old, remove c-old, remove b-old"},
		{name: "rollout: half", set: set("0", "50%"), nodes: "a b c d", pods: "a old up, b old up, c old up, d new up", want: "remove a-old, remove b-old"},
		{name: "rollout: both zero still moves", set: set("0", "0"), nodes: "a b", pods: "a old up, b old up", want: "remove a-old"},
		{name: "on delete", set: set("0", "1", onDelete), nodes: "a", pods: "a old up"},
		{name: "surge: one", set: set("1", "0"), nodes: "a b", pods: "a old up, b old up", want: "create a"},
		{name: "surge: waits", set: set("1", "0"), nodes: "a b", pods: "a old up, a new unready, b old up"},
		{name: "surge: the new one takes over", set: set("1", "0"), nodes: "a b", pods: "a old up, a new up, b old up", want: "remove a-old"},
		{name: "surge: beside broken ones at once", set: set("1", "0"), nodes: "a b c", pods: "a old unready, b old unready, c old up", want: "create a, create b, create c"},
		{name: "surge: a cordoned-off node's goes when all are served", set: set("1", "0"), nodes: "a!NoSchedule b", pods: "a old up, b new up", want: "remove a-old"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := decide(observed{set: tt.set, nodes: nodes(tt.nodes), pods: pods(tt.pods), hash: "new", mayAct: true, now: noon,
				patience: func(string) time.Duration { return tt.backoff }})
			if got := describe(p); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if tt.backoff > 0 && p.after != tt.backoff {
				t.Errorf("again after %s", p.after)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	d := set("0", "1", func(d *appsv1.DaemonSet) { d.Generation, d.Spec.MinReadySeconds = 4, 30 })
	s, after := statusOf(observed{set: d, nodes: nodes("a b c d!NoExecute e"), pods: pods("a new up, b old unready, c new bound, d old up"), hash: "new", now: noon})
	if s.DesiredNumberScheduled != 4 || s.CurrentNumberScheduled != 3 || s.NumberMisscheduled != 1 || s.NumberReady != 1 || s.NumberAvailable != 0 ||
		s.NumberUnavailable != 4 || s.UpdatedNumberScheduled != 2 || s.ObservedGeneration != 4 || after != 20*time.Second {
		t.Errorf("status %+v, again after %s", s, after)
	}
}

func TestPodFor(t *testing.T) {
	r := &reconciler{}
	r.pods.GVK = gvk
	d := set("0", "1")
	d.Spec.Template.Spec.HostNetwork = true
	d.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64)}}
	p := r.podFor(d, "n1", "h")
	if nodeOf(p) != "n1" || p.GenerateName != "agent-" || p.Labels["controller-revision-hash"] != "h" || p.Spec.NodeName != "" {
		t.Errorf("pod %+v", p)
	}
	if n := len(p.Spec.Tolerations); n != 7 || p.Spec.Tolerations[0].TolerationSeconds != nil {
		t.Errorf("%d tolerations %+v", n, p.Spec.Tolerations)
	}
	if len(d.Spec.Template.Spec.Tolerations) != 1 {
		t.Error("the template was changed")
	}
}
