package api

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// One line a rule: what a pod is changed to, and upstream's words for it.

func inContainer(s string) string { return "spec: {containers: [{name: a, image: web, " + s + "}]}" }

func ofVolume(s string) string { return "spec: {volumes: [{name: v, " + s + "}]}" }

func TestVolumeMessages(t *testing.T) {
	projected := func(s string) string { return ofVolume("projected: {sources: [" + s + "]}") }
	checkMessages(t, "Pod", goodPod, [][2]string{
		{ofVolume("hostPath: {path: /a, type: Folder}"),
			`spec.volumes[0].hostPath.type: Unsupported value: "Folder": supported values: "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"`},
		{ofVolume("nfs: {server: s, path: a}"), `spec.volumes[0].nfs.path: Invalid value: "a": must be an absolute path`},
		{ofVolume("iscsi: {targetPortal: p, iqn: x, lun: 256}"), "spec.volumes[0].iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa\n" +
			"spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive"},
		{ofVolume("fc: {}"), "spec.volumes[0].fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"},
		{ofVolume("csi: {driver: \"\"}"), "spec.volumes[0].csi.driver: Required value"},
		{ofVolume("image: {reference: \"\"}"), "spec.volumes[0].image.reference: Required value"},
		{ofVolume("ephemeral: {}"), "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"},
		{ofVolume("ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce]}}}"),
			"spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"},
		{ofVolume("downwardAPI: {items: [{path: a, fieldRef: {fieldPath: status.podIP}}]}"),
			`spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported value: "status.podIP": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"`},
		{ofVolume("downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu}}]}"), "spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value"},
		{ofVolume("downwardAPI: {items: [{path: ..a}]}"), "spec.volumes[0].downwardAPI.path: Invalid value: \"..a\": must not start with '..'\n" +
			"spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"},
		{projected("{secret: {name: s, items: [{key: k, path: p}]}}, {configMap: {name: c, items: [{key: k, path: p}]}}"),
			`spec.volumes[0].projected: Invalid value: "p": conflicting duplicate paths`},
		{projected("{secret: {name: s}, configMap: {name: c}}"), "spec.volumes[0].projected.sources[0].configMap: Forbidden: may not specify more than 1 volume type"},
		{projected("{secret: {}}"), "spec.volumes[0].projected.sources[0].secret.name: Required value"},
		{projected("{clusterTrustBundle: {path: p}}"), "spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified"},
	})
}

func TestEnvironmentMessages(t *testing.T) {
	env := func(s string) string { return inContainer("env: [{name: A, valueFrom: " + s + "}]") }
	const at = "spec.containers[0].env[0].valueFrom."
	checkMessages(t, "Pod", goodPod, [][2]string{
		{env("{fieldRef: {fieldPath: \"metadata.labels['a b']\"}}"), at + "fieldRef: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', " +
			"and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"},
		{env("{fieldRef: {fieldPath: \"metadata.labels['app']\"}}"), ""},
		{env("{fieldRef: {fieldPath: \"metadata.annotations['Example.com/A']\"}}"), ""},
		{env("{fieldRef: {fieldPath: spec.image}}"), at + `fieldRef.fieldPath: Invalid value: "spec.image": error converting fieldPath: field label not supported: spec.image`},
		{env("{fieldRef: {fieldPath: status.phase}}"), at + `fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", ` +
			`"metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`},
		{env("{resourceFieldRef: {resource: limits.gold}}"), at + `resourceFieldRef.resource: Unsupported value: "limits.gold": supported values: "limits.cpu", ` +
			`"limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"`},
		{env("{resourceFieldRef: {resource: limits.cpu, divisor: 2}}"), at + `resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource`},
		{env("{resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}"), ""},
		{env("{secretKeyRef: {name: s, key: a/b}}"), at + "secretKeyRef.key: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' " +
			"(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"},
		{inContainer("envFrom: [{configMapRef: {}}]"), "spec.containers[0].envFrom[0].configMapRef.name: Required value"},
	})
}

func TestContainerMessages(t *testing.T) {
	const at = "spec.containers[0]."
	mount := func(m string) string {
		return "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: a, image: web, " + m + "}]}"
	}
	checkMessages(t, "Pod", goodPod, [][2]string{
		{inContainer("terminationMessagePolicy: Maybe"), at + `terminationMessagePolicy: Unsupported value: "Maybe": supported values: "FallbackToLogsOnError", "File"`},
		{mount("volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]"),
			at + "volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"},
		{mount("volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: Enabled}]"), at + "volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true"},
		{mount("volumeDevices: [{name: v, devicePath: /dev/a}]"),
			at + `volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode`},
		{inContainer("resources: {limits: {cpu: 1, hugepages-1e30: 1}}"), at + `resources.limits[hugepages-1e30]: Invalid value: "1": resource name must be hugepages- and the size of a page` + "\n" +
			at + `resources.requests[hugepages-1e30]: Invalid value: "1": resource name must be hugepages- and the size of a page`},
		{inContainer("resources: {limits: {hugepages-2Mi: 4Mi}}"), at + "resources: Forbidden: HugePages require cpu or memory"},
		{inContainer("resources: {limits: {deviceclass.resource.kubernetes.io/gold: 1}, requests: {deviceclass.resource.kubernetes.io/gold: 1}}"), ""},
		{inContainer("resources: {limits: {cpu: 1, kubernetes.io/gold: 1}, requests: {cpu: 1, kubernetes.io/gold: 1}}"),
			at + "resources.limits[kubernetes.io/gold]: Invalid value: \"kubernetes.io/gold\": doesn't follow extended resource name standard\n" +
				at + "resources.requests[kubernetes.io/gold]: Invalid value: \"kubernetes.io/gold\": doesn't follow extended resource name standard"},
		{inContainer("resources: {claims: [{name: gpu}]}"), at + `resources.claims[0].name: Not found: "gpu"`},
		{inContainer("lifecycle: {preStop: {sleep: {seconds: 31}}}"),
			at + "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"},
		{inContainer("readinessProbe: {tcpSocket: {port: 80}, terminationGracePeriodSeconds: 1}"),
			at + "readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes"},
		{inContainer("livenessProbe: {tcpSocket: {port: 80}, terminationGracePeriodSeconds: 0}"),
			at + "livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0"},
		{inContainer("livenessProbe: {httpGet: {port: 80, httpHeaders: [{name: \"a b\"}]}}"), at + "livenessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of " +
			"alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"},
		{inContainer("securityContext: {appArmorProfile: {type: Localhost}}"),
			at + "securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost"},
		{inContainer("securityContext: {procMount: Unmasked}"), at + "securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"},
		{inContainer("resizePolicy: [{resourceName: gold, restartPolicy: NotRequired}]"),
			at + `resizePolicy[0].resourceName: Unsupported value: "gold": supported values: "cpu", "memory"`},
		{inContainer("restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]"),
			at + "restartPolicy: Required value: must specify restartPolicy when restart rules are used"},
		{inContainer("restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]"), ""},
		{inContainer("restartPolicy: OnFailure, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: NotIn, values: [0, 1]}}]"), ""},
		{inContainer("restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]"),
			at + "restartPolicy: Required value: must specify restartPolicy when restart rules are used"},
		{inContainer("restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers}]"), at + "restartPolicyRules[0].exitCodes: Required value: must be specified"},
		{inContainer("restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: Above, values: []}}]"),
			at + `restartPolicyRules[0].exitCodes.operator: Unsupported value: "Above": supported values: "In", "NotIn"` + "\n" +
				at + "restartPolicyRules[0].exitCodes.values: Required value: must specify at least one value"},
		{inContainer("restartPolicy: Never, restartPolicyRules: [{action: RestartPod, exitCodes: {operator: In, values: [42]}}]"),
			at + `restartPolicyRules[0].action: Unsupported value: "RestartPod": supported values: "Restart", "RestartAllContainers"`},
		{"spec: {initContainers: [{name: i, image: web, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}, " +
			"{name: s, image: web, restartPolicy: Always, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}]}", ""},
		{"spec: {initContainers: [{name: i, image: web, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}]}",
			"spec.initContainers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"},
	})
}

func TestPodMessages(t *testing.T) {
	checkMessages(t, "Pod", goodPod, [][2]string{
		{"spec: {hostUsers: false, hostNetwork: true, hostPID: true, hostIPC: true}", "spec.hostNetwork: Forbidden: when `hostUsers` is false\n" +
			"spec.hostPID: Forbidden: when `hostUsers` is false\nspec.hostIPC: Forbidden: when `hostUsers` is false"},
		{"spec: {hostUsers: true, hostNetwork: true, hostPID: true, hostIPC: true}", ""},
		{"spec: {hostUsers: false, volumes: [{name: v, persistentVolumeClaim: {claimName: c}}], containers: [{name: a, image: web, volumeDevices: [{name: v, devicePath: /dev/a}]}]}",
			"spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"},
		{"spec: {hostUsers: false, containers: [{name: a, image: web, securityContext: {procMount: Unmasked, privileged: true}}]}", ""},
		{"spec: {hostNetwork: true, hostnameOverride: a}", "spec.hostNetwork: Forbidden: may not be specified when `hostnameOverride` is set"},
		{"spec: {resources: {requests: {cpu: 1}}, containers: [{name: a, image: web, resources: {requests: {cpu: 2}}}]}",
			`spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2`},
		{"spec: {resources: {limits: {gold: 1}}}", `spec.resources.limits[gold]: Unsupported value: "gold": supported values: "cpu", "memory"`},
		{"spec: {resourceClaims: [{name: a}]}", "spec.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"},
		{"spec: {os: {name: windows}, containers: [{name: a, image: web, securityContext: {runAsUser: 1}}]}",
			"spec.containers[0].securityContext.runAsUser: Forbidden: cannot be set for a windows pod"},
		{"spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule, matchLabelKeys: [a], labelSelector: {matchLabels: {a: b}}}]}",
			`spec.topologySpreadConstraints[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector`},
		{"spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [a, b]}]}]}}}}",
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values: Required value: " +
				"must be only one value when `operator` is 'In' or 'NotIn' for node field selector"},
		{"spec: {initContainers: [{name: i, image: web, restartPolicy: Always, ports: [{containerPort: 1, hostPort: 80}]}], containers: [{name: a, image: web, ports: [{containerPort: 1, hostPort: 80}]}]}",
			`spec.initContainers[0].ports[0].hostPort: Duplicate value: "TCP//80"`},
	})
}

func TestPodUpdateMessages(t *testing.T) {
	const gated = `
metadata: {name: p, namespace: default, resourceVersion: "1"}
spec:
  containers: [{name: a, image: web, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 2}}}]
  ephemeralContainers: [{name: e, image: debug}]
  schedulingGates: [{name: g}]
  nodeSelector: {a: b}
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
`
	terms := func(s string) string {
		return "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + s + "]}}}}"
	}
	const at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
	resized := func(s string) string {
		return "spec: {containers: [{name: a, image: web, resources: " + s + "}]}"
	}
	checkUpdateMessages(t, "Pod", gated, [][2]string{
		{"spec: {nodeSelector: {a: b, c: d}}", ""},
		{"spec: {nodeSelector: {a: c}}", `spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)`},
		{terms("{matchExpressions: [{key: a, operator: Exists}, {key: b, operator: Exists}]}"), ""},
		{terms("{matchExpressions: [{key: b, operator: Exists}]}"),
			at + `[0]: Invalid value: {"matchExpressions":[{"key":"b","operator":"Exists"}]}: only additions are allowed (no mutations or deletions)`},
		{terms(""), "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term\n" +
			at + `: Invalid value: []: no additions/deletions to non-empty NodeSelectorTerms list are allowed`},
		{"spec: {ephemeralContainers: []}", "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"},
		{"spec: {ephemeralContainers: [{name: e, image: other}]}", "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n"},
		{"spec: {ephemeralContainers: [{name: e, image: debug}, {name: f, image: debug, ports: [{containerPort: 1}]}]}",
			"spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container"},
		{resized("{requests: {cpu: 1500m, memory: 2Gi}, limits: {cpu: 2}}"), ""},
		{resized("{requests: {cpu: 1}, limits: {cpu: 2}}"), "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"},
		{resized("{requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}, limits: {cpu: 2}}"), "spec: Forbidden: only cpu and memory resources are mutable"},
		{"spec: {resources: {requests: {cpu: 1, hugepages-2Mi: 2Mi}, limits: {hugepages-2Mi: 2Mi}}}", "spec: Forbidden: only cpu and memory resources are mutable at pod-level"},
		{"spec: {resources: {requests: {cpu: 2, memory: 2Gi}, limits: {cpu: 3}}}", ""},
		{resized("{requests: {cpu: 2, memory: 1Gi}, limits: {cpu: 2, memory: 1Gi}}"), `spec: Invalid value: "Guaranteed": Pod QOS Class may not change as a result of resizing`},
	})
}

// TestDevicesOfOwnUsers: a pod from when they were not refused can still be changed, and go; it gets no more of them.
func TestDevicesOfOwnUsers(t *testing.T) {
	const there = `
metadata: {name: p, namespace: default, resourceVersion: "1", finalizers: [example.com/f]}
spec:
  hostUsers: false
  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]
  containers: [{name: a, image: web, volumeDevices: [{name: v, devicePath: /dev/a}]}]
`
	checkUpdateMessages(t, "Pod", there, [][2]string{
		{"metadata: {finalizers: []}", ""},
		{"spec: {ephemeralContainers: [{name: e, image: debug, volumeDevices: [{name: v, devicePath: /dev/a}]}]}", "spec.ephemeralContainers[0].volumeDevices: Forbidden: when `hostUsers` is false"},
	})
}

func TestRestartRulesStay(t *testing.T) {
	const rule = "spec: {containers: [{name: a, image: web, restartPolicy: Never, restartPolicyRules: [{action: %s, exitCodes: {operator: In, values: [42]}}]}]}"
	row := rowOf(t, "Pod")
	was, now := parse(t, row, goodPod, fmt.Sprintf(rule, "Restart")), parse(t, row, goodPod, fmt.Sprintf(rule, "RestartAllContainers"))
	for _, o := range []Object{was, now} {
		row.Default(o)
	}
	if errs := row.ValidateUpdate(now, was); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "spec: Forbidden: pod updates may not change fields other than") {
		t.Errorf("a rule that comes to restart all containers: %v", errs)
	}
}

func TestResizeMessages(t *testing.T) {
	const sized = `
metadata: {name: p, namespace: default, resourceVersion: "1"}
spec:
  resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: 2}}
  containers: [{name: a, image: web}]
  initContainers:
  - {name: i, image: web, resources: {requests: {cpu: 1}}}
  - {name: j, image: web, resources: {requests: {cpu: 1}}, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]}
`
	first := func(resources string) string {
		return "spec: {initContainers: [{name: i, image: web, resources: " + resources + "}, {name: j, image: web, resources: {requests: {cpu: 1}}, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]}]}"
	}
	checkUpdateMessages(t, "Pod", sized, [][2]string{
		{"spec: {resources: {requests: {cpu: 1, memory: 2Gi}, limits: {cpu: 3}}}", ""},
		{"spec: {resources: {requests: {cpu: 1, memory: 2Gi}, limits: {cpu: 3, memory: 3Gi}}}", ""},
		{"spec: {resources: null}", "spec.resources: Forbidden: pod-level resources cannot be removed"},
		{"spec: {resources: {requests: {cpu: 2, memory: null}, limits: {cpu: 2}}}", "spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"},
		{"spec: {resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: null}}}", "spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"},
		{first("{requests: {cpu: 1500m}}"), ""},
		{first("{requests: {cpu: 1, ephemeral-storage: 1Gi}}"), "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable"},
		{"spec: {initContainers: [{name: i, image: web, resources: {requests: {cpu: 1}}}, {name: j, image: web, resources: {requests: {cpu: 2}}, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]}]}",
			"spec.initContainers[1]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized"},
	})
}

func TestPodStatusStaysPossible(t *testing.T) {
	row := rowOf(t, "Pod")
	const ended = "spec: {restartPolicy: Never}\nstatus: {containerStatuses: [{name: a, state: {terminated: {exitCode: 0}}}]}"
	obj, old := parse(t, row, goodPod, "spec: {restartPolicy: Never}\nstatus: {containerStatuses: [{name: a, state: {running: {}}}], podIPs: [{ip: x}]}"), parse(t, row, goodPod, ended)
	sameText(t, "a container that ended runs", row.ValidateStatus(obj, old),
		"status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)\n"+
			"status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state")
	const again = "spec: {restartPolicy: Never, containers: [{name: a, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}, {name: b}]}\n" +
		"status: {containerStatuses: [{name: b, state: "
	obj, old = parse(t, row, goodPod, again+"{running: {}}}]}"), parse(t, row, goodPod, again+"{terminated: {exitCode: 0}}}]}")
	sameText(t, "a container that ended runs, as another's rule restarts all", row.ValidateStatus(obj, old), "")
	const ofInit = "spec: {restartPolicy: Never, initContainers: [{name: i, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}]}\n" +
		"status: {containerStatuses: [{name: a, state: "
	obj, old = parse(t, row, goodPod, ofInit+"{running: {}}}]}"), parse(t, row, goodPod, ofInit+"{terminated: {exitCode: 0}}}]}")
	sameText(t, "a container that ended runs, as an init container's rule restarts all", row.ValidateStatus(obj, old), "")
	const alone = "spec: {restartPolicy: Never, containers: [{name: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}, {name: b}]}\n" +
		"status: {containerStatuses: [{name: a, state: "
	obj, old = parse(t, row, goodPod, alone+"{running: {}}}, {name: b, state: {running: {}}}]}"), parse(t, row, goodPod, alone+"{terminated: {exitCode: 42}}}, {name: b, state: {terminated: {exitCode: 42}}}]}")
	sameText(t, "a container that ended runs, as another restarts alone", row.ValidateStatus(obj, old), "status.containerStatuses[1].state: Forbidden: may not be transitioned to non-terminated state")
}

func TestPodStatusNamesItsExtendedResources(t *testing.T) {
	row := rowOf(t, "Pod")
	const asks = "spec: {containers: [{name: a, image: web, resources: {limits: {example.com/gpu: 1}, requests: {example.com/gpu: 1}}}]}\n"
	old := parse(t, row, goodPod, asks)
	for status, want := range map[string]string{
		"{resourceClaimName: c, requestMappings: [{containerName: a, resourceName: example.com/gpu, requestName: container-0-request-0}]}": "",
		"{resourceClaimName: '', requestMappings: []}": "status.extendedResourceClaimStatus.resourceClaimName: Required value\n" +
			"status.extendedResourceClaimStatus.requestMappings: Required value: must have at least one request mapping",
		"{resourceClaimName: c, requestMappings: [{containerName: b, resourceName: example.com/gpu, requestName: r}, {containerName: a, resourceName: cpu, requestName: r}]}": "status.extendedResourceClaimStatus.requestMappings[0].containerName: " +
			"Invalid value: \"b\": must be the name of one of the pod's containers\n" +
			"status.extendedResourceClaimStatus.requestMappings[1].resourceName: Invalid value: \"cpu\": must be a resource that the container requests",
	} {
		sameText(t, status, row.ValidateStatus(parse(t, row, goodPod, asks+"status: {extendedResourceClaimStatus: "+status+"}"), old), want)
	}
}

// BenchmarkPodValidation is what a new pod of a Deployment costs here.
func BenchmarkPodValidation(b *testing.B) {
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace = "web-5d4f8c7b9d-x2x7k", "default"
	grace := int64(30)
	pod.Spec = corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, TerminationGracePeriodSeconds: &grace, SecurityContext: &corev1.PodSecurityContext{},
		ServiceAccountName: "default", SchedulerName: "default-scheduler",
		Volumes: []corev1.Volume{{Name: "kube-api-access-x", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: pointer(int64(3607))}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
		}}}}},
		Containers: []corev1.Container{{
			Name: "web", Image: "web:1", ImagePullPolicy: corev1.PullIfNotPresent, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			Ports:        []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Env:          []corev1.EnvVar{{Name: "A", Value: "b"}, {Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nodeName"}}}},
			VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
		}},
	}
	defaultPod(&pod.Spec)
	if errs := validatePod(pod); len(errs) > 0 {
		b.Fatal(errs)
	}
	b.ReportAllocs()
	for b.Loop() {
		validatePod(pod)
	}
}
