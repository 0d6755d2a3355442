package api

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/operation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Workloads and pod groups (KEP-4671, KEP-5832): what pods are to be scheduled together. The rules for their fields are those that are published with
// v1alpha3, whose types have the same fields under the same numbers. Groups of groups, constraints on where a group goes, claims that a
// group shares, and groups that preempt or are preempted as a whole belong to other features, and are refused.

// PodGroupName is the name of the group that a pod says it belongs to, "" for none.
func PodGroupName(p *corev1.Pod) string {
	if g := p.Spec.SchedulingGroup; g != nil {
		return value(g.PodGroupName)
	}
	return ""
}

func podGroupRows() []*Resource {
	const g, v = "scheduling.k8s.io", "v1beta1"
	return []*Resource{
		of[schedulingv1beta1.Workload, schedulingv1beta1.WorkloadList](Resource{Group: g, Version: v, Kind: "Workload", Plural: "workloads", Key: "workloads",
			Namespaced: true, Generation: true,
			Validate: func(o Object) field.ErrorList { return workloadSpec(o.(*schedulingv1beta1.Workload), nil) },
			ValidateUpdate: func(o, old Object) field.ErrorList {
				return workloadSpec(o.(*schedulingv1beta1.Workload), old.(*schedulingv1beta1.Workload))
			},
			Columns: columns(text("Controller", func(w *schedulingv1beta1.Workload) string {
				if r := w.Spec.ControllerRef; r != nil {
					return r.Kind + "/" + r.Name
				}
				return "<none>"
			}))}),
		of[schedulingv1beta1.PodGroup, schedulingv1beta1.PodGroupList](Resource{Group: g, Version: v, Kind: "PodGroup", Plural: "podgroups", Key: "podgroups",
			Namespaced: true, Generation: true, Status: true, StatusAlone: true, Default: defaultPodGroup,
			Validate: func(o Object) field.ErrorList { return podGroupSpec(o.(*schedulingv1beta1.PodGroup), nil) },
			ValidateUpdate: func(o, old Object) field.ErrorList {
				return podGroupSpec(o.(*schedulingv1beta1.PodGroup), old.(*schedulingv1beta1.PodGroup))
			},
			ValidateStatus: validatePodGroupStatus, Columns: podGroupColumns}),
	}
}

func defaultPodGroup(o Object) {
	fillNil(&o.(*schedulingv1beta1.PodGroup).Spec.DisruptionMode, schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}})
}

var podGroupColumns = columns(
	text("Policy", func(g *schedulingv1beta1.PodGroup) string {
		if g.Spec.SchedulingPolicy.Gang != nil {
			return "Gang"
		}
		return "Basic"
	}),
	text("Min-Count", func(g *schedulingv1beta1.PodGroup) string {
		if gang := g.Spec.SchedulingPolicy.Gang; gang != nil {
			return number(gang.MinCount)
		}
		return "<none>"
	}),
	text("Scheduled", func(g *schedulingv1beta1.PodGroup) string {
		for i := range g.Status.Conditions {
			if c := &g.Status.Conditions[i]; c.Type == schedulingv1beta1.PodGroupInitiallyScheduled {
				return string(c.Status)
			}
		}
		return "Unknown"
	}),
)

// changing is how the published rules are told of a create or an update. The features that they ask for are not there.
func changing(update bool) operation.Operation {
	op := operation.Operation{Type: operation.Create, Options: map[string]bool{"CompositePodGroup": false, "TopologyAwareWorkloadScheduling": false, "PodGroupPreemptionPolicy": false}}
	if update {
		op.Type = operation.Update
	}
	return op
}

// proto is what generated types have for their wire format.
type proto interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// respelled gives into, a type with the same fields, the contents of from.
func respelled[T proto](into T, from proto) (T, error) {
	raw, err := from.Marshal()
	if err == nil {
		err = into.Unmarshal(raw)
	}
	return into, err
}

// likeAlpha judges obj, and old if there is one, by a published rule for the same fields.
func likeAlpha[A any, PA interface {
	*A
	proto
}](rule func(ctx context.Context, op operation.Operation, p *field.Path, obj, old *A) field.ErrorList, p *field.Path, obj, old proto) field.ErrorList {
	now, err := respelled(PA(new(A)), obj)
	if err != nil {
		return field.ErrorList{field.InternalError(p, err)}
	}
	var was *A
	if old != nil {
		before, err := respelled(PA(new(A)), old)
		if err != nil {
			return field.ErrorList{field.InternalError(p, err)}
		}
		was = before
	}
	errs := rule(context.Background(), changing(old != nil), p, now, was)
	for _, e := range errs {
		if e.Type == field.ErrorTypeForbidden && e.Detail == "" {
			e.Detail = "belongs to a feature that is not there"
		}
	}
	return errs
}

func podGroupSpec(g, was *schedulingv1beta1.PodGroup) field.ErrorList {
	p := field.NewPath("spec")
	var old proto
	if was != nil {
		old = &was.Spec
	}
	errs := likeAlpha(schedulingv1alpha3.Validate_PodGroupSpec, p, &g.Spec, old)
	return append(errs, absent(g.Spec.ResourceClaims, g.Spec.DisruptionMode, p)...)
}

func workloadSpec(w, was *schedulingv1beta1.Workload) field.ErrorList {
	p := field.NewPath("spec")
	var old proto
	if was != nil {
		old = &was.Spec
	}
	errs := likeAlpha(schedulingv1alpha3.Validate_WorkloadSpec, p, &w.Spec, old)
	for i := range w.Spec.PodGroupTemplates {
		t := &w.Spec.PodGroupTemplates[i]
		errs = append(errs, absent(t.ResourceClaims, t.DisruptionMode, p.Child("podGroupTemplates").Index(i))...)
	}
	return errs
}

// absent refuses what nobody would heed.
func absent(claims []schedulingv1beta1.PodGroupResourceClaim, mode *schedulingv1beta1.DisruptionMode, p *field.Path) (errs field.ErrorList) {
	if len(claims) > 0 {
		errs = append(errs, field.Forbidden(p.Child("resourceClaims"), "claims that the pods of a group share are not supported; let each pod have its own"))
	}
	if mode != nil && mode.All != nil {
		errs = append(errs, field.Forbidden(p.Child("disruptionMode", "all"), fmt.Sprintf("groups that are disrupted as a whole are not supported; the mode is %q", "single")))
	}
	return errs
}

func validatePodGroupStatus(o, old Object) field.ErrorList {
	g, was := o.(*schedulingv1beta1.PodGroup), old.(*schedulingv1beta1.PodGroup)
	p := field.NewPath("status")
	return append(likeAlpha(schedulingv1alpha3.Validate_PodGroupStatus, p, &g.Status, &was.Status),
		metavalidation.ValidateConditions(g.Status.Conditions, p.Child("conditions"))...)
}
