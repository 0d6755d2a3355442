package pod

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/kubelet/image"
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

func TestUsers(t *testing.T) {
	one := []*runtimeapi.IDMapping{{HostId: 131072, Length: 65536}}
	own := &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: one, Gids: one}
	for _, users := range []*runtimeapi.UserNamespace{nil, own} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: corev1.DNSNone, Containers: []corev1.Container{{Name: "c"}}}}
		box, err := sandboxConfig(pod, 0, users, "", &Settings{})
		if err != nil {
			t.Fatal(err)
		}
		m := &making{pod: pod, c: &pod.Spec.Containers[0], image: &image.Image{}, users: users, mounts: []*runtimeapi.Mount{{HostPath: "/a"}, {HostPath: "/b"}}, settings: &Settings{}}
		config, err := m.config()
		if err != nil {
			t.Fatal(err)
		}
		of := func(o *runtimeapi.NamespaceOption) *runtimeapi.UserNamespace { return o.UsernsOptions }
		if got := of(box.Linux.SecurityContext.NamespaceOptions); got != users {
			t.Errorf("the sandbox has %v for %v", got, users)
		}
		if got := of(config.Linux.SecurityContext.NamespaceOptions); got != users { // the runtime refuses a container that differs from its sandbox
			t.Errorf("the container has %v for %v", got, users)
		}
		for _, mount := range config.Mounts {
			if !slices.Equal(mount.UidMappings, users.GetUids()) || !slices.Equal(mount.GidMappings, users.GetGids()) {
				t.Errorf("what lies at %s is mounted with %v and %v for %v", mount.HostPath, mount.UidMappings, mount.GidMappings, users)
			}
		}
	}
}

func TestUnmapped(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{RunAsUser: id(65535), FSGroup: id(65535), SupplementalGroups: []int64{0, 65535}},
		Containers:      []corev1.Container{{SecurityContext: &corev1.SecurityContext{RunAsUser: id(1000)}}},
	}}
	if err := unmapped(pod); err != nil {
		t.Error(err)
	}
	pod.Spec.SecurityContext.FSGroup, pod.Spec.SecurityContext.SupplementalGroups[1] = id(65536), 70000
	pod.Spec.Containers[0].SecurityContext.RunAsGroup = id(1 << 30)
	const at = "is not among the ids of the pod, which are those below 65536"
	want := "spec.securityContext.fsGroup: 65536 " + at + "\nspec.securityContext.supplementalGroups[1]: 70000 " + at +
		"\nspec.containers[0].securityContext.runAsGroup: 1073741824 " + at
	if err := unmapped(pod); err == nil || err.Error() != want {
		t.Errorf("%v", err)
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
