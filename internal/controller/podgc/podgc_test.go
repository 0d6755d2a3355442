package podgc

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

func TestOrphansOfGoneNodes(t *testing.T) {
	ctx, now := context.Background(), time.Unix(1000, 0)
	on := func(name, node string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
	}
	orphan := on("orphan", "gone")
	c := clienttest.New(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}, orphan, on("safe", "here"))
	r := newReconciler(c)
	r.now = func() time.Time { return now }
	if keys := r.podChanged(nil, orphan); !slices.Equal(keys, []harness.Key{{Name: "gone"}}) {
		t.Fatalf("keys %v", keys)
	}
	if after, err := r.reconcile(ctx, harness.Key{Name: "gone"}); after != quarantine || err != nil {
		t.Errorf("again in %s, %v", after, err)
	}
	now = now.Add(quarantine)
	if _, err := r.reconcile(ctx, harness.Key{Name: "gone"}); err != nil {
		t.Error(err)
	}
	if left := c.Names(t, &corev1.PodList{}); !slices.Equal(left, []string{"safe"}) {
		t.Errorf("left %v", left)
	}
}

func TestTooManyTerminated(t *testing.T) {
	c := clienttest.New(t)
	r := newReconciler(c)
	r.threshold = 3
	var keys []harness.Key
	for i := range 5 {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("p", i)}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
		if i == 4 {
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}
		}
		if err := c.Create(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, r.podChanged(nil, p)...)
	}
	if !slices.Contains(keys, terminatedKey) {
		t.Fatalf("keys %v", keys)
	}
	if _, err := r.reconcile(context.Background(), terminatedKey); err != nil {
		t.Fatal(err)
	}
	if left := c.Names(t, &corev1.PodList{}); !slices.Equal(left, []string{"p1", "p2", "p3"}) {
		t.Errorf("left %v, want the evicted and the oldest gone", left)
	}
}

func TestDeletedBeforeScheduled(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Finalizers: []string{"test/hold"}}}
	c := clienttest.New(t, p)
	if err := c.Delete(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	var going corev1.Pod
	if err := c.Get(context.Background(), crclient.ObjectKeyFromObject(p), &going); err != nil {
		t.Fatal(err)
	}
	r := newReconciler(c)
	keys := r.podChanged(p, &going)
	if len(keys) != 1 {
		t.Fatalf("keys %v", keys)
	}
	if _, err := r.reconcile(context.Background(), keys[0]); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(context.Background(), crclient.ObjectKeyFromObject(p), &going); err != nil || going.Status.Phase != corev1.PodFailed {
		t.Errorf("phase %s, %v", going.Status.Phase, err)
	}
}
