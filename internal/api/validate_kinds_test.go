package api

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

const goodService = `
metadata: {name: s, namespace: default}
spec: {selector: {app: a}, ports: [{port: 80}]}
`

func TestServiceValidation(t *testing.T) {
	checkCreate(t, "Service", goodService, []bad{
		{"no ports", `spec: {ports: []}`, one("spec.ports Required")},
		{"headless needs none", `spec: {ports: [], clusterIP: None, clusterIPs: [None]}`, nil},
		{"port 0", `spec: {ports: [{port: 0, targetPort: 80}]}`, one("spec.ports[0].port Invalid")},
		{"two ports without names", `spec: {ports: [{port: 80}, {port: 81}]}`, []string{"spec.ports[0].name Required", "spec.ports[1].name Required"}},
		{"two ports of one name", `spec: {ports: [{port: 80, name: a}, {port: 81, name: a}]}`, one("spec.ports[1].name Duplicate")},
		{"one port twice", `spec: {ports: [{port: 80, name: a}, {port: 80, name: b}]}`, one("spec.ports[1] Duplicate")},
		{"one port, two protocols", `spec: {ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]}`, nil},
		{"protocol", `spec: {ports: [{port: 80, protocol: HTTP}]}`, one("spec.ports[0].protocol NotSupported")},
		{"target port's name", `spec: {ports: [{port: 80, targetPort: MUCH_too_long_for_it}]}`, []string{"spec.ports[0].targetPort Invalid", "spec.ports[0].targetPort Invalid"}},
		{"type", `spec: {type: Magic}`, one("spec.type NotSupported")},
		{"affinity", `spec: {sessionAffinity: Magic}`, one("spec.sessionAffinity NotSupported")},
		{"affinity for too long", `spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90000}}}`,
			one("spec.sessionAffinityConfig.clientIP.timeoutSeconds Invalid")},
		{"node port without the type", `spec: {ports: [{port: 80, nodePort: 30000}]}`, one("spec.ports[0].nodePort Forbidden")},
		{"node port twice", `spec: {type: NodePort, ports: [{port: 80, name: a, nodePort: 30000}, {port: 81, name: b, nodePort: 30000}]}`, one("spec.ports[1].nodePort Duplicate")},
		{"headless node port", `spec: {type: NodePort, clusterIP: None, clusterIPs: [None]}`, one("spec.clusterIPs[0] Invalid")},
		{"address", `spec: {clusterIP: nowhere, clusterIPs: [nowhere]}`, one("spec.clusterIPs[0] Invalid")},
		{"addresses that disagree", `spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2]}`, one("spec.clusterIPs Invalid")},
		{"external name", `spec: {type: ExternalName}`, one("spec.externalName Required")},
		{"bad external name", `spec: {type: ExternalName, externalName: "a b"}`, one("spec.externalName Invalid")},
		{"external name with an address", `spec: {type: ExternalName, externalName: a.b, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1]}`, one("spec.clusterIPs Forbidden")},
		{"external address of the node itself", `spec: {externalIPs: [127.0.0.1]}`, one("spec.externalIPs[0] Invalid")},
		{"traffic policy", `spec: {type: NodePort, externalTrafficPolicy: Near}`, one("spec.externalTrafficPolicy NotSupported")},
		{"traffic policy of what is not external", `spec: {externalTrafficPolicy: Local}`, one("spec.externalTrafficPolicy Invalid")},
		{"traffic policy within", `spec: {internalTrafficPolicy: Near}`, one("spec.internalTrafficPolicy NotSupported")},
		{"source ranges", `spec: {type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8, all]}`, one("spec.loadBalancerSourceRanges[1] Invalid")},
		{"selector", `spec: {selector: {"a b": c}}`, one("spec.selector Invalid")},
	})
	checkUpdate(t, "Service", `
metadata: {name: s, namespace: default, resourceVersion: "1"}
spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{port: 80}]}
`, []bad{
		{"another address", `spec: {clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2]}`, one("spec.clusterIPs[0] Invalid")},
		{"another port", `spec: {ports: [{port: 81}]}`, nil},
	})
}

const goodDeployment = `
metadata: {name: d, namespace: default}
spec:
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: web}]}}
`

func podTemplateOf(o Object) (*corev1.PodSpec, error) {
	return &o.(*appsv1.Deployment).Spec.Template.Spec, nil
}

func TestDeploymentValidation(t *testing.T) {
	checkCreate(t, "apps/Deployment", goodDeployment, []bad{
		{"no selector", `spec: {selector: null}`, one("spec.selector Required")},
		{"empty selector", `spec: {selector: {matchLabels: null}}`, one("spec.selector Invalid")},
		{"selector of others", `spec: {selector: {matchLabels: {app: b}}}`, one("spec.template.metadata.labels Invalid")},
		{"selector's operator", `spec: {selector: {matchExpressions: [{key: a, operator: Like}]}}`, one("spec.selector.matchExpressions[0].operator Invalid")},
		{"replicas", `spec: {replicas: -1}`, one("spec.replicas Invalid")},
		{"restart policy", `spec: {template: {spec: {restartPolicy: Never}}}`, one("spec.template.spec.restartPolicy NotSupported")},
		{"container", `spec: {template: {spec: {containers: [{name: a}]}}}`, one("spec.template.spec.containers[0].image Required")},
		{"devices of own users", `spec: {template: {spec: {hostUsers: false, volumes: [{name: v, persistentVolumeClaim: {claimName: c}}],
			initContainers: [{name: i, image: web, volumeDevices: [{name: v, devicePath: /dev/a}]}]}}}`, one("spec.template.spec.initContainers[0].volumeDevices Forbidden")},
		{"strategy", `spec: {strategy: {type: Magic}}`, one("spec.strategy NotSupported")},
		{"pods that end", `spec: {template: {spec: {activeDeadlineSeconds: 1}}}`, one("spec.template.spec.activeDeadlineSeconds Forbidden")},
		{"recreate and roll", `spec: {strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}}`, one("spec.strategy.rollingUpdate Forbidden")},
		{"nothing may move", `spec: {strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}}`, one("spec.strategy.rollingUpdate.maxUnavailable Invalid")},
		{"nothing may move, in percent", `spec: {strategy: {rollingUpdate: {maxSurge: 0%, maxUnavailable: 0}}}`, one("spec.strategy.rollingUpdate.maxUnavailable Invalid")},
		{"more than all", `spec: {strategy: {rollingUpdate: {maxUnavailable: 101%}}}`, one("spec.strategy.rollingUpdate.maxUnavailable Invalid")},
		{"no percentage", `spec: {strategy: {rollingUpdate: {maxSurge: some}}}`, one("spec.strategy.rollingUpdate.maxSurge Invalid")},
		{"deadline before ready", `spec: {minReadySeconds: 600}`, one("spec.progressDeadlineSeconds Invalid")},
		{"labels of the template", `spec: {template: {metadata: {labels: {"b b": c}}}}`, one("spec.template.metadata.labels Invalid")},
	})
	checkUpdate(t, "apps/Deployment", goodDeployment+"  replicas: 1\n", []bad{
		{"replicas", `spec: {replicas: 3}`, nil},
		{"selector", `spec: {selector: {matchLabels: {app: b}}, template: {metadata: {labels: {app: b}}}}`, one("spec.selector Invalid")},
	})
}

func TestWorkloadValidation(t *testing.T) {
	checkCreate(t, "apps/DaemonSet", goodDeployment, []bad{
		{"selector", `spec: {selector: null}`, one("spec.selector Required")},
		{"restart policy", `spec: {template: {spec: {restartPolicy: OnFailure}}}`, one("spec.template.spec.restartPolicy NotSupported")},
	})
	checkUpdate(t, "apps/StatefulSet", goodDeployment, []bad{
		{"replicas", `spec: {replicas: 3}`, nil},
		{"template", `spec: {template: {spec: {containers: [{name: a, image: other}]}}}`, nil},
		{"service", `spec: {serviceName: other}`, one("spec.serviceName Invalid")},
		{"order", `spec: {podManagementPolicy: Parallel}`, one("spec.podManagementPolicy Invalid")},
		{"claims", `spec: {volumeClaimTemplates: [{metadata: {name: v}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}`,
			one("spec.volumeClaimTemplates Invalid")},
		{"history without end", `spec: {revisionHistoryLimit: -1}`, nil},
		{"strategy", `spec: {updateStrategy: {type: OnDelete, rollingUpdate: null}}`, nil},
	})
	const job = `
metadata: {name: j, namespace: default}
spec:
  completions: 1
  selector: {matchLabels: {uid: u}}
  template: {metadata: {labels: {uid: u}}, spec: {restartPolicy: Never, containers: [{name: a, image: web}]}}
`
	checkCreate(t, "batch/Job", job, []bad{
		{"restart policy", `spec: {template: {spec: {restartPolicy: Always}}}`, one("spec.template.spec.restartPolicy Required")},
		{"parallelism", `spec: {parallelism: -1}`, one("spec.parallelism Invalid")},
		{"deadline", `spec: {activeDeadlineSeconds: -1}`, one("spec.activeDeadlineSeconds Invalid")},
	})
	checkUpdate(t, "batch/Job", job, []bad{
		{"parallelism", `spec: {parallelism: 3}`, nil},
		{"template", `spec: {template: {spec: {containers: [{name: a, image: other}]}}}`, one("spec.template Invalid")},
	})
	checkCreate(t, "batch/CronJob", `
metadata: {name: c, namespace: default}
spec: {schedule: "* * * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: web}]}}}}}
`, []bad{
		{"schedule", `spec: {schedule: ""}`, one("spec.schedule Required")},
		{"concurrency", `spec: {concurrencyPolicy: Some}`, one("spec.concurrencyPolicy NotSupported")},
		{"name", "metadata: {name: " + strings.Repeat("c", 53) + "}", one("metadata.name Invalid")},
		{"template", `spec: {jobTemplate: {spec: {template: {spec: {restartPolicy: Always}}}}}`, one("spec.jobTemplate.spec.template.spec.restartPolicy Required")},
	})
}

func TestDataValidation(t *testing.T) {
	const configMap = "metadata: {name: c, namespace: default}\ndata: {a: b}\n"
	checkCreate(t, "ConfigMap", configMap, []bad{
		{"key", `data: {"a b": c}`, one("data[a b] Invalid")},
		{"key twice", `binaryData: {a: YQ==}`, one("data[a] Invalid")},
		{"too much", "data: {a: " + strings.Repeat("x", 1<<20) + "}", nil},
		{"much too much", "data: {a: x" + strings.Repeat("x", 1<<20) + "}", one("[] TooLong")},
	})
	checkUpdate(t, "ConfigMap", configMap, []bad{{"data", `data: {a: c}`, nil}, {"made immutable", `immutable: true`, nil}})
	checkUpdate(t, "ConfigMap", configMap+"immutable: true\n", []bad{
		{"immutable data", `data: {a: c}`, one("data Forbidden")},
		{"mutable again", `immutable: null`, one("immutable Forbidden")},
		{"labels", `metadata: {labels: {a: b}}`, nil},
	})
	const secret = "metadata: {name: s, namespace: default}\ndata: {a: YQ==}\n"
	checkCreate(t, "Secret", secret, []bad{
		{"key", `data: {"a b": YQ==}`, one("data[a b] Invalid")},
		{"tls without a key", `{type: kubernetes.io/tls, data: {tls.crt: YQ==}}`, one("data[tls.key] Required")},
		{"token of nobody", `type: kubernetes.io/service-account-token`, one("metadata.annotations[kubernetes.io/service-account.name] Required")},
	})
	checkUpdate(t, "Secret", secret, []bad{{"type", `type: a.b/c`, one("type Invalid")}})
}

func TestClusterKindsValidation(t *testing.T) {
	checkCreate(t, "Node", "metadata: {name: n}\nspec: {podCIDR: 10.0.0.0/24, podCIDRs: [10.0.0.0/24]}\n", []bad{
		{"range", `spec: {podCIDR: all, podCIDRs: [all]}`, one("spec.podCIDRs[0] Invalid")},
		{"ranges that disagree", `spec: {podCIDRs: [10.1.0.0/24]}`, one("spec.podCIDRs Invalid")},
		{"taint's effect", `spec: {taints: [{key: a, effect: Maybe}]}`, one("spec.taints[0].effect NotSupported")},
		{"declared features", `status: {declaredFeatures: [A, B/c, B1]}`, nil},
		{"declared features in disorder", `status: {declaredFeatures: [B, A, A]}`, []string{"status.declaredFeatures[1] Invalid", "status.declaredFeatures[2] Duplicate"}},
		{"declared feature's name", `status: {declaredFeatures: [A/1, b]}`, []string{"status.declaredFeatures[0] Invalid", "status.declaredFeatures[1] Invalid"}},
		{"taint twice", `spec: {taints: [{key: a, effect: NoSchedule}, {key: a, value: b, effect: NoSchedule}]}`, one("spec.taints[1] Duplicate")},
	})
	checkUpdate(t, "Node", "metadata: {name: n}\nspec: {podCIDR: 10.0.0.0/24, podCIDRs: [10.0.0.0/24], providerID: p}\n", []bad{
		{"range", `spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24]}`, one("spec.podCIDRs Forbidden")},
		{"provider", `spec: {providerID: q}`, one("spec.providerID Invalid")},
		{"cordon", `spec: {unschedulable: true}`, nil},
	})
	checkCreate(t, "scheduling.k8s.io/PriorityClass", "metadata: {name: c}\nvalue: 7\n", []bad{
		{"too high", `value: 1000000001`, one("value Forbidden")},
		{"name of the system's", `metadata: {name: system-mine}`, one("metadata.name Forbidden")},
		{"name close to the system's", `metadata: {name: system}`, nil},
		{"the system's", "metadata: {name: system-node-critical}\nvalue: 2000001000", nil},
		{"the system's with another value", "metadata: {name: system-node-critical}\nvalue: 2000000000", one("metadata.name Forbidden")},
		{"the system's as everybody's", "metadata: {name: system-cluster-critical}\nvalue: 2000000000\nglobalDefault: true", one("metadata.name Forbidden")},
		{"policy", `preemptionPolicy: Some`, one("preemptionPolicy NotSupported")},
	})
	checkUpdate(t, "scheduling.k8s.io/PriorityClass", "metadata: {name: c}\nvalue: 7\n", []bad{{"value", `value: 8`, one("value Forbidden")}, {"policy", `preemptionPolicy: Never`, one("preemptionPolicy Invalid")}})
}

func TestNetworkValidation(t *testing.T) {
	const slice = "metadata: {name: e, namespace: default}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 80}]\n"
	checkCreate(t, "discovery.k8s.io/EndpointSlice", slice, []bad{
		{"type", `addressType: MAC`, one("addressType NotSupported")},
		{"no address", `endpoints: [{}]`, one("endpoints[0].addresses Required")},
		{"address", `endpoints: [{addresses: [there]}]`, one("endpoints[0].addresses[0] Invalid")},
		{"the node itself", `endpoints: [{addresses: [127.0.0.1]}]`, one("endpoints[0].addresses[0] Invalid")},
		{"every port", `ports: [{port: null}]`, nil},
		{"port's name", `ports: [{port: 80, name: A_b}]`, one("ports[0].name Invalid")},
		{"port's protocol", `ports: [{port: 80, protocol: ICMP}]`, one("ports[0].protocol NotSupported")},
		{"application", `ports: [{port: 80, appProtocol: "a b"}]`, one("ports[0].appProtocol Invalid")},
		{"host", `endpoints: [{addresses: [10.0.0.1], hostname: A_b}]`, one("endpoints[0].hostname Invalid")},
		{"node", `endpoints: [{addresses: [10.0.0.1], nodeName: A_b}]`, one("endpoints[0].nodeName Invalid")},
		{"hints", `endpoints: [{addresses: [10.0.0.1], hints: {forZones: [{name: a}, {name: a}], forNodes: [{name: A_b}]}}]`,
			[]string{"endpoints[0].hints.forNodes[0].name Invalid", "endpoints[0].hints.forZones[1].name Duplicate"}},
		{"leading zeros", `endpoints: [{addresses: [10.0.0.01]}]`, []string{"endpoints[0].addresses[0] Invalid"}},
		{"ports of one name", `ports: [{port: 80}, {port: 81}]`, one("ports[1].name Duplicate")},
	})
	checkUpdate(t, "discovery.k8s.io/EndpointSlice", slice, []bad{{"type", `{addressType: FQDN, endpoints: [{addresses: [a.b]}]}`, one("addressType Invalid")}})
	checkCreate(t, "Endpoints", "metadata: {name: e, namespace: default}\nsubsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]\n", []bad{
		{"nobody", `subsets: [{ports: [{port: 80}]}]`, one("subsets[0] Required")},
		{"address", `subsets: [{addresses: [{ip: there}]}]`, one("subsets[0].addresses[0].ip Invalid")},
	})
	checkCreate(t, "networking.k8s.io/NetworkPolicy", `
metadata: {name: n, namespace: default}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, endPort: 90}]}]}
`, []bad{
		{"peer of nothing", `spec: {ingress: [{from: [{}]}]}`, one("spec.ingress[0].from[0] Required")},
		{"peer of two sorts", `spec: {ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}`, one("spec.ingress[0].from[0] Forbidden")},
		{"range", `spec: {egress: [{to: [{ipBlock: {cidr: all}}]}]}`, one("spec.egress[0].to[0].ipBlock.cidr Invalid")},
		{"exception from elsewhere", `spec: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}`, one("spec.ingress[0].from[0].ipBlock.except[0] Invalid")},
		{"ports backwards", `spec: {ingress: [{ports: [{port: 90, endPort: 80}]}]}`, one("spec.ingress[0].ports[0].endPort Invalid")},
		{"end without a port", `spec: {ingress: [{ports: [{endPort: 80}]}]}`, one("spec.ingress[0].ports[0].endPort Invalid")},
		{"bits beyond the prefix", `spec: {egress: [{to: [{ipBlock: {cidr: 10.0.0.5/8}}]}]}`, one("spec.egress[0].to[0].ipBlock.cidr Invalid")},
		{"protocol", `spec: {ingress: [{ports: [{protocol: ICMP}]}]}`, one("spec.ingress[0].ports[0].protocol NotSupported")},
		{"selector", `spec: {podSelector: {matchExpressions: [{key: a, operator: Like}]}}`, one("spec.podSelector.matchExpressions[0].operator Invalid")},
		{"policy type", `spec: {policyTypes: [Sideways]}`, one("spec.policyTypes[0] NotSupported")},
	})
	checkCreate(t, "networking.k8s.io/Ingress", `
metadata: {name: i, namespace: default}
spec: {rules: [{host: a.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}
`, []bad{
		{"nothing", `spec: {rules: null}`, one("spec Invalid")},
		{"default alone", `spec: {rules: null, defaultBackend: {service: {name: s, port: {name: http}}}}`, nil},
		{"host", `spec: {rules: [{host: "a b"}]}`, one("spec.rules[0].host Invalid")},
		{"host of many", `spec: {rules: [{host: "*.example.com"}]}`, nil},
		{"path type", `spec: {rules: [{http: {paths: [{path: /, backend: {service: {name: s, port: {number: 80}}}}]}}]}`, one("spec.rules[0].http.paths[0].pathType Required")},
		{"path", `spec: {rules: [{http: {paths: [{path: a, pathType: Exact, backend: {service: {name: s, port: {number: 80}}}}]}}]}`, one("spec.rules[0].http.paths[0].path Invalid")},
		{"no paths", `spec: {rules: [{http: {paths: []}}]}`, one("spec.rules[0].http.paths Required")},
		{"backend of nothing", `spec: {defaultBackend: {}}`, one("spec.defaultBackend Invalid")},
		{"backend of another sort", `spec: {defaultBackend: {resource: {apiGroup: a.b, kind: Bucket, name: c}}}`, nil},
		{"backend without a kind", `spec: {defaultBackend: {resource: {name: c}}}`, one("spec.defaultBackend.resource.kind Required")},
		{"service that begins with a digit", `spec: {defaultBackend: {service: {name: 1s, port: {number: 80}}}}`, nil},
		{"secret", `spec: {tls: [{secretName: A_b}]}`, one("spec.tls[0].secretName Invalid")},
		{"end of a path", `spec: {rules: [{http: {paths: [{path: /a/.., pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}`,
			one("spec.rules[0].http.paths[0].path Invalid")},
		{"two classes", `{metadata: {annotations: {kubernetes.io/ingress.class: a}}, spec: {ingressClassName: b}}`, one("annotations.kubernetes.io/ingress.class Invalid")},
		{"backend without a port", `spec: {defaultBackend: {service: {name: s}}}`, one("spec.defaultBackend Required")},
	})
}

func TestStorageAndLimitsValidation(t *testing.T) {
	const claim = "metadata: {name: c, namespace: default}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n"
	checkCreate(t, "PersistentVolumeClaim", claim, []bad{
		{"no mode", `spec: {accessModes: []}`, one("spec.accessModes Required")},
		{"mode", `spec: {accessModes: [Some]}`, one("spec.accessModes NotSupported")},
		{"no size", `spec: {resources: null}`, one("spec.resources[storage] Required")},
		{"size", `spec: {resources: {requests: {storage: "0"}}}`, one("spec.resources[storage] Invalid")},
		{"class", `spec: {storageClassName: A_b}`, one("spec.storageClassName Invalid")},
	})
	checkUpdate(t, "PersistentVolumeClaim", claim, []bad{
		{"bound", `spec: {volumeName: v}`, nil},
		{"mode", `spec: {accessModes: [ReadOnlyMany]}`, one("spec Forbidden")},
		{"class, where there was none", `spec: {storageClassName: fast}`, nil},
		{"size, not bound", `spec: {resources: {requests: {storage: 2Gi}}}`, one("spec Forbidden")},
		{"as a device", `spec: {volumeMode: Block}`, []string{"spec Forbidden", "volumeMode Invalid"}},
	})
	const bound = claim + "status: {phase: Bound, capacity: {storage: 1Gi}, currentVolumeAttributesClassName: gold}\n"
	checkUpdate(t, "PersistentVolumeClaim", strings.Replace(bound, "spec: {", "spec: {storageClassName: slow, volumeAttributesClassName: gold, ", 1), []bad{
		{"larger", `spec: {resources: {requests: {storage: 2Gi}}}`, nil},
		{"smaller", `spec: {resources: {requests: {storage: 1Mi}}}`, one("spec.resources.requests.storage Forbidden")},
		{"other attributes", `spec: {volumeAttributesClassName: silver}`, nil},
		{"no attributes", `spec: {volumeAttributesClassName: null}`, one("spec.volumeAttributesClassName Forbidden")},
		{"another class", `spec: {storageClassName: fast}`, one("spec Forbidden")},
	})
	checkCreate(t, "PersistentVolumeClaim", claim, []bad{
		{"from a snapshot", `spec: {dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: s}}`, nil},
		{"from nothing of ours", `spec: {dataSource: {kind: Pod, name: p}}`, one("spec.dataSource Invalid")},
		{"from two", `spec: {dataSource: {kind: PersistentVolumeClaim, name: a}, dataSourceRef: {kind: PersistentVolumeClaim, name: b}}`, one("spec Invalid")},
		{"from elsewhere, twice", `spec: {dataSource: {kind: PersistentVolumeClaim, name: a}, dataSourceRef: {kind: PersistentVolumeClaim, name: a, namespace: n}}`, one("spec Invalid")},
		{"attributes", `spec: {volumeAttributesClassName: A_b}`, one("spec.volumeAttributesClassName Invalid")},
	})
	checkStatus(t, "PersistentVolumeClaim", bound, []bad{
		{"growing", `status: {allocatedResources: {storage: 2Gi}, allocatedResourceStatuses: {storage: NodeResizePending}}`, nil},
		{"growing somehow", `status: {allocatedResourceStatuses: {storage: Some}}`, one("status.allocatedResourceStatuses NotSupported")},
	})
	const volume = "metadata: {name: v}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /v}}\n"
	checkCreate(t, "PersistentVolume", volume, []bad{
		{"no size", `spec: {capacity: null}`, one("spec.capacity Required")},
		{"no mode", `spec: {accessModes: []}`, one("spec.accessModes Required")},
		{"no source", `spec: {hostPath: null}`, one("spec Required")},
		{"reclaim", `spec: {persistentVolumeReclaimPolicy: Burn}`, one("spec.persistentVolumeReclaimPolicy NotSupported")},
	})
	checkUpdate(t, "PersistentVolume", volume, []bad{
		{"claimed", `spec: {claimRef: {name: c, namespace: default}}`, nil},
		{"elsewhere", `spec: {hostPath: {path: /w}}`, one("spec.persistentvolumesource Forbidden")},
	})
	checkCreate(t, "LimitRange", "metadata: {name: l, namespace: default}\nspec: {limits: [{type: Container, default: {cpu: 1}}]}\n", []bad{
		{"type twice", `spec: {limits: [{type: Container}, {type: Container}]}`, one("spec.limits[1].type Duplicate")},
		{"least above most", `spec: {limits: [{type: Container, min: {cpu: 2}, max: {cpu: 1}}]}`, one("spec.limits[0].min[cpu] Invalid")},
		{"default of a pod", `spec: {limits: [{type: Pod, default: {cpu: 1}}]}`, one("spec.limits[0].default Forbidden")},
	})
	checkCreate(t, "ResourceQuota", "metadata: {name: q, namespace: default}\nspec: {hard: {pods: 1, requests.cpu: 1, count/jobs.batch: 3, example.com/gpu: 1}}\n", []bad{
		{"unknown", `spec: {hard: {gold: 1}}`, one("spec.hard[gold] Invalid")},
		{"negative", `spec: {hard: {pods: -1}}`, one("spec.hard[pods] Invalid")},
		{"half", `spec: {hard: {pods: 500m}}`, one("spec.hard[pods] Invalid")},
	})
}

func TestStorageGroupValidation(t *testing.T) {
	const class = "metadata: {name: c}\nprovisioner: example.com/disk\nreclaimPolicy: Delete\nvolumeBindingMode: Immediate\nparameters: {a: b}\n"
	checkCreate(t, "storage.k8s.io/StorageClass", class, []bad{
		{"no provisioner", `provisioner: ""`, one("provisioner Required")},
		{"provisioner", `provisioner: "a b"`, one("provisioner Invalid")},
		{"policy", `reclaimPolicy: Recycle`, one("reclaimPolicy NotSupported")},
		{"mode", `volumeBindingMode: Never`, one("volumeBindingMode NotSupported")},
		{"topology", `allowedTopologies: [{matchLabelExpressions: [{key: zone, values: []}]}]`, one("allowedTopologies[0].matchLabelExpressions[0].values Required")},
	})
	checkUpdate(t, "storage.k8s.io/StorageClass", class, []bad{
		{"grows", `allowVolumeExpansion: true`, nil},
		{"provisioner", `provisioner: example.com/other`, one("provisioner Forbidden")},
		{"parameters", `parameters: {a: c}`, one("parameters Forbidden")},
		{"policy", `reclaimPolicy: Retain`, one("reclaimPolicy Forbidden")},
		{"mode", `volumeBindingMode: WaitForFirstConsumer`, one("volumeBindingMode Invalid")},
	})
	const attachment = "metadata: {name: a}\nspec: {attacher: example.com, nodeName: n, source: {persistentVolumeName: v}}\n"
	checkCreate(t, "storage.k8s.io/VolumeAttachment", attachment, []bad{
		{"attacher", `spec: {attacher: ""}`, one("spec.attacher Required")},
		{"node", `spec: {nodeName: ""}`, one("spec.nodeName Invalid")},
		{"no source", `spec: {source: {persistentVolumeName: null}}`, one("spec.source Required")},
	})
	checkUpdate(t, "storage.k8s.io/VolumeAttachment", attachment, []bad{{"node", `spec: {nodeName: m}`, one("spec Invalid")}})
	const driver = "metadata: {name: example.com}\nspec: {}\n"
	checkCreate(t, "storage.k8s.io/CSIDriver", driver, []bad{
		{"policy", `spec: {fsGroupPolicy: Some}`, one("spec.fsGroupPolicy NotSupported")},
		{"modes", `spec: {volumeLifecycleModes: [Never]}`, one("spec.volumeLifecycleModes[0] NotSupported")},
		{"audience", `spec: {tokenRequests: [{audience: a}, {audience: a}]}`, one("spec.tokenRequests[1].audience Duplicate")},
		{"life", `spec: {tokenRequests: [{audience: a, expirationSeconds: 5}]}`, one("spec.tokenRequests[0].expirationSeconds Invalid")},
	})
	const node = "metadata: {name: n}\nspec: {drivers: [{name: example.com, nodeID: n, topologyKeys: [zone]}]}\n"
	checkCreate(t, "storage.k8s.io/CSINode", node, []bad{
		{"no id", `spec: {drivers: [{name: example.com, nodeID: "", topologyKeys: []}]}`, one("spec.drivers[0].nodeID Required")},
		{"twice", `spec: {drivers: [{name: a, nodeID: n, topologyKeys: []}, {name: a, nodeID: n, topologyKeys: []}]}`, one("spec.drivers[1].name Duplicate")},
	})
	checkUpdate(t, "storage.k8s.io/CSINode", node, []bad{
		{"another id", `spec: {drivers: [{name: example.com, nodeID: m, topologyKeys: [zone]}]}`, one("spec.drivers[0] Invalid")},
		{"gone", `spec: {drivers: []}`, nil},
	})
	const capacity = "metadata: {name: c, namespace: default}\nstorageClassName: fast\ncapacity: 1Gi\n"
	checkCreate(t, "storage.k8s.io/CSIStorageCapacity", capacity, []bad{
		{"no class", `storageClassName: ""`, one("storageClassName Required")},
		{"below nothing", `capacity: "-1"`, one("capacity Invalid")},
	})
	const attributes = "metadata: {name: c}\ndriverName: example.com\nparameters: {a: b}\n"
	checkCreate(t, "storage.k8s.io/VolumeAttributesClass", attributes, []bad{
		{"no driver", `driverName: ""`, one("driverName Required")},
		{"no parameters", `parameters: null`, one("parameters Required")},
	})
	checkUpdate(t, "storage.k8s.io/VolumeAttributesClass", attributes, []bad{{"parameters", `parameters: {a: c}`, one("parameters Forbidden")}})
}

func TestPolicyValidation(t *testing.T) {
	const role = "metadata: {name: r, namespace: default}\nrules: [{apiGroups: [\"\"], resources: [pods], verbs: [get]}]\n"
	checkCreate(t, "rbac.authorization.k8s.io/Role", role, []bad{
		{"no verbs", `rules: [{apiGroups: [""], resources: [pods]}]`, one("rules[0].verbs Required")},
		{"no groups", `rules: [{resources: [pods], verbs: [get]}]`, one("rules[0].apiGroups Required")},
		{"no resources", `rules: [{apiGroups: [""], verbs: [get]}]`, one("rules[0].resources Required")},
		{"path", `rules: [{nonResourceURLs: [/healthz], verbs: [get]}]`, one("rules[0].nonResourceURLs Invalid")},
	})
	const binding = `
metadata: {name: b, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}
subjects: [{kind: User, name: u}]
`
	checkCreate(t, "rbac.authorization.k8s.io/RoleBinding", binding, []bad{
		{"group", `roleRef: {apiGroup: a.b}`, one("roleRef.apiGroup NotSupported")},
		{"kind", `roleRef: {kind: Pod}`, one("roleRef.kind NotSupported")},
		{"no role", `roleRef: {name: ""}`, one("roleRef.name Required")},
		{"subject's kind", `subjects: [{kind: Pod, name: p}]`, one("subjects[0].kind NotSupported")},
		{"account of the binding's own namespace", `subjects: [{kind: ServiceAccount, name: p}]`, nil},
		{"account's name", `subjects: [{kind: ServiceAccount, name: "a:b", namespace: c}]`, one("subjects[0].name Invalid")},
		{"account of a group", `subjects: [{kind: ServiceAccount, name: p, apiGroup: a.b}]`, one("subjects[0].apiGroup NotSupported")},
		{"role's name", `roleRef: {name: a/b}`, one("roleRef.name Invalid")},
	})
	checkUpdate(t, "rbac.authorization.k8s.io/RoleBinding", binding, []bad{{"role", `roleRef: {name: other}`, one("roleRef Invalid")}, {"subjects", `subjects: []`, nil}})
	checkCreate(t, "policy/PodDisruptionBudget", "metadata: {name: b, namespace: default}\nspec: {minAvailable: 1, selector: {matchLabels: {a: b}}}\n", []bad{
		{"both", `spec: {maxUnavailable: 1}`, one("spec Invalid")},
		{"negative", `spec: {minAvailable: -1}`, one("spec.minAvailable Invalid")},
		{"percentage", `spec: {minAvailable: half}`, one("spec.minAvailable Invalid")},
	})
	checkCreate(t, "coordination.k8s.io/Lease", "metadata: {name: l, namespace: default}\nspec: {leaseDurationSeconds: 10}\n", []bad{
		{"duration", `spec: {leaseDurationSeconds: 0}`, one("spec.leaseDurationSeconds Invalid")},
		{"transitions", `spec: {leaseTransitions: -1}`, one("spec.leaseTransitions Invalid")},
	})
	checkCreate(t, "Event", "metadata: {name: e, namespace: default}\ninvolvedObject: {namespace: default, name: p}\n", []bad{
		{"of elsewhere", `involvedObject: {namespace: other}`, one("involvedObject.namespace Invalid")},
		{"of the cluster", `involvedObject: {namespace: null}`, nil},
	})
}
