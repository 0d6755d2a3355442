package statefulset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/controller/history"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

type change func(s *appsv1.StatefulSet)

func set(n int32, changes ...change) *appsv1.StatefulSet {
	s := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db", UID: "set", Generation: 3},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
		},
	}
	for _, c := range changes {
		c(s)
	}
	return s
}

func parallel(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }

func onDelete(s *appsv1.StatefulSet) {
	s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
}

func roll(below int32, unavailable int) change {
	return func(s *appsv1.StatefulSet) {
		n := intstr.FromInt(unavailable)
		s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &below, MaxUnavailable: &n}
	}
}

func from(n int32) change {
	return func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: n} }
}

func withClaims(deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType) change {
	return func(s *appsv1.StatefulSet) {
		s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: deleted, WhenScaled: scaled}
	}
}

func revision(t *testing.T, name string) *appsv1.ControllerRevision {
	patch, err := history.Patch(&corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: name}}}})
	if err != nil {
		t.Fatal(err)
	}
	return &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: runtime.RawExtension{Raw: patch}}
}

// pods are told as "0 old up", one a comma: an ordinal, a revision and a state.
func pods(s *appsv1.StatefulSet, told string) []*corev1.Pod {
	var list []*corev1.Pod
	for one := range strings.SplitSeq(told, ",") {
		parts := strings.Fields(one)
		if len(parts) == 0 {
			continue
		}
		var ordinal int
		_, _ = fmt.Sscan(parts[0], &ordinal)
		p := newPod(s, &corev1.PodTemplateSpec{}, parts[1], ordinal)
		p.UID = types.UID("pod-" + parts[0])
		p.Status.Phase = corev1.PodRunning
		ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon.Add(-10 * time.Second))}
		switch parts[2] {
		case "up":
			p.Status.Conditions = []corev1.PodCondition{ready}
		case "unready":
		case "pending":
			p.Status.Phase = corev1.PodPending
		case "failed":
			p.Status.Phase = corev1.PodFailed
		case "ending":
			p.Status.Conditions = []corev1.PodCondition{ready}
			p.DeletionTimestamp = &metav1.Time{Time: noon}
		}
		list = append(list, p)
	}
	return list
}

func describe(p plan) string {
	var parts []string
	say := func(what string, pods []*corev1.Pod) {
		for _, pod := range pods {
			text := what + " " + strings.TrimPrefix(pod.Name, "db-")
			if what == "create" {
				text += " " + pod.Spec.Containers[0].Image
			}
			parts = append(parts, text)
		}
	}
	say("recreate", p.recreate)
	say("create", p.create)
	say("relabel", p.relabel)
	say("remove", p.remove)
	return strings.Join(parts, ", ")
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name, pods, want string
		set              *appsv1.StatefulSet
	}{
		{name: "the first pod", set: set(3), want: "create 0 new"},
		{name: "the next waits", set: set(3), pods: "0 new pending"},
		{name: "the next comes", set: set(3), pods: "0 new up", want: "create 1 new"},
		{name: "not available for long enough", set: set(3, func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = 30 }), pods: "0 new up"},
		{name: "all there", set: set(2), pods: "0 new up, 1 new up"},
		{name: "a hole is filled before the set grows", set: set(3), pods: "0 new up, 2 new up", want: "create 1 new"},
		{name: "all at once", set: set(3, parallel), want: "create 0 new, create 1 new, create 2 new"},
		{name: "ordinals start at five", set: set(2, from(5)), pods: "5 new up", want: "create 6 new"},
		{name: "moved ordinals: the wanted first, then the others from the top", set: set(2, from(1)), pods: "0 new up, 1 new up, 2 new up", want: "remove 0"},
		{name: "scale down from the top, one at a time", set: set(1), pods: "0 new up, 1 new up, 2 new up", want: "remove 2"},
		{name: "scale down waits for what is going", set: set(1), pods: "0 new up, 1 new up, 2 new ending"},
		{name: "scale down waits while another is broken", set: set(1), pods: "0 new unready, 1 new up"},
		{name: "scale down past a broken one", set: set(1), pods: "0 new up, 1 new up, 2 new unready", want: "remove 2"},
		{name: "but not past two", set: set(1), pods: "0 new up, 1 new unready, 2 new unready"},
		{name: "scale down at once", set: set(0, parallel), pods: "0 new unready, 1 new up", want: "remove 1, remove 0"},
		{name: "an ended pod is made anew", set: set(2), pods: "0 new failed, 1 new up", want: "recreate 0"},
		{name: "update from the top", set: set(3), pods: "0 old up, 1 old up, 2 old up", want: "remove 2"},
		{name: "update waits", set: set(3), pods: "0 old up, 1 old up, 2 new unready"},
		{name: "the next of the update", set: set(3), pods: "0 old up, 1 old up, 2 new up", want: "remove 1"},
		{name: "a broken rollout stays broken: somebody must delete the pod", set: set(3), pods: "0 old up, 1 old up, 2 older unready"},
		{name: "in parallel it heals", set: set(3, parallel), pods: "0 old up, 1 old up, 2 older unready", want: "remove 2"},
		{name: "two at once", set: set(4, parallel, roll(0, 2)), pods: "0 old up, 1 old up, 2 old up, 3 old up", want: "remove 3, remove 2"},
		{name: "one is out already", set: set(4, parallel, roll(0, 2)), pods: "0 old up, 1 old up, 2 old up, 3 new unready", want: "remove 2"},
		{name: "partition", set: set(3, roll(2, 1)), pods: "0 old up, 1 old up, 2 old up", want: "remove 2"},
		{name: "below the partition nothing", set: set(3, roll(2, 1)), pods: "0 old up, 1 old up, 2 new up"},
		{name: "below the partition the old comes back", set: set(3, roll(2, 1)), pods: "0 old up, 2 new up", want: "create 1 old"},
		{name: "on delete nothing", set: set(3, onDelete), pods: "0 old up, 1 old up, 2 old up"},
		{name: "on delete the new comes", set: set(3, onDelete), pods: "0 old up, 1 old up", want: "create 2 new"},
		{name: "being deleted: hands off", set: set(3, func(s *appsv1.StatefulSet) { s.DeletionTimestamp = &metav1.Time{Time: noon} }), pods: "0 old up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := decide(observed{set: tt.set, pods: pods(tt.set, tt.pods), current: revision(t, "old"), update: revision(t, "new"), now: noon})
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(p); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	s := set(4, func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = 30 })
	p, err := decide(observed{set: s, pods: pods(s, "0 old up, 1 old ending, 2 new unready"), current: revision(t, "old"), update: revision(t, "new"), collisions: 2, now: noon})
	if err != nil {
		t.Fatal(err)
	}
	got := p.status
	if got.Replicas != 3 || got.ReadyReplicas != 2 || got.AvailableReplicas != 0 || got.CurrentReplicas != 1 || got.UpdatedReplicas != 1 ||
		got.CurrentRevision != "old" || got.UpdateRevision != "new" || *got.CollisionCount != 2 || got.ObservedGeneration != 3 || p.after != 20*time.Second {
		t.Errorf("status %+v, again after %s", got, p.after)
	}
	s = set(2)
	if p, err = decide(observed{set: s, pods: pods(s, "0 new up, 1 new up"), current: revision(t, "old"), update: revision(t, "new"), now: noon}); err != nil {
		t.Fatal(err)
	}
	if p.status.CurrentRevision != "new" || p.status.CurrentReplicas != 2 {
		t.Errorf("after the rollout: %+v", p.status)
	}
}

func TestNewPod(t *testing.T) {
	s := set(1, from(3), withClaims("Retain", "Retain"))
	s.Spec.ServiceName = "dbs"
	p, err := decide(observed{set: s, current: revision(t, "old"), update: revision(t, "new"), now: noon})
	if err != nil || len(p.create) != 1 {
		t.Fatalf("%d pods, %v", len(p.create), err)
	}
	pod := p.create[0]
	for key, want := range map[string]string{"statefulset.kubernetes.io/pod-name": "db-3", "apps.kubernetes.io/pod-index": "3", "controller-revision-hash": "new", "app": "db"} {
		if pod.Labels[key] != want {
			t.Errorf("label %s is %q, want %q", key, pod.Labels[key], want)
		}
	}
	if pod.Spec.Hostname != "db-3" || pod.Spec.Subdomain != "dbs" || pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-db-3" || pod.OwnerReferences[0].UID != "set" {
		t.Errorf("pod %+v", pod)
	}
	if claims := claimsOf(s, pod); len(claims) != 1 || claims[0].Name != "data-db-3" || claims[0].Labels["app"] != "db" || len(claims[0].OwnerReferences) != 0 {
		t.Errorf("claims %+v", claims)
	}
}

func TestRetention(t *testing.T) {
	const retain, remove = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	for _, tt := range []struct {
		deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType
		want            string // who owns the claims of the pods that stay and of the one that is too many
	}{
		{retain, retain, "  "}, {remove, retain, "set set"}, {retain, remove, " pod-1"}, {remove, remove, "set pod-1"},
	} {
		s := set(1, withClaims(tt.deleted, tt.scaled))
		claims := map[string]*corev1.PersistentVolumeClaim{}
		for _, name := range []string{"data-db-0", "data-db-1"} {
			claims[name] = &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
		}
		p, err := decide(observed{set: s, pods: pods(s, "0 new up, 1 new up"), claims: claims, current: revision(t, "new"), update: revision(t, "new"), now: noon})
		if err != nil {
			t.Fatal(err)
		}
		owners := map[string]string{}
		for _, c := range p.claims {
			owners[c.Name] = string(c.OwnerReferences[0].UID)
		}
		if got := owners["data-db-0"] + " " + owners["data-db-1"]; strings.TrimRight(got, " ") != strings.TrimRight(tt.want, " ") {
			t.Errorf("%s, %s: %q, want %q", tt.deleted, tt.scaled, got, tt.want)
		}
	}
	// A set that lost its mark as the controller gets it back, beside other owners.
	marked := set(1, withClaims(remove, retain))
	other := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "other"}
	unmarked := *metav1.NewControllerRef(marked, gvk)
	unmarked.Controller = nil
	owned := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-db-0", OwnerReferences: []metav1.OwnerReference{unmarked, other}}}
	marks, err := decide(observed{set: marked, pods: pods(marked, "0 new up"), claims: map[string]*corev1.PersistentVolumeClaim{"data-db-0": owned}, current: revision(t, "new"), update: revision(t, "new"), now: noon})
	if err != nil || len(marks.claims) != 1 || len(marks.claims[0].OwnerReferences) != 2 || !metav1.IsControlledBy(marks.claims[0], marked) {
		t.Errorf("%+v, %v", marks.claims, err)
	}
	// A claim that is going with the former pod of a name is waited for.
	s := set(1, withClaims(retain, remove))
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data-db-0", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "db-0", UID: "former"}}}}
	p, err := decide(observed{set: s, claims: map[string]*corev1.PersistentVolumeClaim{"data-db-0": claim}, current: revision(t, "new"), update: revision(t, "new"), now: noon})
	if err != nil || len(p.create) != 0 {
		t.Errorf("%q, %v", describe(p), err)
	}
}
