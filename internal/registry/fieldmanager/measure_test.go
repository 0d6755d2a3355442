package fieldmanager

import (
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"skiff.dev/skiff/internal/api"
)

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func pod() *corev1.Pod {
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Labels: map[string]string{"a": "b", "c": "d"}},
		Spec: corev1.PodSpec{RestartPolicy: "Always", DNSPolicy: "ClusterFirst", SchedulerName: "default-scheduler", Containers: []corev1.Container{{Name: "c", Image: "nginx", ImagePullPolicy: "Always", TerminationMessagePath: "/dev/termination-log",
			TerminationMessagePolicy: "File", Env: []corev1.EnvVar{{Name: "A", Value: "B"}}, Ports: []corev1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}}}}}}
}

func TestMeasure(t *testing.T) {
	_ = api.Scheme()
	h := heap()
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	begin := time.Now()
	c := applyconfigurations.NewTypeConverter(api.Scheme())
	runtime.ReadMemStats(&b)
	t.Log(time.Since(begin), "heap", heap()-h, "alloc", b.TotalAlloc-a.TotalAlloc)
	tv, err := c.ObjectToTyped(pod())
	t.Log(err, heap()-h, len(tv.Schema().Types))
}

func BenchmarkTyped(b *testing.B) {
	c := applyconfigurations.NewTypeConverter(api.Scheme())
	p := pod()
	b.ReportAllocs()
	for b.Loop() {
		tv, _ := c.ObjectToTyped(p, typed.AllowDuplicates)
		s, _ := tv.ToFieldSet()
		_, _ = s.ToJSON()
	}
}
func BenchmarkCompare(b *testing.B) {
	c := applyconfigurations.NewTypeConverter(api.Scheme())
	p := pod()
	b.ReportAllocs()
	for b.Loop() {
		tv, _ := c.ObjectToTyped(p, typed.AllowDuplicates)
		tv0, _ := c.ObjectToTyped(&corev1.Pod{TypeMeta: p.TypeMeta}, typed.AllowDuplicates)
		s, _ := tv0.Compare(tv)
		_, _ = s.Added.ToJSON()
	}
}
