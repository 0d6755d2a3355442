package api

import (
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	const service = "metadata: {name: s, namespace: default}\nspec: {ports: [{port: 80}]}\n"
	const ingress = "metadata: {name: i, namespace: default}\nspec: {defaultBackend: {service: {name: a, port: {number: 80}}}}\n"
	const claim = "metadata: {name: c, namespace: default}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n"
	for _, c := range []struct{ kind, good, change, want string }{
		{"Pod", goodPod, "", ""},
		{"Pod", goodPod, "metadata: {name: a.b}", "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"},
		{"Pod", goodPod, "spec: {nodeSelector: {beta.kubernetes.io/os: linux}}", `spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`},
		{"Pod", goodPod, "metadata: {annotations: {seccomp.security.alpha.kubernetes.io/pod: x}}",
			`metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead`},
		{"Pod", goodPod, inContainer("env: [{name: A, value: a}, {name: A, value: b}]"),
			`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`},
		{"Pod", goodPod, inContainer("ports: [{containerPort: 80, name: a}, {containerPort: 80, name: b}]"),
			"spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"},
		{"Pod", goodPod, inContainer("resources: {requests: {memory: 128m}}"), `spec.containers[0].resources.requests[memory]: fractional byte value "128m" is invalid, must be an integer`},
		{"Pod", goodPod, "spec: {imagePullSecrets: [{name: a}, {name: a}]}", `spec.imagePullSecrets[1].name: duplicate name "a"`},
		{"apps/Deployment", goodDeployment, "spec: {template: {spec: {terminationGracePeriodSeconds: -1}}}",
			"spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"},
		{"Pod", goodPod, ofVolume("glusterfs: {endpoints: a, path: b}"), "spec.volumes[0].glusterfs: deprecated in v1.25, non-functional in v1.26+"},
		{"apps/Deployment", goodDeployment, "spec: {template: {spec: {nodeSelector: {beta.kubernetes.io/arch: amd64}}}}",
			`spec.template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead`},
		{"Service", service, "spec: {clusterIP: None, sessionAffinity: ClientIP}", "spec.SessionAffinity is ignored for headless services"},
		{"Service", service, "spec: {externalName: a}", `spec.externalName is ignored when spec.type is not "ExternalName"`},
		{"networking.k8s.io/Ingress", ingress, "metadata: {annotations: {kubernetes.io/ingress.class: a}}",
			`annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead`},
		{"PersistentVolumeClaim", claim, "spec: {resources: {requests: {storage: 1500m}}}",
			`spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer`},
	} {
		row := rowOf(t, c.kind)
		obj := parse(t, row, c.good, c.change)
		if row.Default != nil {
			row.Default(obj)
		}
		if got := strings.Join(row.Warn(obj, nil), "\n"); got != c.want {
			t.Errorf("%s %s\ngot:  %s\nwant: %s", c.kind, c.change, got, c.want)
		}
		if again := row.Warn(obj, obj); row.Generation && len(again) > 0 {
			t.Errorf("%s %s: warned again though nothing changed: %v", c.kind, c.change, again)
		}
	}
}
