package api

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// PodGroupAPI is the group-version of Workload and PodGroup.
const PodGroupAPI = "scheduling.k8s.io/v1beta1"

// optional are the group-versions that are served only where somebody asks for them, as upstream's are that are beta, with their rows.
var optional = map[string]func() []*Resource{PodGroupAPI: podGroupRows}

// Optional lists the group-versions that NewTable can be asked for.
func Optional() []string { return slices.Sorted(maps.Keys(optional)) }

// ParseRuntimeConfig reads --runtime-config, whose entries say of a group-version whether it is served, into those that are to be served. No value means true.
func ParseRuntimeConfig(entries []string) (served []string, err error) {
	said := map[string]bool{}
	for _, entry := range entries {
		name, text, valued := strings.Cut(strings.TrimSpace(entry), "=")
		on := true
		if valued {
			if on, err = strconv.ParseBool(text); err != nil {
				return nil, fmt.Errorf("%q: %q is neither true nor false", entry, text)
			}
		}
		if optional[name] == nil {
			return nil, fmt.Errorf("%q cannot be switched; the group-versions that can be are %s", name, strings.Join(Optional(), ", "))
		}
		if before, twice := said[name]; twice && before != on {
			return nil, fmt.Errorf("%s is both on and off; give it once", name)
		}
		said[name] = on
	}
	for _, name := range Optional() {
		if said[name] {
			served = append(served, name)
		}
	}
	return served, nil
}

// podSpec is the spec of a pod, or of those that an object makes; nil if it makes none.
func podSpec(o Object) *corev1.PodSpec {
	switch o := o.(type) {
	case *corev1.Pod:
		return &o.Spec
	case *corev1.PodTemplate:
		return &o.Template.Spec
	case *corev1.ReplicationController:
		if o.Spec.Template != nil {
			return &o.Spec.Template.Spec
		}
	case *appsv1.ReplicaSet:
		return &o.Spec.Template.Spec
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec
	case *appsv1.StatefulSet:
		return &o.Spec.Template.Spec
	case *appsv1.DaemonSet:
		return &o.Spec.Template.Spec
	case *batchv1.Job:
		return &o.Spec.Template.Spec
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec
	}
	return nil
}

// withoutGroups has a row, of whatever kind, drop what pods say of their group, unless they said so before: nothing is there that would heed it.
func withoutGroups(r *Resource) {
	create, update := r.PrepareCreate, r.PrepareUpdate
	r.PrepareCreate = func(o Object) {
		if s := podSpec(o); s != nil {
			s.SchedulingGroup = nil
		}
		if create != nil {
			create(o)
		}
	}
	r.PrepareUpdate = func(o, old Object) {
		if s, was := podSpec(o), podSpec(old); s != nil && (was == nil || was.SchedulingGroup == nil) {
			s.SchedulingGroup = nil
		}
		if update != nil {
			update(o, old)
		}
	}
}
