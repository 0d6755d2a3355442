package api

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// templated is the n-th pod of a template, decoded as from etcd.
func templated(t testing.TB, n int) *corev1.Pod {
	t.Helper()
	seconds := int64(3607)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("web-%d", n), Labels: map[string]string{"app": "web"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)}},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "default", DeprecatedServiceAccount: "default",
			Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", TolerationSeconds: &seconds}},
			Volumes: []corev1.Volume{{Name: fmt.Sprintf("kube-api-access-%d", n), VolumeSource: corev1.VolumeSource{
				Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
				}},
			}}},
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example/app:1.2.3", Env: []corev1.EnvVar{{Name: "A", Value: "b"}},
				LivenessProbe: &corev1.Probe{PeriodSeconds: 3}, Args: []string{"serve"},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}},
			}},
		},
	}
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	out := &corev1.Pod{}
	if err := out.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPodsOfATemplateShareItsParts(t *testing.T) {
	pool := &Pool{}
	a, b := templated(t, 1), templated(t, 2)
	before, _ := b.Marshal()
	sharePod(a, nil, pool)
	sharePod(b, nil, pool)
	if after, _ := b.Marshal(); !bytes.Equal(before, after) {
		t.Error("sharing changed a pod")
	}
	x, y := &a.Spec.Containers[0], &b.Spec.Containers[0]
	for what, shared := range map[string]bool{
		"tolerations":   sameList(a.Spec.Tolerations, b.Spec.Tolerations),
		"token volume":  a.Spec.Volumes[0].Projected == b.Spec.Volumes[0].Projected,
		"environment":   sameList(x.Env, y.Env),
		"arguments":     sameList(x.Args, y.Args),
		"requests":      fmt.Sprintf("%p", x.Resources.Requests) == fmt.Sprintf("%p", y.Resources.Requests),
		"probe":         x.LivenessProbe == y.LivenessProbe,
		"managedFields": a.ManagedFields[0].FieldsV1 == b.ManagedFields[0].FieldsV1,
	} {
		if !shared {
			t.Errorf("%s: each pod has its own", what)
		}
	}
	if a.Name == b.Name || a.Spec.Volumes[0].Name == b.Spec.Volumes[0].Name {
		t.Error("what is a pod's own was shared")
	}
}

// What a pod has from its old state others read already: it must not even be written with the same.
func TestSharingLeavesAliasesAlone(t *testing.T) {
	old := templated(t, 1)
	obj := old.DeepCopy()
	obj.Spec = old.Spec
	image := &old.Spec.Containers[0].Env[0]
	sharePod(obj, old, &Pool{})
	if &old.Spec.Containers[0].Env[0] != image {
		t.Error("the old state was written to")
	}
	other := templated(t, 2)
	pool := &Pool{}
	sharePod(other, nil, pool)
	sharePod(obj, old, pool)
	if sameList(old.Spec.Containers[0].Env, other.Spec.Containers[0].Env) {
		t.Error("the old state was written to")
	}
}

// BenchmarkSharePod is what sharing costs a write, and what a pod holds in memory afterwards.
func BenchmarkSharePod(b *testing.B) {
	pool := &Pool{}
	p := templated(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		sharePod(p, nil, pool)
	}
	b.StopTimer()
	held := func(share bool) float64 {
		const n = 2000
		var before, after runtime.MemStats
		pods := make([]*corev1.Pod, n)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range pods {
			if pods[i] = templated(b, i); share {
				sharePod(pods[i], nil, pool)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(pods)
		return float64(after.HeapAlloc-before.HeapAlloc) / n
	}
	b.ReportMetric(held(false), "B/pod-alone")
	b.ReportMetric(held(true), "B/pod-shared")
}
