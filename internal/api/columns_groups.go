package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

func containerNames(t *corev1.PodTemplateSpec) string {
	var out []string
	for i := range t.Spec.Containers {
		out = append(out, t.Spec.Containers[i].Name)
	}
	return strings.Join(out, ",")
}

func containerImages(t *corev1.PodTemplateSpec) string {
	var out []string
	for i := range t.Spec.Containers {
		out = append(out, t.Spec.Containers[i].Image)
	}
	return strings.Join(out, ",")
}

// templateColumns are what -o wide shows of every workload.
func templateColumns[T Object](get func(T) (*corev1.PodTemplateSpec, *metav1.LabelSelector)) []Column {
	return []Column{
		wide("Containers", func(o T) string { t, _ := get(o); return containerNames(t) }),
		wide("Images", func(o T) string { t, _ := get(o); return containerImages(t) }),
		wide("Selector", func(o T) string { _, s := get(o); return selectorText(s) }),
	}
}

var deploymentColumns = columnsThenWide([]Column{
	text("Ready", func(d *appsv1.Deployment) string {
		return fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, value(d.Spec.Replicas))
	}),
	count("Up-to-date", func(d *appsv1.Deployment) int32 { return d.Status.UpdatedReplicas }),
	count("Available", func(d *appsv1.Deployment) int32 { return d.Status.AvailableReplicas }),
}, templateColumns(func(d *appsv1.Deployment) (*corev1.PodTemplateSpec, *metav1.LabelSelector) {
	return &d.Spec.Template, d.Spec.Selector
})...)

var replicaSetColumns = columnsThenWide([]Column{
	count("Desired", func(r *appsv1.ReplicaSet) int32 { return value(r.Spec.Replicas) }),
	count("Current", func(r *appsv1.ReplicaSet) int32 { return r.Status.Replicas }),
	count("Ready", func(r *appsv1.ReplicaSet) int32 { return r.Status.ReadyReplicas }),
}, templateColumns(func(r *appsv1.ReplicaSet) (*corev1.PodTemplateSpec, *metav1.LabelSelector) {
	return &r.Spec.Template, r.Spec.Selector
})...)

var statefulSetColumns = columnsThenWide([]Column{
	text("Ready", func(s *appsv1.StatefulSet) string {
		return fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, value(s.Spec.Replicas))
	}),
},
	wide("Containers", func(s *appsv1.StatefulSet) string { return containerNames(&s.Spec.Template) }),
	wide("Images", func(s *appsv1.StatefulSet) string { return containerImages(&s.Spec.Template) }),
)

var daemonSetColumns = columnsThenWide([]Column{
	count("Desired", func(d *appsv1.DaemonSet) int32 { return d.Status.DesiredNumberScheduled }),
	count("Current", func(d *appsv1.DaemonSet) int32 { return d.Status.CurrentNumberScheduled }),
	count("Ready", func(d *appsv1.DaemonSet) int32 { return d.Status.NumberReady }),
	count("Up-to-date", func(d *appsv1.DaemonSet) int32 { return d.Status.UpdatedNumberScheduled }),
	count("Available", func(d *appsv1.DaemonSet) int32 { return d.Status.NumberAvailable }),
	text("Node Selector", func(d *appsv1.DaemonSet) string { return orNone(mapSelector(d.Spec.Template.Spec.NodeSelector)) }),
}, templateColumns(func(d *appsv1.DaemonSet) (*corev1.PodTemplateSpec, *metav1.LabelSelector) {
	return &d.Spec.Template, d.Spec.Selector
})...)

var controllerRevisionColumns = columns(
	text("Controller", func(r *appsv1.ControllerRevision) string {
		owner := metav1.GetControllerOf(r)
		if owner == nil {
			return "<none>"
		}
		group, _, grouped := strings.Cut(owner.APIVersion, "/")
		if !grouped {
			return strings.ToLower(owner.Kind) + "/" + owner.Name
		}
		return strings.ToLower(owner.Kind) + "." + group + "/" + owner.Name
	}),
	count("Revision", func(r *appsv1.ControllerRevision) int64 { return r.Revision }),
)

var jobColumns = columnsThenWide([]Column{
	text("Status", jobStatus),
	text("Completions", func(j *batchv1.Job) string {
		switch {
		case j.Spec.Completions != nil:
			return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
		case value(j.Spec.Parallelism) > 1:
			return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, *j.Spec.Parallelism)
		}
		return fmt.Sprintf("%d/1", j.Status.Succeeded)
	}),
	column("Duration", "string", 0, func(j *batchv1.Job, now time.Time) any {
		switch {
		case j.Status.StartTime == nil:
			return ""
		case j.Status.CompletionTime != nil:
			now = j.Status.CompletionTime.Time
		}
		return duration.HumanDuration(now.Sub(j.Status.StartTime.Time))
	}),
}, templateColumns(func(j *batchv1.Job) (*corev1.PodTemplateSpec, *metav1.LabelSelector) {
	return &j.Spec.Template, j.Spec.Selector
})...)

func jobStatus(j *batchv1.Job) string {
	is := func(kind batchv1.JobConditionType) bool {
		return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == kind && c.Status == corev1.ConditionTrue })
	}
	switch {
	case is(batchv1.JobComplete):
		return "Complete"
	case is(batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case is(batchv1.JobSuspended):
		return "Suspended"
	case is(batchv1.JobFailureTarget):
		return "FailureTarget"
	case is(batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

var cronJobColumns = columnsThenWide([]Column{
	text("Schedule", func(c *batchv1.CronJob) string { return c.Spec.Schedule }),
	text("Timezone", func(c *batchv1.CronJob) string { return orNone(value(c.Spec.TimeZone)) }),
	text("Suspend", func(c *batchv1.CronJob) string {
		if c.Spec.Suspend == nil {
			return "<unset>"
		}
		if *c.Spec.Suspend {
			return "True"
		}
		return "False"
	}),
	count("Active", func(c *batchv1.CronJob) int { return len(c.Status.Active) }),
	column("Last Schedule", "string", 0, func(c *batchv1.CronJob, now time.Time) any {
		if c.Status.LastScheduleTime == nil {
			return "<none>"
		}
		return Age(*c.Status.LastScheduleTime, now)
	}),
},
	wide("Containers", func(c *batchv1.CronJob) string { return containerNames(&c.Spec.JobTemplate.Spec.Template) }),
	wide("Images", func(c *batchv1.CronJob) string { return containerImages(&c.Spec.JobTemplate.Spec.Template) }),
	wide("Selector", func(c *batchv1.CronJob) string { return selectorText(c.Spec.JobTemplate.Spec.Selector) }),
)

var disruptionBudgetColumns = columns(
	text("Min Available", func(b *policyv1.PodDisruptionBudget) string {
		if b.Spec.MinAvailable == nil {
			return "N/A"
		}
		return b.Spec.MinAvailable.String()
	}),
	text("Max Unavailable", func(b *policyv1.PodDisruptionBudget) string {
		if b.Spec.MaxUnavailable == nil {
			return "N/A"
		}
		return b.Spec.MaxUnavailable.String()
	}),
	count("Allowed Disruptions", func(b *policyv1.PodDisruptionBudget) int32 { return b.Status.DisruptionsAllowed }),
)

var roleBindingColumns = columnsThenWide([]Column{
	column("Role", "string", 0, func(o Object, _ time.Time) any {
		ref, _ := bindingParts(o)
		return ref.Kind + "/" + ref.Name
	}),
},
	bindingSubjects("Users", rbacv1.UserKind), bindingSubjects("Groups", rbacv1.GroupKind), bindingSubjects("ServiceAccounts", rbacv1.ServiceAccountKind))

// bindingParts reads a RoleBinding or a ClusterRoleBinding.
func bindingParts(o Object) (rbacv1.RoleRef, []rbacv1.Subject) {
	if b, ok := o.(*rbacv1.RoleBinding); ok {
		return b.RoleRef, b.Subjects
	}
	b := o.(*rbacv1.ClusterRoleBinding)
	return b.RoleRef, b.Subjects
}

func bindingSubjects(name, kind string) Column {
	return wide(name, func(o Object) string {
		_, subjects := bindingParts(o)
		var out []string
		for _, s := range subjects {
			switch {
			case s.Kind != kind:
			case kind == rbacv1.ServiceAccountKind:
				out = append(out, s.Namespace+"/"+s.Name)
			default:
				out = append(out, s.Name)
			}
		}
		return strings.Join(out, ", ")
	})
}

var networkPolicyColumns = columns(text("Pod-Selector", func(p *networkingv1.NetworkPolicy) string { return selectorText(&p.Spec.PodSelector) }))

var ingressColumns = columns(
	text("Class", func(i *networkingv1.Ingress) string {
		return orNone(orElse(value(i.Spec.IngressClassName), i.Annotations[ingressClassAnnotation]))
	}),
	text("Hosts", func(i *networkingv1.Ingress) string {
		var hosts []string
		for _, r := range i.Spec.Rules {
			if r.Host != "" {
				hosts = append(hosts, r.Host)
			}
		}
		if len(hosts) == 0 {
			return "*"
		}
		return joined(hosts, 3)
	}),
	text("Address", func(i *networkingv1.Ingress) string {
		var out []string
		for _, a := range i.Status.LoadBalancer.Ingress {
			out = append(out, orElse(a.IP, a.Hostname))
		}
		return strings.Join(out, ",")
	}),
	text("Ports", func(i *networkingv1.Ingress) string {
		if len(i.Spec.TLS) > 0 {
			return "80, 443"
		}
		return "80"
	}),
)

var ingressClassColumns = columns(
	text("Controller", func(c *networkingv1.IngressClass) string { return c.Spec.Controller }),
	text("Parameters", func(c *networkingv1.IngressClass) string {
		if c.Spec.Parameters == nil {
			return "<none>"
		}
		group := ""
		if c.Spec.Parameters.APIGroup != nil {
			group = "." + *c.Spec.Parameters.APIGroup
		}
		return c.Spec.Parameters.Kind + group + "/" + c.Spec.Parameters.Name
	}),
)

var endpointSliceColumns = columns(
	text("AddressType", func(s *discoveryv1.EndpointSlice) string { return string(s.AddressType) }),
	text("Ports", func(s *discoveryv1.EndpointSlice) string {
		var out []string
		for _, p := range s.Ports {
			switch {
			case p.Port != nil:
				out = append(out, strconv.Itoa(int(*p.Port)))
			default:
				out = append(out, "*")
			}
		}
		return orElse(moreThan(out, 3), "<unset>")
	}),
	text("Endpoints", func(s *discoveryv1.EndpointSlice) string {
		var out []string
		for _, e := range s.Endpoints {
			if len(e.Addresses) > 0 {
				out = append(out, e.Addresses[0])
			}
		}
		return orElse(moreThan(out, 3), "<unset>")
	}),
)

func moreThan(parts []string, few int) string {
	if len(parts) == 0 {
		return ""
	}
	return joined(parts, few)
}

var priorityClassColumns = columns(
	count("Value", func(p *schedulingv1.PriorityClass) int32 { return p.Value }),
	column("Global-Default", "boolean", 0, func(p *schedulingv1.PriorityClass, _ time.Time) any { return p.GlobalDefault }),
	text("PreemptionPolicy", func(p *schedulingv1.PriorityClass) string { return string(value(p.PreemptionPolicy)) }),
)

var leaseColumns = columns(text("Holder", func(l *coordinationv1.Lease) string { return value(l.Spec.HolderIdentity) }))
