package admission

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestPodSecurity(t *testing.T) {
	r := start(t)
	for name, labels := range map[string]map[string]string{
		"baseline":   {"pod-security.kubernetes.io/enforce": "baseline"},
		"restricted": {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.30"},
		"strict":     {"pod-security.kubernetes.io/enforce": "restricted"},
		"warned":     {"pod-security.kubernetes.io/warn": "restricted"},
	} {
		r.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}},
			registrytest.Account("default", func(a *corev1.ServiceAccount) { a.Namespace = name }))
	}
	yes := true
	privileged := func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes} }
	in := func(ns, name string, change ...func(*corev1.Pod)) *corev1.Pod {
		return registrytest.Pod(name, append(change, func(p *corev1.Pod) { p.Namespace = ns })...)
	}
	_, err := r.Create(registrytest.Admin, in("baseline", "p", privileged))
	refused(t, err, 403, `pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`)
	_, err = r.Create(registrytest.Admin, in("restricted", "p"))
	refused(t, err, 403, `violates PodSecurity "restricted:v1.30": allowPrivilegeEscalation != false`)
	asRoot := func(ownUsers bool) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			yes, no, root, unmasked := true, false, int64(0), corev1.UnmaskedProcMount
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &root, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
			p.Spec.HostUsers = &yes
			if ownUsers {
				p.Spec.HostUsers, p.Spec.Containers[0].SecurityContext.ProcMount = &no, &unmasked
			}
		}
	}
	_, err = r.Create(registrytest.Admin, in("strict", "host-users", asRoot(false)))
	refused(t, err, 403, "runAsNonRoot != true")
	if _, err := r.Create(registrytest.Admin, in("baseline", "own-users", asRoot(true))); err != nil {
		t.Errorf("a pod's root with users of its own is held for the host's: %v", err)
	}
	_, err = r.Create(registrytest.Admin, in("restricted", "own-users", asRoot(true))) // by the rules of an older version
	refused(t, err, 403, "runAsNonRoot != true")
	for _, ns := range []string{"baseline", "warned"} {
		if _, err := r.Create(registrytest.Admin, in(ns, "q")); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Create(registrytest.Admin, in("default", "p", privileged)); err != nil {
		t.Error(err)
	}
	var warnings []string
	req := r.Request(registrytest.Admin, "", "pods", "", "warned", "")
	req.Warn = func(text string) { warnings = append(warnings, text) }
	if _, err := r.Registry.Create(context.Background(), req, in("warned", "w"), &metav1.CreateOptions{}); err != nil || !strings.Contains(strings.Join(warnings, " "), `would violate PodSecurity "restricted:latest"`) {
		t.Errorf("%v, warnings %v", err, warnings)
	}
	_, err = r.Create(registrytest.Admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "odd", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "some"}}})
	refused(t, err, 422, "pod-security.kubernetes.io/enforce")
}
