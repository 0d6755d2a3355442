package test

// badInputKinds are custom resources, one with all that these can have and one without a schema.
const badInputKinds = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.oars, statusReplicasPath: .status.oars}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {oars: {type: integer}, crew: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name], items: {type: object, required: [name], properties: {name: {type: string}}}}}}
          status: {type: object, properties: {oars: {type: integer}}}
`

const podTemplate = `template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}`

// badInputNames are the samples' names where these cannot be "there".
var badInputNames = map[string]string{
	"customresourcedefinitions": "boats.sea.example.com",
	"apiservices":               "v1.nobody.example.com",
	"ipaddresses":               "10.43.77.7",
}

// badInputSamples are what an object needs beside its name, by the resource; "none: " and why there can be no sample.
var badInputSamples = map[string]string{
	"pods":                              `spec: {containers: [{name: c, image: i}], schedulingGates: [{name: example.com/wait}]}`,
	"podtemplates":                      podTemplate,
	"services":                          `spec: {ports: [{port: 80}]}`,
	"persistentvolumeclaims":            `spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}`,
	"persistentvolumes":                 `spec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /tmp}}`,
	"replicationcontrollers":            `spec: {replicas: 0, selector: {a: b}, ` + podTemplate + `}`,
	"replicasets":                       `spec: {replicas: 0, selector: {matchLabels: {a: b}}, ` + podTemplate + `}`,
	"deployments":                       `spec: {replicas: 0, selector: {matchLabels: {a: b}}, ` + podTemplate + `}`,
	"statefulsets":                      `spec: {replicas: 0, selector: {matchLabels: {a: b}}, ` + podTemplate + `}`,
	"daemonsets":                        `spec: {selector: {matchLabels: {a: b}}, ` + podTemplate + `}`,
	"controllerrevisions":               `revision: 1, data: {}`,
	"jobs":                              `spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}`,
	"cronjobs":                          `spec: {suspend: true, schedule: "0 0 1 1 *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}`,
	"horizontalpodautoscalers":          `spec: {maxReplicas: 2, scaleTargetRef: {kind: ReplicationController, name: nobody, apiVersion: v1}}`,
	"events":                            `involvedObject: {kind: Pod, namespace: default, name: a}, regarding: {kind: Pod, namespace: default, name: a}`,
	"endpointslices":                    `addressType: IPv4, endpoints: []`,
	"ingresses":                         `spec: {defaultBackend: {service: {name: a, port: {number: 80}}}}`,
	"ingressclasses":                    `spec: {controller: example.com/a}`,
	"ipaddresses":                       `spec: {parentRef: {resource: services, namespace: default, name: nobody}}`,
	"servicecidrs":                      `spec: {cidrs: [10.99.0.0/24]}`,
	"networkpolicies":                   `spec: {podSelector: {}}`,
	"runtimeclasses":                    `handler: runc`,
	"poddisruptionbudgets":              `spec: {selector: {matchLabels: {nobody: has}}}`,
	"rolebindings":                      `roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}`,
	"clusterrolebindings":               `roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}`,
	"priorityclasses":                   `value: 7`,
	"storageclasses":                    `provisioner: example.com/a`,
	"csidrivers":                        `spec: {}`,
	"csinodes":                          `spec: {drivers: []}`,
	"csistoragecapacities":              `storageClassName: a`,
	"volumeattachments":                 `spec: {attacher: example.com, nodeName: there, source: {persistentVolumeName: nobody}}`,
	"volumeattributesclasses":           `driverName: example.com, parameters: {a: b}`,
	"storageversionmigrations":          `spec: {resource: {group: "", resource: configmaps}}`,
	"resourceclaims":                    `spec: {devices: {requests: [{name: a, exactly: {deviceClassName: a}}]}}`,
	"resourceclaimtemplates":            `spec: {spec: {devices: {requests: [{name: a, exactly: {deviceClassName: a}}]}}}`,
	"resourceslices":                    `spec: {driver: example.com, nodeName: there, pool: {name: there, resourceSliceCount: 1}}`,
	"deviceclasses":                     `spec: {}`,
	"devicetaintrules":                  `spec: {deviceSelector: {driver: example.com}, taint: {key: example.com/a, effect: None}}`,
	"flowschemas":                       `spec: {priorityLevelConfiguration: {name: catch-all}}`,
	"prioritylevelconfigurations":       `spec: {type: Limited, limited: {limitResponse: {type: Reject}}}`,
	"validatingadmissionpolicies":       `spec: {matchConstraints: {resourceRules: [{apiGroups: [frob.example.com], apiVersions: [v1], operations: [CREATE], resources: [frobs]}]}, validations: [{expression: "true"}]}`,
	"validatingadmissionpolicybindings": `spec: {policyName: nobody, validationActions: [Deny]}`,
	"mutatingadmissionpolicies": `spec: {reinvocationPolicy: Never, matchConstraints: {resourceRules: [{apiGroups: [frob.example.com], apiVersions: [v1], operations: [CREATE], resources: [frobs]}]},
		mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{}"}}]}`,
	"mutatingadmissionpolicybindings": `spec: {policyName: nobody}`,
	"apiservices":                     `spec: {group: nobody.example.com, version: v1, groupPriorityMinimum: 10, versionPriority: 10, service: {namespace: default, name: nobody}, insecureSkipTLSVerify: true}`,
	"addons":                          `spec: {enabled: false, source: {secret: nobody}}`,
	"podcertificaterequests":          `none: only a node's kubelet may make one, for a pod of its own`,
	"clustertrustbundles":             `none: bundles are certificates`,
}

// badInputMore is what the body of a subresource needs beside its name.
var badInputMore = map[string]string{
	"binding": `,"target":{"kind":"Node","name":"there"}`,
	"token":   `,"spec":{}`,
}

// badInputConnections are queries of connections that cannot come about, with what is said of them.
var badInputConnections = map[string]map[string]string{
	"exec":        {"command=a&stdout=1": "does not have a host assigned", "command=a&stdout=1&container=nobody": "container nobody is not valid", "container=c": "does not have a host assigned"},
	"attach":      {"stdout=1": "does not have a host assigned", "stdout=1&container=nobody": "container nobody is not valid"},
	"portforward": {"ports=80": "does not have a host assigned", "": "does not have a host assigned"},
	"log":         {"container=nobody": "container nobody is not valid", "tailLines=x": "tailLines", "tailLines=-1": "tailLines", "limitBytes=0": "limitBytes", "sinceTime=x": "sinceTime", "sinceSeconds=0": "sinceSeconds", "stream=Frob": "stream"},
}
