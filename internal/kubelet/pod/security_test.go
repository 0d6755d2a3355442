package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSeccomp(t *testing.T) {
	name := "profiles/audit.json"
	got := seccomp(&corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &name}, "/data/kubelet/seccomp")
	if got.ProfileType != runtimeapi.SecurityProfile_Localhost || got.LocalhostRef != "/data/kubelet/seccomp/profiles/audit.json" {
		t.Errorf("a profile of the host is %+v", got)
	}
	if got := seccomp(nil, ""); got.ProfileType != runtimeapi.SecurityProfile_Unconfined {
		t.Errorf("no profile is %+v", got)
	}
}

func TestUsersShared(t *testing.T) {
	yes, no := true, false
	for _, test := range []struct {
		hostUsers *bool
		ok        bool
	}{{nil, true}, {&yes, true}, {&no, false}} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{HostUsers: test.hostUsers, DNSPolicy: corev1.DNSNone}}
		if _, err := sandboxConfig(pod, 0, "", &Settings{}); (err == nil) != test.ok {
			t.Errorf("a sandbox without its own users is made, or one with the host's is not: %v", err)
		}
	}
}

func TestConfined(t *testing.T) {
	with := func(kind corev1.AppArmorProfileType) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: kind}}, Containers: []corev1.Container{{Name: "c"}},
		}}
	}
	if Confined(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{}}}}) || Confined(with(corev1.AppArmorProfileTypeUnconfined)) {
		t.Error("a pod that asks for no profile is held to ask for one")
	}
	if !Confined(with(corev1.AppArmorProfileTypeRuntimeDefault)) {
		t.Error("a pod that asks for the runtime's profile is not held to ask for one")
	}
}
