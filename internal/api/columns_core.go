package api

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var nodeColumns = columnsThenWide([]Column{
	text("Status", nodeStatus), text("Roles", nodeRoles),
},
	text("Version", func(n *corev1.Node) string { return n.Status.NodeInfo.KubeletVersion }),
	wide("Internal-IP", func(n *corev1.Node) string { return nodeAddress(n, corev1.NodeInternalIP) }),
	wide("External-IP", func(n *corev1.Node) string { return nodeAddress(n, corev1.NodeExternalIP) }),
	wide("OS-Image", func(n *corev1.Node) string { return orElse(n.Status.NodeInfo.OSImage, "<unknown>") }),
	wide("Kernel-Version", func(n *corev1.Node) string { return orElse(n.Status.NodeInfo.KernelVersion, "<unknown>") }),
	wide("Container-Runtime", func(n *corev1.Node) string {
		return orElse(n.Status.NodeInfo.ContainerRuntimeVersion, "<unknown>")
	}),
)

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if status = "NotReady"; c.Status == corev1.ConditionTrue {
				status = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

func nodeRoles(n *corev1.Node) string {
	var roles []string
	for k, v := range n.Labels {
		if role, found := strings.CutPrefix(k, "node-role.kubernetes.io/"); found && role != "" {
			roles = append(roles, role)
		} else if k == "kubernetes.io/role" && v != "" {
			roles = append(roles, v)
		}
	}
	slices.Sort(roles)
	return joined(roles, 0)
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return "<none>"
}

var (
	namespaceColumns = columns(text("Status", func(n *corev1.Namespace) string { return string(n.Status.Phase) }))
	configMapColumns = columns(count("Data", func(c *corev1.ConfigMap) int { return len(c.Data) + len(c.BinaryData) }))
	secretColumns    = columns(text("Type", func(s *corev1.Secret) string { return string(s.Type) }),
		count("Data", func(s *corev1.Secret) int { return len(s.Data) }))
	serviceAccountColumns        = columns(count("Secrets", func(s *corev1.ServiceAccount) int { return len(s.Secrets) }))
	endpointsColumns             = columns(text("Endpoints", endpointsText))
	replicationControllerColumns = columnsThenWide([]Column{
		count("Desired", func(r *corev1.ReplicationController) int32 { return value(r.Spec.Replicas) }),
		count("Current", func(r *corev1.ReplicationController) int32 { return r.Status.Replicas }),
		count("Ready", func(r *corev1.ReplicationController) int32 { return r.Status.ReadyReplicas }),
	},
		wide("Containers", func(r *corev1.ReplicationController) string {
			if r.Spec.Template == nil {
				return "<none>"
			}
			return containerNames(r.Spec.Template)
		}),
		wide("Images", func(r *corev1.ReplicationController) string {
			if r.Spec.Template == nil {
				return "<none>"
			}
			return containerImages(r.Spec.Template)
		}),
		wide("Selector", func(r *corev1.ReplicationController) string { return orNone(mapSelector(r.Spec.Selector)) }),
	)
)

func endpointsText(e *corev1.Endpoints) string {
	var out []string
	for i := range e.Subsets {
		s := &e.Subsets[i]
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				out = append(out, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				out = append(out, hostPort(a.IP, int(p.Port)))
			}
		}
	}
	return joined(out, 3)
}

func hostPort(ip string, port int) string {
	if strings.Contains(ip, ":") {
		ip = "[" + ip + "]"
	}
	return ip + ":" + strconv.Itoa(port)
}

var accessModes = map[corev1.PersistentVolumeAccessMode]string{
	corev1.ReadWriteOnce: "RWO", corev1.ReadOnlyMany: "ROX", corev1.ReadWriteMany: "RWX", corev1.ReadWriteOncePod: "RWOP",
}

func accessModesText(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range modes {
		if t := orElse(accessModes[m], string(m)); !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return strings.Join(out, ",")
}

func quantityText(l corev1.ResourceList, name corev1.ResourceName) string {
	if q, found := l[name]; found {
		return q.String()
	}
	return ""
}

var persistentVolumeColumns = columnsThenWide([]Column{
	text("Capacity", func(v *corev1.PersistentVolume) string {
		return quantityText(v.Spec.Capacity, corev1.ResourceStorage)
	}),
	text("Access Modes", func(v *corev1.PersistentVolume) string { return accessModesText(v.Spec.AccessModes) }),
	text("Reclaim Policy", func(v *corev1.PersistentVolume) string { return string(v.Spec.PersistentVolumeReclaimPolicy) }),
	text("Status", func(v *corev1.PersistentVolume) string {
		if v.DeletionTimestamp != nil {
			return "Terminating"
		}
		return string(v.Status.Phase)
	}),
	text("Claim", func(v *corev1.PersistentVolume) string {
		if v.Spec.ClaimRef == nil {
			return ""
		}
		return v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name
	}),
	text("StorageClass", func(v *corev1.PersistentVolume) string { return v.Spec.StorageClassName }),
	text("VolumeAttributesClass", func(v *corev1.PersistentVolume) string {
		return orElse(value(v.Spec.VolumeAttributesClassName), "<unset>")
	}),
	text("Reason", func(v *corev1.PersistentVolume) string { return v.Status.Reason }),
}, wide("VolumeMode", func(v *corev1.PersistentVolume) string {
	return orElse(string(value(v.Spec.VolumeMode)), "<unset>")
}))

var persistentVolumeClaimColumns = columnsThenWide([]Column{
	text("Status", func(c *corev1.PersistentVolumeClaim) string {
		if c.DeletionTimestamp != nil {
			return "Terminating"
		}
		return string(c.Status.Phase)
	}),
	text("Volume", func(c *corev1.PersistentVolumeClaim) string { return c.Spec.VolumeName }),
	text("Capacity", func(c *corev1.PersistentVolumeClaim) string {
		if c.Spec.VolumeName == "" {
			return ""
		}
		return quantityText(c.Status.Capacity, corev1.ResourceStorage)
	}),
	text("Access Modes", func(c *corev1.PersistentVolumeClaim) string {
		if c.Spec.VolumeName == "" {
			return ""
		}
		return accessModesText(c.Status.AccessModes)
	}),
	text("StorageClass", func(c *corev1.PersistentVolumeClaim) string { return value(c.Spec.StorageClassName) }),
	text("VolumeAttributesClass", func(c *corev1.PersistentVolumeClaim) string {
		return orElse(value(c.Spec.VolumeAttributesClassName), "<unset>")
	}),
}, wide("VolumeMode", func(c *corev1.PersistentVolumeClaim) string {
	return orElse(string(value(c.Spec.VolumeMode)), "<unset>")
}))

var resourceQuotaColumns = []Column{nameColumn,
	text("Request", func(q *corev1.ResourceQuota) string { return quotaText(q, false) }),
	text("Limit", func(q *corev1.ResourceQuota) string { return quotaText(q, true) }),
	ageColumn,
}

func quotaText(q *corev1.ResourceQuota, limits bool) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		if strings.HasPrefix(string(name), "limits") != limits {
			continue
		}
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		out = append(out, fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String()))
	}
	return strings.Join(out, ", ")
}

var serviceColumns = columnsThenWide([]Column{
	text("Type", func(s *corev1.Service) string { return string(s.Spec.Type) }),
	text("Cluster-IP", func(s *corev1.Service) string { return orNone(s.Spec.ClusterIP) }),
	text("External-IP", serviceExternal), text("Port(s)", servicePorts),
}, wide("Selector", func(s *corev1.Service) string { return orNone(mapSelector(s.Spec.Selector)) }))

func serviceExternal(s *corev1.Service) string {
	ips := slices.Clone(s.Spec.ExternalIPs)
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		var ingress []string
		for _, i := range s.Status.LoadBalancer.Ingress {
			ingress = append(ingress, orElse(i.IP, i.Hostname))
		}
		ips = append(ingress, ips...)
		if len(ips) == 0 {
			return "<pending>"
		}
	}
	return joined(ips, 0)
}

func servicePorts(s *corev1.Service) string {
	var out []string
	for _, p := range s.Spec.Ports {
		if p.NodePort > 0 {
			out = append(out, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			out = append(out, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	return joined(out, 0)
}

// Events of both groups are shown by the same columns.
var (
	eventColumns = []Column{
		column("Last Seen", "string", 0, func(e *corev1.Event, now time.Time) any { return eventSeen(e, now) }),
		text("Type", func(e *corev1.Event) string { return e.Type }),
		text("Reason", func(e *corev1.Event) string { return e.Reason }),
		text("Object", eventObject),
		wide("Subobject", func(e *corev1.Event) string { return e.InvolvedObject.FieldPath }),
		wide("Source", func(e *corev1.Event) string {
			component, host := orElse(e.Source.Component, e.ReportingController), orElse(e.Source.Host, e.ReportingInstance)
			return strings.TrimSuffix(component+", "+host, ", ")
		}),
		text("Message", func(e *corev1.Event) string { return strings.TrimSpace(e.Message) }),
		column("First Seen", "string", 1, func(e *corev1.Event, now time.Time) any {
			return Age(firstOf(e.FirstTimestamp, metav1.Time(e.EventTime)), now)
		}),
		column("Count", "string", 1, func(e *corev1.Event, _ time.Time) any { return strconv.Itoa(int(eventCount(e))) }),
		{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: "Name of the event", Cell: nameColumn.Cell},
	}
	eventsColumns = served(eventColumns, func(o Object) Object { return eventFromEvents(o.(*eventsv1.Event)) })
)

// served makes columns of one version work on another.
func served(of []Column, stored func(Object) Object) []Column {
	out := slices.Clone(of)
	for i := range out {
		cell := out[i].Cell
		out[i].Cell = func(o Object, now time.Time) any { return cell(stored(o), now) }
	}
	return out
}

func firstOf(a, b metav1.Time) metav1.Time {
	if a.IsZero() {
		return b
	}
	return a
}

func eventCount(e *corev1.Event) int32 {
	switch {
	case e.Series != nil:
		return e.Series.Count
	case e.Count > 0:
		return e.Count
	}
	return 1
}

func eventSeen(e *corev1.Event, now time.Time) string {
	last := firstOf(e.LastTimestamp, metav1.Time(e.EventTime))
	if e.Series != nil {
		last = metav1.Time(e.Series.LastObservedTime)
	}
	return Age(firstOf(last, firstOf(e.FirstTimestamp, e.CreationTimestamp)), now)
}

func eventObject(e *corev1.Event) string {
	return strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name
}

var podTemplateColumns = []Column{nameColumn,
	text("Containers", func(t *corev1.PodTemplate) string { return containerNames(&t.Template) }),
	text("Images", func(t *corev1.PodTemplate) string { return containerImages(&t.Template) }),
	text("Pod Labels", func(t *corev1.PodTemplate) string { return orNone(mapSelector(t.Template.Labels)) }),
}

var componentStatusColumns = []Column{nameColumn,
	text("Status", func(s *corev1.ComponentStatus) string { //nolint:staticcheck
		for _, c := range s.Conditions {
			if c.Type == corev1.ComponentHealthy {
				if c.Status == corev1.ConditionTrue {
					return "Healthy"
				}
				return "Unhealthy"
			}
		}
		return "Unknown"
	}),
	text("Message", func(s *corev1.ComponentStatus) string { return componentHealth(s).Message }),
	text("Error", func(s *corev1.ComponentStatus) string { return componentHealth(s).Error }),
}

func componentHealth(s *corev1.ComponentStatus) corev1.ComponentCondition { //nolint:staticcheck
	for _, c := range s.Conditions {
		if c.Type == corev1.ComponentHealthy {
			return c
		}
	}
	return corev1.ComponentCondition{}
}
