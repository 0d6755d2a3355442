package quota

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestUncovered(t *testing.T) {
	scope := func(name corev1.ResourceQuotaScope, operator corev1.ScopeSelectorOperator, values ...string) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: name, Operator: operator, Values: values}
	}
	critical := scope("PriorityClass", "In", "critical", "vital")
	l := Limited{
		{Resource: "pods", MatchContains: []string{"cpu", "requests."}, MatchScopes: []corev1.ScopedResourceSelectorRequirement{critical, scope("CrossNamespacePodAffinity", "Exists")}},
		{Resource: "persistentvolumeclaims", MatchContains: []string{".storageclass.storage.k8s.io/requests.storage"}, MatchScopes: []corev1.ScopedResourceSelectorRequirement{scope("VolumeAttributesClass", "In", "gold")}},
		{APIGroup: "apps", Resource: "deployments", MatchContains: []string{"count/deployments.apps"}},
		{APIGroup: "", Resource: "deployments", MatchContains: []string{""}}, // of another group
	}
	pod := func(class string, affinity *corev1.Affinity) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: class, Affinity: affinity}}
	}
	across := &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{Namespaces: []string{"b"}}}}}
	gold := "gold"
	amounts := func(names ...string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for _, name := range names {
			out[corev1.ResourceName(name)] = resource.MustParse("1")
		}
		return out
	}
	limit := func(scopes []corev1.ScopedResourceSelectorRequirement, names ...string) *corev1.ResourceQuota {
		q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: amounts(names...)}}
		if scopes != nil {
			q.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: scopes}
		}
		return q
	}
	only := func(s ...corev1.ScopedResourceSelectorRequirement) []corev1.ScopedResourceSelectorRequirement {
		return s
	}
	none := amounts("pods")
	none["cpu"] = resource.MustParse("0")
	for _, c := range []struct {
		name, group, resource string
		obj                   any
		usage                 corev1.ResourceList
		quotas                []*corev1.ResourceQuota
		want                  string
	}{
		{"what is not listed", "", "pods", pod("", nil), amounts("pods", "memory"), nil, ""},
		{"nothing of what is listed", "", "pods", pod("", nil), none, nil, ""},
		{"by parts of names", "", "pods", pod("", nil), amounts("requests.cpu", "cpu", "memory", "requests.memory"), nil, "insufficient quota to consume: cpu,requests.cpu,requests.memory"},
		{"some covered", "", "pods", pod("", nil), amounts("requests.cpu", "cpu"), []*corev1.ResourceQuota{limit(nil, "cpu", "pods")}, "insufficient quota to consume: requests.cpu"},
		{"all covered, by two", "", "pods", pod("", nil), amounts("requests.cpu", "cpu"), []*corev1.ResourceQuota{limit(nil, "cpu"), limit(nil, "requests.cpu")}, ""},
		{"covered for others", "", "pods", pod("", nil), amounts("cpu"), []*corev1.ResourceQuota{limit(only(critical), "cpu")}, "insufficient quota to consume: cpu"},
		{"another resource", "", "services", &corev1.Service{}, amounts("cpu"), nil, ""},
		{"a group", "apps", "deployments", struct{}{}, amounts("count/deployments.apps"), nil, "insufficient quota to consume: count/deployments.apps"},
		{"a class", "", "pods", pod("critical", nil), amounts("pods"), nil, "insufficient quota to match these scopes: [{PriorityClass In [critical vital]}]"},
		{"another class", "", "pods", pod("low", nil), amounts("pods"), nil, ""},
		{"a class that a quota selects", "", "pods", pod("critical", nil), amounts("pods"), []*corev1.ResourceQuota{limit(only(scope("PriorityClass", "In", "critical")), "pods")}, ""},
		{"a class that quotas select others by", "", "pods", pod("critical", nil), amounts("pods"), []*corev1.ResourceQuota{limit(only(scope("PriorityClass", "In", "low")), "pods"), limit(nil, "pods")},
			"insufficient quota to match these scopes: [{PriorityClass In [critical vital]}]"},
		{"two scopes", "", "pods", pod("vital", across), amounts("pods"), []*corev1.ResourceQuota{limit(only(scope("NotTerminating", "Exists")), "pods")},
			"insufficient quota to match these scopes: [{PriorityClass In [critical vital]} {CrossNamespacePodAffinity Exists []}]"},
		{"one of two scopes", "", "pods", pod("vital", across), amounts("pods"), []*corev1.ResourceQuota{limit(only(scope("PriorityClass", "Exists")), "pods")},
			"insufficient quota to match these scopes: [{CrossNamespacePodAffinity Exists []}]"},
		{"storage of a class", "", "persistentvolumeclaims", &corev1.PersistentVolumeClaim{}, amounts("fast.storageclass.storage.k8s.io/requests.storage", "requests.storage"), []*corev1.ResourceQuota{limit(nil, "requests.storage")},
			"insufficient quota to consume: fast.storageclass.storage.k8s.io/requests.storage"},
		{"an attributes class", "", "persistentvolumeclaims", &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: &gold}}, amounts("persistentvolumeclaims"), nil,
			"insufficient quota to match these scopes: [{VolumeAttributesClass In [gold]}]"},
	} {
		if got := l.Uncovered(schema.GroupResource{Group: c.group, Resource: c.resource}, c.obj, c.usage, c.quotas); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := (Limited(nil)).Uncovered(schema.GroupResource{Resource: "pods"}, pod("critical", across), amounts("cpu"), nil); got != "" {
		t.Errorf("nothing is limited: %q", got)
	}
}
