package api

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const goodPodGroup = `
metadata: {name: g, namespace: default}
spec: {schedulingPolicy: {gang: {minCount: 3}}}
`

const goodWorkload = `
metadata: {name: w, namespace: default}
spec: {podGroupTemplates: [{name: workers, schedulingPolicy: {gang: {minCount: 3}}}]}
`

func TestPodGroupMessages(t *testing.T) {
	checkMessages(t, "scheduling.k8s.io/PodGroup", goodPodGroup, [][2]string{
		{"", ""},
		{"spec: {schedulingPolicy: {gang: null, basic: {}}}", ""},
		{"spec: {workloadRef: {workloadName: w, templateName: t}, priorityClassName: high, priority: 7}", ""},
		{"spec: {schedulingPolicy: {gang: null}}", "spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`"},
		{"spec: {schedulingPolicy: {basic: {}}}", "spec.schedulingPolicy: Invalid value: \"{basic, gang}\": must specify exactly one of: `basic`, `gang`"},
		{"spec: {schedulingPolicy: {gang: {minCount: 0}}}", "spec.schedulingPolicy.gang.minCount: Required value"},
		{"spec: {schedulingPolicy: {gang: {minCount: -1}}}", "spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"},
		{"spec: {workloadRef: {workloadName: w}}", "spec.workloadRef.templateName: Required value"},
		{"spec: {priority: 1000000001}", "spec.priority: Invalid value: 1000000001: must be less than or equal to 1000000000"},
		{"spec: {parentCompositePodGroupName: p, workloadRef: {workloadName: w, templateName: t}}",
			"spec.parentCompositePodGroupName: Forbidden: belongs to a feature that is not there"},
		{"spec: {schedulingConstraints: {topology: [{key: rack}]}}", "spec.schedulingConstraints: Forbidden: belongs to a feature that is not there"},
		{"spec: {preemptionPolicy: Never}", "spec.preemptionPolicy: Forbidden: belongs to a feature that is not there"},
		{"spec: {resourceClaims: [{name: gpu, resourceClaimName: c}]}",
			"spec.resourceClaims: Forbidden: claims that the pods of a group share are not supported; let each pod have its own"},
		{"spec: {disruptionMode: {all: {}}}", `spec.disruptionMode.all: Forbidden: groups that are disrupted as a whole are not supported; the mode is "single"`},
	})
	checkUpdateMessages(t, "scheduling.k8s.io/PodGroup", goodPodGroup, [][2]string{
		{"spec: {schedulingPolicy: {gang: {minCount: 5}}}", ""},
		{"metadata: {labels: {a: b}}", ""},
		{"spec: {schedulingPolicy: {gang: {minCount: 0}}}", "spec.schedulingPolicy.gang.minCount: Required value"},
		{"spec: {priority: 7}", "spec.priority: Invalid value: null: field is immutable"},
		{"spec: {workloadRef: {workloadName: w, templateName: t}}", "spec.workloadRef: Invalid value: null: field is immutable"},
		{"spec: {schedulingPolicy: {gang: null, basic: {}}}",
			"spec.schedulingPolicy.basic: Invalid value: null: field is immutable\nspec.schedulingPolicy.gang: Invalid value: null: field cannot be cleared once set"},
	})
}

func TestWorkloadMessages(t *testing.T) {
	template := func(s string) string {
		return "spec: {podGroupTemplates: [{name: workers, schedulingPolicy: {gang: {minCount: 3}}, " + s + "}]}"
	}
	checkMessages(t, "scheduling.k8s.io/Workload", goodWorkload, [][2]string{
		{"", ""},
		{"spec: {controllerRef: {apiGroup: batch, kind: Job, name: j}}", ""},
		{"spec: {controllerRef: {kind: Job}}", "spec.controllerRef.name: Required value"},
		{"spec: {podGroupTemplates: [{name: A, schedulingPolicy: {basic: {}}}]}", "spec.podGroupTemplates[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of " +
			"lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"},
		{"spec: {podGroupTemplates: [{name: a, schedulingPolicy: {basic: {}}}, {name: a, schedulingPolicy: {basic: {}}}]}", `spec.podGroupTemplates[1]: Duplicate value: {"name":"a","schedulingPolicy":{"basic":{}},"schedulingConstraints":null}`},
		{template("resourceClaims: [{name: gpu, resourceClaimName: c}]"),
			"spec.podGroupTemplates[0].resourceClaims: Forbidden: claims that the pods of a group share are not supported; let each pod have its own"},
		{template("disruptionMode: {all: {}}"), `spec.podGroupTemplates[0].disruptionMode.all: Forbidden: groups that are disrupted as a whole are not supported; the mode is "single"`},
		{template("schedulingConstraints: {topology: [{key: rack}]}"), "spec.podGroupTemplates[0].schedulingConstraints: Forbidden: belongs to a feature that is not there"},
	})
	checkUpdateMessages(t, "scheduling.k8s.io/Workload", goodWorkload, [][2]string{
		{"spec: {podGroupTemplates: [{name: workers, schedulingPolicy: {gang: {minCount: 4}}}]}", ""},
		{"spec: {controllerRef: {apiGroup: batch, kind: Job, name: j}}", "spec.controllerRef: Invalid value: null: field is immutable"},
	})
}

func TestPodGroupsOfPods(t *testing.T) {
	checkMessages(t, "Pod", goodPod, [][2]string{
		{"spec: {schedulingGroup: {podGroupName: g.1}}", ""},
		{"spec: {schedulingGroup: {}}", "spec.schedulingGroup.podGroupName: Required value"},
		{"spec: {schedulingGroup: {podGroupName: G}}", "spec.schedulingGroup.podGroupName: Invalid value: \"G\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, " +
			"'-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"},
	})
}

// Where groups are not served, nothing that is written says so of pods; what was written before stays.
func TestGroupsThatAreNotServed(t *testing.T) {
	without, with := NewTable(), NewTable(PodGroupAPI)
	if without.Serves(PodGroupAPI) || !with.Serves(PodGroupAPI) {
		t.Fatal("the group-version is served where nobody asked, or not where somebody did")
	}
	made := 0
	for _, r := range without.All() {
		grouped := func() (Object, *corev1.PodSpec) {
			o := r.New()
			if rc, is := o.(*corev1.ReplicationController); is {
				rc.Spec.Template = &corev1.PodTemplateSpec{}
			}
			s := podSpec(o)
			if s != nil {
				s.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: new("g")}
			}
			return o, s
		}
		o, s := grouped()
		if s == nil {
			continue
		}
		made++
		r.PrepareCreate(o)
		if s.SchedulingGroup != nil {
			t.Errorf("%s: created with a group", r.Kind)
		}
		now, s := grouped()
		r.PrepareUpdate(now, o)
		if s.SchedulingGroup != nil {
			t.Errorf("%s: a group came with an update", r.Kind)
		}
		now, s = grouped()
		was, _ := grouped()
		r.PrepareUpdate(now, was)
		if s.SchedulingGroup == nil {
			t.Errorf("%s: an update took a group away", r.Kind)
		}
	}
	if made != 9 {
		t.Errorf("%d kinds are pods or make them, want 9", made)
	}
	pods := with.ByKind(schema.GroupKind{Kind: "Pod"})
	p := &corev1.Pod{Spec: corev1.PodSpec{SchedulingGroup: &corev1.PodSchedulingGroup{PodGroupName: new("g")}}}
	if pods.PrepareCreate(p); PodGroupName(p) != "g" {
		t.Error("a pod lost its group though groups are served")
	}
}
