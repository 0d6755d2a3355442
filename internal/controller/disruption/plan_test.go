package disruption

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/controller/clienttest"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func budget(minimum, maximum string) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Generation: 2}}
	if minimum != "" {
		n := intstr.Parse(minimum)
		b.Spec.MinAvailable = &n
	}
	if maximum != "" {
		n := intstr.Parse(maximum)
		b.Spec.MaxUnavailable = &n
	}
	return b
}

// pods are told as "a@rs+": the controller and, for a ready one, a plus.
func pods(told string) []*corev1.Pod {
	var list []*corev1.Pod
	for _, one := range strings.Fields(told) {
		one, ready := strings.CutSuffix(one, "+")
		name, by, owned := strings.Cut(one, "@")
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}}}
		if owned {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: by, UID: types.UID(by), Controller: &yes}}
		}
		if ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		list = append(list, p)
	}
	return list
}

func TestBudget(t *testing.T) {
	for _, tt := range []struct{ minimum, maximum, pods, want string }{ // want: expected desired healthy allowed
		{minimum: "2", pods: "a+ b+ c+", want: "3 2 3 1"},
		{minimum: "2", pods: "a+ b c", want: "3 2 1 0"},
		{minimum: "2", want: "0 2 0 0"},
		{minimum: "0", pods: "a+", want: "1 0 1 1"},
		{minimum: "50%", pods: "a@x+ b@x+ c@x+", want: "5 3 3 0"}, // two of the five are still to come
		{maximum: "1", pods: "a@x+ b@x+ c@x+ d@x+ e@x+", want: "5 4 5 1"},
		{maximum: "50%", pods: "a@x+ b@x+ c@x+ d@x+ e@x+", want: "5 2 5 3"},
		{maximum: "1", pods: "a@x+ b@y+", want: "7 6 2 0"},
		{maximum: "1", pods: "a@new+ b@old+", want: "3 2 2 0"}, // both are one Deployment's
		{maximum: "9", pods: "a@x+", want: "5 0 1 1"},
		{maximum: "1", pods: "a+ b@x+", want: "5 4 2 0 without a"},
		{maximum: "1", pods: "a@nobody+", want: `found no controllers for pod "a"`},
		{pods: "a+", want: "0 0 1 0"},
	} {
		scales := map[types.UID]struct {
			uid types.UID
			n   int
		}{"x": {"x", 5}, "y": {"y", 2}, "new": {"d", 3}, "old": {"d", 3}}
		b := budget(tt.minimum, tt.maximum)
		list := pods(tt.pods)
		g, err := want(b, list, func(ref *metav1.OwnerReference) (types.UID, int, error) { s := scales[ref.UID]; return s.uid, s.n, nil })
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			s, _, _ := statusOf(b, list, g, noon)
			got = fmt.Sprint(s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy, s.DisruptionsAllowed)
			if len(g.unmanaged) > 0 {
				got += " without " + strings.Join(g.unmanaged, " ")
			}
			if c := s.Conditions[0]; c.Type != "DisruptionAllowed" || (c.Status == metav1.ConditionTrue) != (s.DisruptionsAllowed > 0) || c.ObservedGeneration != 2 {
				t.Errorf("condition %+v", c)
			}
		}
		if got != tt.want {
			t.Errorf("at least %q, at most %q out, pods %q: %q, want %q", tt.minimum, tt.maximum, tt.pods, got, tt.want)
		}
	}
}

func TestEvictedPods(t *testing.T) {
	b := budget("1", "")
	b.Status.DisruptedPods = map[string]metav1.Time{
		"a": metav1.NewTime(noon.Add(-30 * time.Second)), "b": metav1.NewTime(noon.Add(-3 * time.Minute)), "gone": metav1.NewTime(noon),
	}
	s, late, after := statusOf(b, pods("a+ b+ c+"), goal{expected: 3, desired: 1}, noon)
	if s.CurrentHealthy != 2 || s.DisruptionsAllowed != 1 || len(s.DisruptedPods) != 1 || len(late) != 1 || late[0].Name != "b" || after != 90*time.Second {
		t.Errorf("status %+v, %d late, again after %s", s, len(late), after)
	}
}

// A ReplicaSet of a Deployment counts as the Deployment; a failure leaves nothing allowed.
func TestReconcile(t *testing.T) {
	ctx, replicas, yes := context.Background(), int32(4), true
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "d"}, Spec: appsv1.DeploymentSpec{Replicas: &replicas}}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "rs", UID: "rs", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "d", Controller: &yes}}}}
	b := budget("", "25%")
	b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	c := clienttest.New(t, d, rs, b)
	for _, p := range pods("a@rs+ b@rs+ c@rs+ d@rs+") {
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
		if err := c.SubResource("status").Update(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	r := &reconciler{client: c, events: c.Recorder(""), now: time.Now}
	key := types.NamespacedName{Namespace: "default", Name: "web"}
	if _, err := r.reconcile(ctx, key); err != nil {
		t.Fatal(err)
	}
	got := &policyv1.PodDisruptionBudget{}
	if err := c.Get(ctx, key, got); err != nil || got.Status.ExpectedPods != 4 || got.Status.DesiredHealthy != 3 {
		t.Errorf("status %+v, %v", got.Status, err)
	}
	if err := c.Delete(ctx, rs); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reconcile(ctx, key); err == nil {
		t.Error("pods without a controller were taken")
	}
	if err := c.Get(ctx, key, got); err != nil || got.Status.DisruptionsAllowed != 0 || got.Status.Conditions[0].Reason != "SyncFailed" {
		t.Errorf("status %+v, %v", got.Status, err)
	}
}

// A pod that was to be disrupted and still is there says so no longer after a while.
func TestReprieve(t *testing.T) {
	ctx := context.Background()
	p := pods("a+")[0]
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon)})
	c := clienttest.New(t, p)
	key := disruptedPod(p)[0]
	for elapsed, want := range map[time.Duration]corev1.ConditionStatus{time.Minute: corev1.ConditionTrue, 3 * time.Minute: corev1.ConditionFalse} {
		r := &reconciler{client: c, now: func() time.Time { return noon.Add(elapsed) }}
		if _, err := r.reconcile(ctx, key); err != nil {
			t.Fatal(err)
		}
		if want == corev1.ConditionTrue {
			continue
		}
		var got corev1.Pod
		if err := c.Get(ctx, types.NamespacedName{Namespace: "default", Name: "a"}, &got); err != nil || got.Status.Conditions[1].Status != want {
			t.Errorf("conditions %+v, %v", got.Status.Conditions, err)
		}
	}
}
