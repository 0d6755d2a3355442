package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// web is a Deployment of n replicas whose template has the image of this version.
func web(n int32, version, surge, unavailable string) *appsv1.Deployment {
	deadline, history := int32(600), int32(10)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "d", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, ProgressDeadlineSeconds: &deadline, RevisionHistoryLimit: &history,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web:" + version}}},
			},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
		},
	}
	if surge != "" {
		s, u := intstr.Parse(surge), intstr.Parse(unavailable)
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u}}
	}
	return d
}

// rs is a ReplicaSet of version: replicas wanted, and of those available.
func rs(version string, age int, replicas, available int32, annotations ...string) *appsv1.ReplicaSet {
	like := web(1, version, "", "")
	s := newReplicaSet(like)
	s.Name, s.UID = "web-"+version, types.UID(version)
	s.CreationTimestamp = metav1.NewTime(start.Add(-time.Duration(age) * time.Hour))
	s.Spec.Replicas = &replicas
	s.Status = appsv1.ReplicaSetStatus{Replicas: replicas, ReadyReplicas: available, AvailableReplicas: available}
	s.Annotations = map[string]string{}
	for _, a := range annotations {
		key, value, _ := strings.Cut(a, "=")
		s.Annotations["deployment.kubernetes.io/"+key] = value
	}
	return s
}

// describe is a plan in one line.
func describe(p plan) string {
	var parts []string
	if p.create != nil {
		parts = append(parts, fmt.Sprintf("create %d", *p.create.Spec.Replicas))
	}
	for _, c := range p.changes {
		if count(c.Spec.Replicas) != c.replicas {
			parts = append(parts, fmt.Sprintf("%s %d->%d", strings.TrimPrefix(c.Name, "web-"), *c.Spec.Replicas, c.replicas))
		}
	}
	for _, r := range p.remove {
		parts = append(parts, "remove "+strings.TrimPrefix(r.Name, "web-"))
	}
	return strings.Join(parts, ", ")
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name    string
		d       *appsv1.Deployment
		sets    []*appsv1.ReplicaSet
		running map[types.UID]int
		change  func(d *appsv1.Deployment)
		want    string
	}{
		{name: "first rollout", d: web(3, "1", "25%", "25%"), want: "create 3"},
		{name: "recreate, first", d: web(3, "1", "", ""), want: "create 3"},
		{name: "settled", d: web(3, "1", "25%", "25%"), sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3", "max-replicas=4")}},
		{name: "update: surge one, nothing may be missing of three at 25 %", d: web(3, "2", "25%", "25%"),
			sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3")}, want: "create 1"},
		{name: "update of ten: three more, two fewer", d: web(10, "2", "25%", "25%"),
			sets: []*appsv1.ReplicaSet{rs("1", 1, 10, 10, "desired-replicas=10")}, want: "create 3, 1 10->8"},
		{name: "no surge", d: web(4, "2", "0", "1"), sets: []*appsv1.ReplicaSet{rs("1", 1, 4, 4, "desired-replicas=4")}, want: "create 0, 1 4->3"},
		{name: "both zero still moves", d: web(4, "2", "0", "0"), sets: []*appsv1.ReplicaSet{rs("1", 1, 4, 4, "desired-replicas=4")}, want: "create 0, 1 4->3"},
		{name: "the new one is not available yet: wait", d: web(3, "2", "1", "0"),
			sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3"), rs("2", 0, 1, 0, "desired-replicas=3")}},
		{name: "the new one is available: one old goes, and its place is taken in the next pass", d: web(3, "2", "1", "0"),
			sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3"), rs("2", 0, 1, 1, "desired-replicas=3")}, want: "1 3->2"},
		{name: "old pods that don't serve go first", d: web(4, "3", "1", "1"),
			sets: []*appsv1.ReplicaSet{rs("1", 3, 2, 2, "desired-replicas=4"), rs("2", 2, 2, 0, "desired-replicas=4"), rs("3", 1, 1, 1, "desired-replicas=4")},
			want: "2 2->0"},
		{name: "rollback finds the old set", d: web(3, "1", "1", "0"),
			sets: []*appsv1.ReplicaSet{rs("1", 2, 0, 0, "revision=1", "desired-replicas=3"), rs("2", 1, 3, 3, "revision=2", "desired-replicas=3")}, want: "1 0->1"},
		{name: "scaled up in peace", d: web(5, "1", "25%", "25%"), sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3", "max-replicas=4")}, want: "1 3->5"},
		{name: "scaled to zero", d: web(0, "1", "25%", "25%"), sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3", "max-replicas=4")}, want: "1 3->0"},
		{name: "scaled in the middle of a rollout: in proportion", d: web(20, "2", "3", "2"),
			sets: []*appsv1.ReplicaSet{rs("1", 1, 8, 8, "desired-replicas=10", "max-replicas=13"), rs("2", 0, 5, 0, "desired-replicas=10", "max-replicas=13")},
			want: "2 5->9, 1 8->14"},
		{name: "scaled down in the middle: in proportion", d: web(5, "2", "3", "2"),
			sets: []*appsv1.ReplicaSet{rs("1", 1, 8, 8, "desired-replicas=10", "max-replicas=13"), rs("2", 0, 5, 0, "desired-replicas=10", "max-replicas=13")},
			want: "2 5->3, 1 8->5"},
		{name: "paused: scales, rolls nothing out", d: web(5, "2", "25%", "25%"), change: func(d *appsv1.Deployment) { d.Spec.Paused = true },
			sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3", "max-replicas=4")}, want: "1 3->5"},
		{name: "being deleted: hands off", d: web(5, "2", "25%", "25%"), change: func(d *appsv1.Deployment) { d.DeletionTimestamp = &metav1.Time{Time: start} },
			sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3", "max-replicas=4")}},
		{name: "recreate: all old first", d: web(3, "2", "", ""), sets: []*appsv1.ReplicaSet{rs("1", 1, 3, 3, "desired-replicas=3")}, want: "1 3->0"},
		{name: "recreate: old pods still end", d: web(3, "2", "", ""), sets: []*appsv1.ReplicaSet{rs("1", 1, 0, 0, "desired-replicas=3")}, running: map[types.UID]int{"1": 1}},
		{name: "recreate: all gone", d: web(3, "2", "", ""), sets: []*appsv1.ReplicaSet{rs("1", 1, 0, 0, "desired-replicas=3")}, want: "create 3"},
		{name: "history limit", d: web(1, "4", "1", "0"), change: func(d *appsv1.Deployment) { *d.Spec.RevisionHistoryLimit = 1 },
			sets: []*appsv1.ReplicaSet{rs("1", 4, 0, 0, "revision=1"), rs("2", 3, 0, 0, "revision=5"), rs("3", 2, 0, 0, "revision=3"), rs("4", 1, 1, 1, "revision=6", "desired-replicas=1")},
			want: "remove 1, remove 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change != nil {
				tt.change(tt.d)
			}
			if got := describe(decide(observed{deployment: tt.d, sets: tt.sets, running: tt.running, now: start})); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestRevisions(t *testing.T) {
	d := web(3, "1", "1", "0")
	d.Annotations = map[string]string{"kubernetes.io/change-cause": "back", revisionAnnotation: "2", corev1.LastAppliedConfigAnnotation: "x"}
	old := rs("1", 2, 0, 0, "revision=1", "desired-replicas=3")
	p := decide(observed{deployment: d, sets: []*appsv1.ReplicaSet{old, rs("2", 1, 3, 3, "revision=2", "desired-replicas=3")}, now: start})
	if p.revision != "3" {
		t.Errorf("revision %q, want 3", p.revision)
	}
	got := p.changes[0].annotations
	want := map[string]string{revisionAnnotation: "3", historyAnnotation: "1", "kubernetes.io/change-cause": "back", desiredAnnotation: "3", maxAnnotation: "4"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("annotations %v\nwant %v", got, want)
	}
	if old.Annotations[revisionAnnotation] != "1" {
		t.Error("the observed object was changed")
	}
}

func TestAppendHistory(t *testing.T) {
	if got := appendHistory("1,2", "3"); got != "1,2,3" {
		t.Error(got)
	}
	if got := appendHistory(strings.Repeat("7", 1500)+",5", strings.Repeat("8", 600)); got != "5,"+strings.Repeat("8", 600) {
		t.Error(len(got))
	}
}

func TestTemplateHashIsStable(t *testing.T) {
	template := &corev1.PodTemplateSpec{}
	one, collision := templateHash(template, nil), templateHash(template, new(int32))
	if one == collision || len(one) < 5 {
		t.Errorf("%q, %q", one, collision)
	}
	if again := templateHash(template.DeepCopy(), nil); again != one {
		t.Errorf("%q, then %q", one, again)
	}
}

func TestConditions(t *testing.T) {
	progressing := func(reason string, status corev1.ConditionStatus, age time.Duration) appsv1.DeploymentCondition {
		return condition(appsv1.DeploymentProgressing, status, reason, "", start.Add(-age))
	}
	for _, tt := range []struct {
		name   string
		d      *appsv1.Deployment
		before appsv1.DeploymentStatus
		sets   []*appsv1.ReplicaSet
		paused bool
		want   string
		after  time.Duration
	}{
		{name: "new", d: web(3, "1", "1", "0"), want: "Available=False/MinimumReplicasUnavailable Progressing=True/NewReplicaSetCreated", after: 601 * time.Second},
		{name: "complete", d: web(1, "1", "1", "0"), sets: []*appsv1.ReplicaSet{rs("1", 1, 1, 1, "desired-replicas=1")},
			before: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{progressing(reasonUpdated, corev1.ConditionTrue, time.Minute)}},
			want:   "Available=True/MinimumReplicasAvailable Progressing=True/NewReplicaSetAvailable"},
		{name: "progressing", d: web(2, "1", "1", "0"), sets: []*appsv1.ReplicaSet{rs("1", 1, 2, 1, "desired-replicas=2")},
			before: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{progressing(reasonCreated, corev1.ConditionTrue, time.Minute)}},
			want:   "Available=False/MinimumReplicasUnavailable Progressing=True/ReplicaSetUpdated", after: 601 * time.Second},
		{name: "too late", d: web(2, "1", "1", "0"), sets: []*appsv1.ReplicaSet{rs("1", 1, 2, 1, "desired-replicas=2")},
			before: appsv1.DeploymentStatus{Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 1, AvailableReplicas: 1,
				Conditions: []appsv1.DeploymentCondition{progressing(reasonUpdated, corev1.ConditionTrue, 11*time.Minute)}},
			want: "Available=False/MinimumReplicasUnavailable Progressing=False/ProgressDeadlineExceeded"},
		{name: "paused", d: web(1, "1", "1", "0"), paused: true, sets: []*appsv1.ReplicaSet{rs("1", 1, 1, 1, "desired-replicas=1")},
			before: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{progressing(reasonUpdated, corev1.ConditionTrue, time.Minute)}},
			want:   "Available=True/MinimumReplicasAvailable Progressing=Unknown/DeploymentPaused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.d.Status, tt.d.Spec.Paused = tt.before, tt.paused
			p := decide(observed{deployment: tt.d, sets: tt.sets, now: start})
			var got []string
			for _, kind := range []appsv1.DeploymentConditionType{appsv1.DeploymentAvailable, appsv1.DeploymentProgressing} {
				if c := findCondition(&p.status, kind); c != nil {
					got = append(got, fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason))
				}
			}
			if strings.Join(got, " ") != tt.want || p.after != tt.after {
				t.Errorf("got  %s, again in %s\nwant %s, again in %s", strings.Join(got, " "), p.after, tt.want, tt.after)
			}
		})
	}
}
