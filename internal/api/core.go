package api

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
)

func coreRows() []*Resource {
	return []*Resource{
		of[corev1.Pod, corev1.PodList](podRow),
		of[corev1.Service, corev1.ServiceList](serviceRow),
		of[corev1.Node, corev1.NodeList](Resource{
			Version: "v1", Kind: "Node", Plural: "nodes", Short: []string{"no"}, Key: "minions", Status: true, StatusOnCreate: true,
			Subresources: []Subresource{{Name: "proxy", Kind: "NodeProxyOptions", Verbs: proxyVerbs}},
			Fields: func(o Object) fields.Set {
				return fields.Set{"spec.unschedulable": boolText(o.(*corev1.Node).Spec.Unschedulable)}
			},
			Default: func(o Object) { defaultNode(o.(*corev1.Node)) }, Warn: warnNode, Validate: validateNode, ValidateUpdate: validateNodeUpdate, Columns: nodeColumns,
		}),
		of[corev1.Namespace, corev1.NamespaceList](Resource{
			Version: "v1", Kind: "Namespace", Plural: "namespaces", Short: []string{"ns"}, Key: "namespaces", Status: true,
			Verbs:        []string{"create", "delete", "get", "list", "patch", "update", "watch"},
			Subresources: []Subresource{{Name: "finalize", Kind: "Namespace", Verbs: []string{"update"}, New: func() runtime.Object { return &corev1.Namespace{} }}},
			Fields: func(o Object) fields.Set {
				return fields.Set{"status.phase": string(o.(*corev1.Namespace).Status.Phase)}
			},
			PrepareCreate: prepareNamespace,
			Held:          func(o Object) bool { return len(o.(*corev1.Namespace).Spec.Finalizers) > 0 },
			Terminating:   func(o Object) { o.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating },
			Default:       func(o Object) { defaultNamespace(o.(*corev1.Namespace)) },
			ValidateName:  labelName, Validate: none, ValidateUpdate: nonePair, Columns: namespaceColumns,
		}),
		of[corev1.ConfigMap, corev1.ConfigMapList](Resource{
			Version: "v1", Kind: "ConfigMap", Plural: "configmaps", Short: []string{"cm"}, Key: "configmaps", Namespaced: true,
			Validate: validateConfigMap, ValidateUpdate: validateConfigMapUpdate, Columns: configMapColumns,
		}),
		of[corev1.Secret, corev1.SecretList](Resource{
			Version: "v1", Kind: "Secret", Plural: "secrets", Key: "secrets", Namespaced: true, Cold: true,
			Fields:        func(o Object) fields.Set { return fields.Set{"type": string(o.(*corev1.Secret).Type)} },
			Default:       func(o Object) { defaultSecret(o.(*corev1.Secret)) },
			PrepareCreate: func(o Object) { foldStringData(o.(*corev1.Secret)) }, PrepareUpdate: func(o, _ Object) { foldStringData(o.(*corev1.Secret)) },
			Validate: validateSecret, ValidateUpdate: validateSecretUpdate, Columns: secretColumns,
		}),
		of[corev1.ServiceAccount, corev1.ServiceAccountList](Resource{
			Version: "v1", Kind: "ServiceAccount", Plural: "serviceaccounts", Short: []string{"sa"}, Key: "serviceaccounts", Namespaced: true,
			Subresources: []Subresource{{Name: "token", Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest", Verbs: []string{"create"},
				New: func() runtime.Object { return &authenticationv1.TokenRequest{} }}},
			Columns: serviceAccountColumns,
		}),
		of[corev1.Endpoints, corev1.EndpointsList](Resource{
			Version: "v1", Kind: "Endpoints", Plural: "endpoints", Singular: "endpoints", Short: []string{"ep"}, Key: "services/endpoints", Namespaced: true, CreateOnUpdate: true,
			Default: func(o Object) { defaultEndpoints(o.(*corev1.Endpoints)) }, Validate: validateEndpoints, ValidateUpdate: sameAsCreate(validateEndpoints), Columns: endpointsColumns,
			Deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
		}),
		of[corev1.Event, corev1.EventList](eventRow),
		of[corev1.ReplicationController, corev1.ReplicationControllerList](Resource{
			Warn:    warnTemplate(func(o Object) *corev1.PodTemplateSpec { return o.(*corev1.ReplicationController).Spec.Template }, "spec", "template"),
			Version: "v1", Kind: "ReplicationController", Plural: "replicationcontrollers", Short: []string{"rc"}, Categories: all, Key: "controllers", Namespaced: true,
			Status: true, Generation: true, Subresources: []Subresource{scaleSubresource},
			Fields: func(o Object) fields.Set {
				return fields.Set{"status.replicas": number(o.(*corev1.ReplicationController).Status.Replicas)}
			},
			Scale: &Scale{
				Get: func(o Object) (int32, int32, string) {
					rc := o.(*corev1.ReplicationController)
					return value(rc.Spec.Replicas), rc.Status.Replicas, mapSelector(rc.Spec.Selector)
				},
				Set: func(o Object, n int32) { o.(*corev1.ReplicationController).Spec.Replicas = &n },
			},
			Default: func(o Object) { defaultReplicationController(o.(*corev1.ReplicationController)) }, Columns: replicationControllerColumns,
			Validate: validateReplicationController, ValidateUpdate: sameAsCreate(validateReplicationController), ValidateStatus: validateReplicationControllerStatus,
			DefaultPropagation: metav1.DeletePropagationOrphan, // as it was before there was a policy to name
		}),
		of[corev1.PersistentVolume, corev1.PersistentVolumeList](Resource{
			Version: "v1", Kind: "PersistentVolume", Plural: "persistentvolumes", Short: []string{"pv"}, Key: "persistentvolumes", Status: true,
			Default: func(o Object) { defaultPersistentVolume(o.(*corev1.PersistentVolume)) }, Columns: persistentVolumeColumns,
			Warn: warnVolume, Validate: validatePersistentVolume, ValidateUpdate: validatePersistentVolumeUpdate,
		}),
		of[corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](Resource{
			Version: "v1", Kind: "PersistentVolumeClaim", Plural: "persistentvolumeclaims", Short: []string{"pvc"}, Key: "persistentvolumeclaims", Namespaced: true, Status: true,
			Default: func(o Object) { defaultPersistentVolumeClaim(o.(*corev1.PersistentVolumeClaim)) }, Columns: persistentVolumeClaimColumns,
			Warn: warnClaim, Validate: validatePersistentVolumeClaim, ValidateUpdate: validatePersistentVolumeClaimUpdate, ValidateStatus: validatePersistentVolumeClaimStatus,
		}),
		of[corev1.PodTemplate, corev1.PodTemplateList](Resource{
			Version: "v1", Kind: "PodTemplate", Plural: "podtemplates", Key: "podtemplates", Namespaced: true, Generation: true,
			Default: func(o Object) { defaultPodSpec(&o.(*corev1.PodTemplate).Template.Spec) }, Columns: podTemplateColumns,
			Warn: warnTemplate(func(o Object) *corev1.PodTemplateSpec { return &o.(*corev1.PodTemplate).Template }, "template"), Validate: validatePodTemplate, ValidateUpdate: sameAsCreate(validatePodTemplate),
		}),
		of[corev1.LimitRange, corev1.LimitRangeList](Resource{
			Version: "v1", Kind: "LimitRange", Plural: "limitranges", Short: []string{"limits"}, Key: "limitranges", Namespaced: true, CreateOnUpdate: true, Columns: createdAtColumns,
			Validate: validateLimitRange, ValidateUpdate: sameAsCreate(validateLimitRange),
		}),
		of[corev1.ResourceQuota, corev1.ResourceQuotaList](Resource{
			Version: "v1", Kind: "ResourceQuota", Plural: "resourcequotas", Short: []string{"quota"}, Key: "resourcequotas", Namespaced: true, Status: true,
			Columns: resourceQuotaColumns, Validate: validateResourceQuota, ValidateUpdate: validateResourceQuotaUpdate,
		}),
		of[corev1.ComponentStatus, corev1.ComponentStatusList](Resource{ //nolint:staticcheck // old clients read it
			Version: "v1", Kind: "ComponentStatus", Plural: "componentstatuses", Short: []string{"cs"}, Verbs: []string{"get", "list"}, Columns: componentStatusColumns,
			Deprecated: "v1 ComponentStatus is deprecated in v1.19+",
		}),
		review[corev1.Binding](Resource{Version: "v1", Kind: "Binding", Plural: "bindings", Namespaced: true}),
	}
}

var (
	proxyVerbs       = []string{"create", "delete", "get", "patch", "update"}
	scaleSubresource = Subresource{Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: []string{"get", "patch", "update"},
		New: func() runtime.Object { return &autoscalingv1.Scale{} }}
)

var podRow = Resource{
	Version: "v1", Kind: "Pod", Plural: "pods", Short: []string{"po"}, Categories: all, Key: "pods", Namespaced: true, Status: true, StatusMeta: statusMetaOfPod, Generation: true,
	Share: sharePod,
	Subresources: []Subresource{
		{Name: "attach", Kind: "PodAttachOptions", Verbs: []string{"create", "get"}},
		{Name: "binding", Kind: "Binding", Verbs: []string{"create"}, New: func() runtime.Object { return &corev1.Binding{} }},
		{Name: "ephemeralcontainers", Kind: "Pod", Verbs: []string{"get", "patch", "update"}, New: func() runtime.Object { return &corev1.Pod{} }},
		{Name: "eviction", Group: "policy", Version: "v1", Kind: "Eviction", Verbs: []string{"create"}, New: func() runtime.Object { return &policyv1.Eviction{} }},
		{Name: "exec", Kind: "PodExecOptions", Verbs: []string{"create", "get"}},
		{Name: "explain", Kind: "Pod", Verbs: []string{"get"}}, // Skiff's own: why a pod has no node
		{Name: "log", Kind: "Pod", Verbs: []string{"get"}},
		{Name: "portforward", Kind: "PodPortForwardOptions", Verbs: []string{"create", "get"}},
		{Name: "proxy", Kind: "PodProxyOptions", Verbs: proxyVerbs},
		{Name: "resize", Kind: "Pod", Verbs: []string{"get", "patch", "update"}, New: func() runtime.Object { return &corev1.Pod{} }},
	},
	Default:        func(o Object) { defaultPod(&o.(*corev1.Pod).Spec) },
	PrepareCreate:  preparePod,
	Validate:       validatePod,
	ValidateUpdate: validatePodUpdate,
	ValidateMain:   validatePodMain,
	ValidateStatus: validatePodStatus,
	Warn:           warnPod,
	Fields:         podFields,
	Indexes: map[string]func(Object) []string{
		"spec.nodeName": func(o Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} },
		"owner.uid":     ownerUIDs,
	},
	GracefulDelete: podGrace,
	Columns:        podColumns,
}

func podFields(o Object) fields.Set {
	p := o.(*corev1.Pod)
	return fields.Set{
		"spec.nodeName": p.Spec.NodeName, "spec.restartPolicy": string(p.Spec.RestartPolicy), "spec.schedulerName": p.Spec.SchedulerName,
		"spec.serviceAccountName": p.Spec.ServiceAccountName, "spec.hostNetwork": boolText(p.Spec.HostNetwork),
		"status.phase": string(p.Status.Phase), "status.podIP": p.Status.PodIP, "status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

var serviceRow = Resource{
	Version: "v1", Kind: "Service", Plural: "services", Short: []string{"svc"}, Categories: all, Key: "services/specs", Namespaced: true, Status: true, CreateOnUpdate: true,
	Subresources: []Subresource{{Name: "proxy", Kind: "ServiceProxyOptions", Verbs: proxyVerbs}},
	Fields: func(o Object) fields.Set {
		s := o.(*corev1.Service)
		return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
	},
	Default:       func(o Object) { defaultService(o.(*corev1.Service)) },
	PrepareUpdate: prepareServiceUpdate,
	Warn:          warnService,
	Validate:      validateService, ValidateUpdate: validateServiceUpdate, ValidateName: serviceName, Columns: serviceColumns,
}

var eventRow = Resource{
	Version: "v1", Kind: "Event", Plural: "events", Short: []string{"ev"}, Key: "events", Namespaced: true, Cold: true, Transient: true, CreateOnUpdate: true,
	Fields: func(o Object) fields.Set {
		e := o.(*corev1.Event)
		source := e.Source.Component
		if source == "" {
			source = e.ReportingController
		}
		return fields.Set{
			"involvedObject.kind": e.InvolvedObject.Kind, "involvedObject.namespace": e.InvolvedObject.Namespace, "involvedObject.name": e.InvolvedObject.Name,
			"involvedObject.uid": string(e.InvolvedObject.UID), "involvedObject.apiVersion": e.InvolvedObject.APIVersion,
			"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion, "involvedObject.fieldPath": e.InvolvedObject.FieldPath,
			"reason": e.Reason, "reportingComponent": e.ReportingController, "source": source, "type": e.Type,
		}
	},
	ValidateName: anyName,
	Validate:     validateEvent,
	Columns:      eventColumns,
	Also: []Served{{
		Group: "events.k8s.io", Version: "v1", Kind: "Event",
		New:     func() Object { return &eventsv1.Event{} },
		NewList: func() runtime.Object { return &eventsv1.EventList{} },
		To:      func(o Object) Object { return eventToEvents(o.(*corev1.Event)) },
		From:    func(o Object) Object { return eventFromEvents(o.(*eventsv1.Event)) },
		Columns: eventsColumns,
		Fields: map[string]string{
			"regarding.kind": "involvedObject.kind", "regarding.namespace": "involvedObject.namespace", "regarding.name": "involvedObject.name",
			"regarding.uid": "involvedObject.uid", "regarding.apiVersion": "involvedObject.apiVersion",
			"regarding.resourceVersion": "involvedObject.resourceVersion", "regarding.fieldPath": "involvedObject.fieldPath",
			"reason": "reason", "reportingController": "reportingComponent", "type": "type",
		},
	}},
}
