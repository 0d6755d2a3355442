package resourceclaim

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPlan(t *testing.T) {
	one := []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "1"}}
	now := metav1.Now()
	for _, c := range []struct {
		name  string
		claim resourcev1.ResourceClaim
		users []resourcev1.ResourceClaimConsumerReference
		want  change
	}{
		{"used", allocated(nil, one), one, change{}},
		{"allocated, and its pod on the way", allocated(nil, nil), nil, change{}},
		{"its last user is over", allocated(nil, one), nil, change{true, true, true}},
		{"one of two users is over", allocated(nil, append(one, one...)), one, change{status: true}},
		{"to go, and used", allocated(&now, one), one, change{}},
		{"to go, and never used", allocated(&now, nil), nil, change{true, true, true}},
		{"to go without devices", resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now, Finalizers: []string{resourcev1.Finalizer}}}, nil, change{release: true}},
	} {
		if got := plan(&c.claim, c.users); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func allocated(deleted *metav1.Time, users []resourcev1.ResourceClaimConsumerReference) resourcev1.ResourceClaim {
	return resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: deleted, Finalizers: []string{resourcev1.Finalizer}},
		Status:     resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{}, ReservedFor: users},
	}
}

// Names stay labels whatever the pod and its claim are called.
func TestNames(t *testing.T) {
	long := func(letter byte, n int) (s string) {
		for range n {
			s += string(letter)
		}
		return s
	}
	for _, c := range []struct{ pod, claim string }{{"web", "gpu"}, {long('p', 253), "gpu"}, {"web", long('c', 63)}, {long('p', 253), long('c', 63)}} {
		got := prefixOf(c.pod, c.claim)
		if len(got) > longest || got[len(got)-1] != '-' || got[0] != c.pod[0] {
			t.Errorf("%d, %d: %q", len(c.pod), len(c.claim), got)
		}
	}
	if got := prefixOf("web", "gpu"); got != "web-gpu-" {
		t.Error(got)
	}
	template := &resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}}
	claim := claimFrom(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "web", UID: "1"}}, "gpu", template)
	if claim.Annotations[madeFor] != "gpu" || claim.Labels["a"] != "b" || ownerOf(claim) == nil || template.Spec.Annotations != nil {
		t.Errorf("claim %+v", claim)
	}
}
