package api

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const goodPod = `
metadata: {name: p, namespace: default}
spec:
  containers: [{name: a, image: web}]
`

func TestPodValidation(t *testing.T) {
	checkCreate(t, "Pod", goodPod, []bad{
		{"no containers", `spec: {containers: []}`, one("spec.containers Required")},
		{"container without a name", `spec: {containers: [{image: web}]}`, one("spec.containers[0].name Required")},
		{"container with a bad name", `spec: {containers: [{name: A_b, image: web}]}`, one("spec.containers[0].name Invalid")},
		{"two containers of one name", `spec: {containers: [{name: a, image: web}, {name: a, image: web}]}`, one("spec.containers[1].name Duplicate")},
		{"init container named like a container", `spec: {initContainers: [{name: a, image: web}]}`, one("spec.initContainers[0].name Duplicate")},
		{"no image", `spec: {containers: [{name: a}]}`, one("spec.containers[0].image Required")},
		{"image with a space", `spec: {containers: [{name: a, image: " web"}]}`, one("spec.containers[0].image Invalid")},
		{"pull policy", `spec: {containers: [{name: a, image: web, imagePullPolicy: Sometimes}]}`, one("spec.containers[0].imagePullPolicy NotSupported")},
		{"restart policy", `spec: {restartPolicy: Maybe}`, one("spec.restartPolicy NotSupported")},
		{"dns policy", `spec: {dnsPolicy: Maybe}`, one("spec.dnsPolicy NotSupported")},
		{"no name servers", `spec: {dnsPolicy: None}`, one("spec.dnsConfig.nameservers Required")},
		{"deadline", `spec: {activeDeadlineSeconds: 0}`, one("spec.activeDeadlineSeconds Invalid")},
		{"host name", `spec: {hostname: UPPER}`, one("spec.hostname Invalid")},
		{"node name", `spec: {nodeName: a_b}`, one("spec.nodeName Invalid")},
		{"node selector's key", `spec: {nodeSelector: {"a b": c}}`, one("spec.nodeSelector Invalid")},
		{"host alias", `spec: {hostAliases: [{ip: nowhere, hostnames: [a]}]}`, one("spec.hostAliases[0].ip Invalid")},
		{"ephemeral containers", `spec: {ephemeralContainers: [{name: e, image: web}]}`, one("spec.ephemeralContainers Forbidden")},
		{"gates and a node", `spec: {nodeName: n, schedulingGates: [{name: g}]}`, one("spec.nodeName Forbidden")},
		{"spread", `spec: {topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}`,
			one("spec.topologySpreadConstraints[0].maxSkew Invalid")},
		{"spread without a key", `spec: {topologySpreadConstraints: [{maxSkew: 1, whenUnsatisfiable: Never}]}`,
			[]string{"spec.topologySpreadConstraints[0].topologyKey Required", "spec.topologySpreadConstraints[0].whenUnsatisfiable NotSupported"}},
		{"probes of an init container", `spec: {initContainers: [{name: i, image: web, livenessProbe: {exec: {command: [a]}}}]}`,
			one("spec.initContainers[0].livenessProbe Forbidden")},
		{"probes of a sidecar", `spec: {initContainers: [{name: i, image: web, restartPolicy: Always, livenessProbe: {exec: {command: [a]}}}]}`, nil},
	})
}

func TestContainerValidation(t *testing.T) {
	in := func(container string) string { return "spec: {containers: [{name: a, image: web, " + container + "}]}" }
	const at = "spec.containers[0]."
	checkCreate(t, "Pod", goodPod, []bad{
		{"port 0", in(`ports: [{containerPort: 0}]`), one(at + "ports[0].containerPort Required")},
		{"port too large", in(`ports: [{containerPort: 70000}]`), one(at + "ports[0].containerPort Invalid")},
		{"port with a bad name", in(`ports: [{containerPort: 80, name: MUCH_too_long_for_it}]`), []string{at + "ports[0].name Invalid", at + "ports[0].name Invalid"}},
		{"ports of one name", in(`ports: [{containerPort: 80, name: a}, {containerPort: 81, name: a}]`), one(at + "ports[1].name Duplicate")},
		{"protocol", in(`ports: [{containerPort: 80, protocol: ICMP}]`), one(at + "ports[0].protocol NotSupported")},
		{"host port too large", in(`ports: [{containerPort: 80, hostPort: 70000}]`), one(at + "ports[0].hostPort Invalid")},
		{"host port twice", in(`ports: [{containerPort: 80, hostPort: 80}, {containerPort: 81, hostPort: 80}]`), one(at + "ports[1].hostPort Duplicate")},
		{"variable without a name", in(`env: [{value: b}]`), one(at + "env[0].name Required")},
		{"variable of two sources", in(`env: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]`), one(at + "env[0].valueFrom Invalid")},
		{"variable of nothing", in(`env: [{name: A, valueFrom: {}}]`), one(at + "env[0].valueFrom Invalid")},
		{"variables from nothing", in(`envFrom: [{}]`), one(at + "envFrom[0] Invalid")},
		{"mount of nothing", in(`volumeMounts: [{name: v, mountPath: /v}]`), one(at + "volumeMounts[0].name NotFound")},
		{"more asked than allowed", in(`resources: {requests: {cpu: "2"}, limits: {cpu: "1"}}`), one(at + "resources.requests Invalid")},
		{"unknown resource", in(`resources: {limits: {gold: "1"}}`), []string{at + "resources.limits[gold] Invalid", at + "resources.limits[gold] Invalid",
			at + "resources.requests[gold] Invalid", at + "resources.requests[gold] Invalid"}},
		{"less than nothing", in(`resources: {limits: {cpu: "-1"}}`), []string{at + "resources.limits[cpu] Invalid", at + "resources.requests[cpu] Invalid"}},
		{"half a device", in(`resources: {limits: {example.com/gpu: "0.5"}}`), []string{at + "resources.limits[example.com/gpu] Invalid", at + "resources.requests[example.com/gpu] Invalid"}},
		{"a device without a limit", in(`resources: {requests: {example.com/gpu: "1"}}`), one(at + "resources.limits Required")},
		{"probe of nothing", in(`livenessProbe: {}`), one(at + "livenessProbe Required")},
		{"probe of two things", in(`livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 80}}`), one(at + "livenessProbe.tcpSocket Forbidden")},
		{"success threshold", in(`livenessProbe: {exec: {command: [a]}, successThreshold: 2}`), one(at + "livenessProbe.successThreshold Invalid")},
		{"readiness may need two", in(`readinessProbe: {exec: {command: [a]}, successThreshold: 2}`), nil},
		{"probe of port 0", in(`readinessProbe: {httpGet: {port: 0}}`), one(at + "readinessProbe.httpGet.port Invalid")},
		{"negative delay", in(`readinessProbe: {tcpSocket: {port: 80}, initialDelaySeconds: -1}`), one(at + "readinessProbe.initialDelaySeconds Invalid")},
		{"hook without a command", in(`lifecycle: {preStop: {exec: {}}}`), one(at + "lifecycle.preStop.exec.command Required")},
		{"privileged and not", in(`securityContext: {privileged: true, allowPrivilegeEscalation: false}`), one(at + "securityContext Invalid")},
		{"user", in(`securityContext: {runAsUser: -1}`), one(at + "securityContext.runAsUser Invalid")},
	})
}

func TestVolumeValidation(t *testing.T) {
	volume := func(v string) string { return "spec: {volumes: [" + v + "]}" }
	mount := func(m string) string {
		return "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: a, image: web, volumeMounts: [" + m + "]}]}"
	}
	const mounts = "spec.containers[0].volumeMounts"
	checkCreate(t, "Pod", goodPod, []bad{
		{"without a name", volume(`{emptyDir: {}}`), one("spec.volumes[0].name Required")},
		{"of nothing, which is an emptyDir", volume(`{name: v}`), nil},
		{"twice", volume(`{name: v, emptyDir: {}}, {name: v, emptyDir: {}}`), one("spec.volumes[1].name Duplicate")},
		{"of two sources", volume(`{name: v, emptyDir: {}, hostPath: {path: /}}`), one("spec.volumes[0].hostPath Forbidden")},
		{"out of a host path", volume(`{name: v, hostPath: {path: /a/../b}}`), one("spec.volumes[0].hostPath.path Invalid")},
		{"of a config map without a name", volume(`{name: v, configMap: {}}`), one("spec.volumes[0].configMap.name Required")},
		{"of a secret with a mode", volume(`{name: v, secret: {secretName: s, defaultMode: 4096}}`), one("spec.volumes[0].secret.defaultMode Invalid")},
		{"of a key that leaves it", volume(`{name: v, secret: {secretName: s, items: [{key: k, path: ../k}]}}`), one("spec.volumes[0].secret.items[0].path Invalid")},
		{"of a short token", volume(`{name: v, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 60}}]}}`),
			one("spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds Invalid")},
		{"mounted", mount(`{name: v, mountPath: /v}`), nil},
		{"mounted nowhere", mount(`{name: v}`), one(mounts + "[0].mountPath Required")},
		{"mounted twice", mount(`{name: v, mountPath: /v}, {name: v, mountPath: /v}`), one(mounts + "[1].mountPath Invalid")},
		{"mounted from outside", mount(`{name: v, mountPath: /v, subPath: ../v}`), one(mounts + "[0].subPath Invalid")},
		{"mounted from the root", mount(`{name: v, mountPath: /v, subPath: /v}`), one(mounts + "[0].subPath Invalid")},
	})
}

func TestPlacementValidation(t *testing.T) {
	const required = "requiredDuringSchedulingIgnoredDuringExecution"
	const preferred = "preferredDuringSchedulingIgnoredDuringExecution"
	affinity := func(a string) string { return "spec: {affinity: {" + a + "}}" }
	checkCreate(t, "Pod", goodPod, []bad{
		{"toleration of all keys", `spec: {tolerations: [{operator: Exists}]}`, nil},
		{"toleration without a key", `spec: {tolerations: [{value: a}]}`, one("spec.tolerations[0].operator Invalid")},
		{"toleration of existence with a value", `spec: {tolerations: [{key: a, operator: Exists, value: b}]}`, one("spec.tolerations[0].operator Invalid")},
		{"seconds without NoExecute", `spec: {tolerations: [{key: a, operator: Exists, effect: NoSchedule, tolerationSeconds: 1}]}`, one("spec.tolerations[0].effect Invalid")},
		{"toleration's operator", `spec: {tolerations: [{key: a, operator: Like}]}`, one("spec.tolerations[0].operator NotSupported")},
		{"no terms", affinity("nodeAffinity: {" + required + ": {nodeSelectorTerms: []}}"), one("spec.affinity.nodeAffinity." + required + ".nodeSelectorTerms Required")},
		{"operator", affinity("nodeAffinity: {" + required + ": {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Like}]}]}}"),
			one("spec.affinity.nodeAffinity." + required + ".nodeSelectorTerms[0].matchExpressions[0].operator Invalid")},
		{"in nothing", affinity("nodeAffinity: {" + required + ": {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}]}]}}"),
			one("spec.affinity.nodeAffinity." + required + ".nodeSelectorTerms[0].matchExpressions[0].values Required")},
		{"weight", affinity("nodeAffinity: {" + preferred + ": [{weight: 0, preference: {}}]}"), one("spec.affinity.nodeAffinity." + preferred + "[0].weight Invalid")},
		{"no topology", affinity("podAntiAffinity: {" + required + ": [{labelSelector: {matchLabels: {a: b}}}]}"),
			one("spec.affinity.podAntiAffinity." + required + "[0].topologyKey Required")},
		{"selector", affinity("podAffinity: {" + required + ": [{topologyKey: zone, labelSelector: {matchExpressions: [{key: a, operator: Like}]}}]}"),
			one("spec.affinity.podAffinity." + required + "[0].labelSelector.matchExpressions[0].operator Invalid")},
		{"weight of a term", affinity("podAffinity: {" + preferred + ": [{weight: 101, podAffinityTerm: {topologyKey: zone}}]}"),
			one("spec.affinity.podAffinity." + preferred + "[0].weight Invalid")},
	})
}

func TestPodUpdateValidation(t *testing.T) {
	const pod = `
metadata: {name: p, namespace: default, resourceVersion: "1"}
spec:
  containers: [{name: a, image: web}]
  tolerations: [{key: a, operator: Exists}]
  activeDeadlineSeconds: 100
  schedulingGates: [{name: g}]
`
	checkUpdate(t, "Pod", pod, []bad{
		{"image", `spec: {containers: [{name: a, image: other, imagePullPolicy: Always}]}`, nil},
		{"command", `spec: {containers: [{name: a, image: web, command: [x]}]}`, one("spec Forbidden")},
		{"another container", `spec: {containers: [{name: a, image: web}, {name: b, image: web}]}`, one("spec.containers Forbidden")},
		{"more tolerations", `spec: {tolerations: [{key: a, operator: Exists}, {key: b, operator: Exists}]}`, nil},
		{"fewer tolerations", `spec: {tolerations: []}`, one("spec.tolerations Forbidden")},
		{"shorter deadline", `spec: {activeDeadlineSeconds: 50}`, nil},
		{"longer deadline", `spec: {activeDeadlineSeconds: 150}`, one("spec.activeDeadlineSeconds Invalid")},
		{"gate away", `spec: {schedulingGates: []}`, nil},
		{"another gate", `spec: {schedulingGates: [{name: g}, {name: h}]}`, one("spec.schedulingGates Forbidden")},
		{"node selector while gated", `spec: {nodeSelector: {a: b}}`, nil},
		{"host name", `spec: {hostname: h}`, one("spec Forbidden")},
	})
}

func TestPodDefaults(t *testing.T) {
	row := rowOf(t, "Pod")
	obj := parse(t, row, goodPod, `
spec:
  hostNetwork: true
  containers: [{name: a, image: "registry:5000/web", ports: [{containerPort: 80}], resources: {limits: {cpu: 1, memory: "1.0001"}}}]
  volumes: [{name: v}]
`)
	row.Default(obj)
	s := obj.(*corev1.Pod).Spec
	c := s.Containers[0]
	switch {
	case s.RestartPolicy != "Always", s.DNSPolicy != "ClusterFirst", *s.TerminationGracePeriodSeconds != 30, s.SchedulerName != "default-scheduler", !*s.EnableServiceLinks:
		t.Errorf("the pod's defaults are wrong: %+v", s)
	case c.ImagePullPolicy != "Always", c.TerminationMessagePath != "/dev/termination-log", c.Ports[0].Protocol != "TCP", c.Ports[0].HostPort != 80:
		t.Errorf("the container's defaults are wrong: %+v", c)
	case c.Resources.Requests.Cpu().Cmp(resource.MustParse("1")) != 0, c.Resources.Requests.Memory().Cmp(resource.MustParse("1001m")) != 0:
		t.Errorf("requests do not follow from limits: %+v", c.Resources)
	case s.Volumes[0].EmptyDir == nil:
		t.Error("a volume of nothing is not an emptyDir")
	}
	negative := parse(t, row, goodPod, "spec: {terminationGracePeriodSeconds: -7}")
	row.Default(negative)
	if got := *negative.(*corev1.Pod).Spec.TerminationGracePeriodSeconds; got != 1 {
		t.Errorf("a negative grace became %d, want 1", got)
	}
}

// Some defaults are a pod's own and not its template's, or every workload would differ from what was applied.
func TestTemplatesAreNotDefaultedLikePods(t *testing.T) {
	row := rowOf(t, "apps/Deployment")
	obj := parse(t, row, goodDeployment, `
spec: {template: {spec: {hostNetwork: true, terminationGracePeriodSeconds: -7, containers: [{name: a, image: web, ports: [{containerPort: 80}], resources: {limits: {cpu: 1}}}]}}}
`)
	row.Default(obj)
	spec, err := podTemplateOf(obj)
	if err != nil {
		t.Fatal(err)
	}
	if *spec.TerminationGracePeriodSeconds != -7 {
		t.Errorf("a template's negative grace became %d", *spec.TerminationGracePeriodSeconds)
	}
	if c := spec.Containers[0]; c.Ports[0].HostPort != 0 || c.Resources.Requests != nil || spec.EnableServiceLinks != nil {
		t.Errorf("host port %d, requests %v, service links %v", c.Ports[0].HostPort, c.Resources.Requests, spec.EnableServiceLinks)
	}
}

func TestImagePullPolicyFollowsTheTag(t *testing.T) {
	for image, want := range map[string]bool{
		"web": true, "web:latest": true, "web:1": false, "host:5000/web": true, "host:5000/web:1": false, "web@sha256:0": false, "web:latest@sha256:0": false,
	} {
		if latest(image) != want {
			t.Errorf("%s: pulled always is %v", image, !want)
		}
	}
}

func TestQOSClass(t *testing.T) {
	for resources, want := range map[string]corev1.PodQOSClass{
		"{}": "BestEffort", "{limits: {cpu: 1, memory: 1}}": "Guaranteed", "{limits: {cpu: 1}}": "Burstable",
		"{requests: {cpu: 1, memory: 1}, limits: {cpu: 1, memory: 1}}": "Guaranteed", "{requests: {cpu: 1}, limits: {cpu: 2, memory: 1}}": "Burstable",
		"{limits: {example.com/gpu: 1}}": "BestEffort",
	} {
		p := parse(t, rowOf(t, "Pod"), goodPod, "spec: {containers: [{name: a, image: web, resources: "+resources+"}]}").(*corev1.Pod)
		if got := QOSClass(&p.Spec); got != want {
			t.Errorf("%s: %s, want %s", resources, got, want)
		}
	}
}

func TestPodGrace(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	cases := map[string]struct {
		spec, asked *int64
		node        string
		phase       corev1.PodPhase
		want        int64
	}{
		"the pod's own":      {n(30), nil, "n", "Running", 30},
		"the caller's":       {n(30), n(5), "n", "Running", 5},
		"at once":            {n(30), n(0), "n", "Running", 0},
		"negative":           {n(30), n(-3), "n", "Running", 1},
		"never scheduled":    {n(30), n(30), "", "Pending", 0},
		"ended":              {n(30), nil, "n", "Succeeded", 0},
		"without any of its": {nil, nil, "n", "Running", 0},
	}
	for name, c := range cases {
		p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: c.node, TerminationGracePeriodSeconds: c.spec}, Status: corev1.PodStatus{Phase: c.phase}}
		if got := podGrace(p, &metav1.DeleteOptions{GracePeriodSeconds: c.asked}); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
