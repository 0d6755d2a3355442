package usage

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func sample(at time.Time, nanoCores uint64, uids ...string) *stats.Summary {
	bytes := uint64(64 << 20)
	cpu := &stats.CPUStats{Time: metav1.NewTime(at), UsageNanoCores: &nanoCores}
	memory := &stats.MemoryStats{WorkingSetBytes: &bytes}
	out := &stats.Summary{Node: stats.NodeStats{CPU: cpu, Memory: memory}}
	for _, uid := range uids {
		out.Pods = append(out.Pods, stats.PodStats{PodRef: stats.PodReference{UID: uid}, Containers: []stats.ContainerStats{
			{Name: "main", CPU: cpu, Memory: memory, StartTime: metav1.NewTime(at.Add(-2 * time.Second))},
		}})
	}
	return out
}

func TestReads(t *testing.T) {
	reg := registrytest.Start(t, nil, nil)
	root := &user.DefaultInfo{Name: "admin", Groups: []string{"system:masters"}}
	on := func(node string, set map[string]string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.NodeName, p.Labels = node, set }
	}
	reg.Must(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "there"}},
		registrytest.Pod("a", on("here", map[string]string{"app": "web"})), registrytest.Pod("b", on("there", nil)), registrytest.Pod("c", on("here", nil)))
	uid := func(name string) string {
		out, err := reg.Get(t.Context(), reg.Request(root, "", "pods", "", "default", name), nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(out.Object.(*corev1.Pod).UID)
	}
	s := New(reg.Registry, nil)
	now := time.Now()
	s.now = func() time.Time { return now }
	var asked atomic.Int32
	var fail error
	s.Through(func(_ context.Context, node string) (*stats.Summary, error) {
		if node != "there" {
			t.Errorf("%s was asked", node)
		}
		asked.Add(1)
		return sample(now, 2e9, uid("b")), fail
	})
	for path, f := range s.Reads() {
		reg.HandleRead(path, f)
	}
	told := 0
	stop := s.Follow(func() { told++ })
	s.Push("here", sample(now, 5e8, uid("a"))) // c has not been measured
	stop()
	s.Push("here", sample(now, 5e8, uid("a")))
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	list := func(plural string, o metainternalversion.ListOptions) (names []string) {
		t.Helper()
		ns := "default"
		if plural == "nodes" {
			ns = ""
		}
		page, err := reg.List(t.Context(), reg.Request(root, metricsv1beta1.GroupName, plural, "", ns, ""), &o)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			names = append(names, e.Object().GetName())
		}
		return names
	}
	all := metainternalversion.ListOptions{}
	for i, c := range []struct {
		plural string
		o      metainternalversion.ListOptions
		want   string
	}{
		{"pods", all, "a b"},
		{"nodes", all, "here there"},
		{"pods", metainternalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{"app": "web"})}, "a"},
		{"pods", metainternalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "b")}, "b"},
	} {
		if got := list(c.plural, c.o); joined(got) != c.want {
			t.Errorf("list %d: %v, want %s", i, got, c.want)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the other node was asked %d times", asked.Load())
	}
	out, err := reg.Get(t.Context(), reg.Request(root, metricsv1beta1.GroupName, "pods", "", "default", "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := out.Object.(*metricsv1beta1.PodMetrics)
	cpu, memory := m.Containers[0].Usage[corev1.ResourceCPU], m.Containers[0].Usage[corev1.ResourceMemory]
	if cpu.String() != "500m" || memory.String() != "64Mi" || m.Window.Duration != 2*time.Second || m.Labels["app"] != "web" || m.Kind != "PodMetrics" {
		t.Errorf("%+v", m)
	}
	if _, err := reg.Get(t.Context(), reg.Request(root, metricsv1beta1.GroupName, "pods", "", "default", "c"), nil); err == nil {
		t.Error("there are figures of what was not measured")
	}
	// A node that is out of reach is shown for a while, then not.
	fail, now = errors.New("unreachable"), now.Add(10*time.Second)
	if got := list("nodes", all); joined(got) != "here there" || asked.Load() != 2 {
		t.Errorf("after 10 s: %v", got)
	}
	now = now.Add(MaxAge)
	if got := list("nodes", all); len(got) != 0 {
		t.Errorf("figures of long ago: %v", got)
	}
}

func joined(names []string) (out string) {
	for i, n := range names {
		if i > 0 {
			out += " "
		}
		out += n
	}
	return out
}
