package fieldmanager

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func plainPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Labels: map[string]string{"a": "b", "c": "d"}},
		Spec: corev1.PodSpec{
			RestartPolicy: "Always", DNSPolicy: "ClusterFirst", SchedulerName: "default-scheduler",
			Containers: []corev1.Container{{
				Name: "c", Image: "nginx", ImagePullPolicy: "Always", TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File",
				Env: []corev1.EnvVar{{Name: "A", Value: "B"}}, Ports: []corev1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}},
			}},
		},
	}
}

func running(p *corev1.Pod) *corev1.Pod {
	out := p.DeepCopy()
	out.Status.Phase = corev1.PodRunning
	out.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Initialized", Status: "True"}}
	out.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Ready: true, Image: "nginx"}}
	return out
}

func BenchmarkCreateFromOutside(b *testing.B) {
	w := outside(b, "Pod", "kubectl", "")
	managers.Warm()
	for b.Loop() {
		update(b, w, nil, plainPod())
	}
}

func BenchmarkCreateByPart(b *testing.B) {
	w := inside(b, "Pod", "kube-controller-manager", "")
	for b.Loop() {
		update(b, w, nil, plainPod())
	}
}

func BenchmarkStatusByPart(b *testing.B) {
	p := plainPod()
	update(b, outside(b, "Pod", "kubectl", ""), nil, p)
	w := inside(b, "Pod", "kubelet", "status")
	for b.Loop() {
		update(b, w, p, running(p))
	}
}

func BenchmarkStatusFromOutside(b *testing.B) {
	p := plainPod()
	update(b, outside(b, "Pod", "kubectl", ""), nil, p)
	w := outside(b, "Pod", "virtual-kubelet", "status")
	for b.Loop() {
		update(b, w, p, running(p))
	}
}

func BenchmarkApply(b *testing.B) {
	w := outside(b, "Deployment", "kubectl", "")
	u := parse(b, applied)
	live, err := managers.Apply(w, empty(w.Resource), u, false)
	if err != nil {
		b.Fatal(err)
	}
	live.SetUID("1")
	for b.Loop() {
		if _, err := managers.Apply(w, live, u, false); err != nil {
			b.Fatal(err)
		}
	}
}
