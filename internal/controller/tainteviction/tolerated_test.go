package tainteviction

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

func TestTolerated(t *testing.T) {
	taint := func(key string) corev1.Taint { return corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute} }
	forever := func(key string) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists}
	}
	until := func(key string, s int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, TolerationSeconds: &s}
	}
	for _, tt := range []struct {
		name        string
		taints      []corev1.Taint
		tolerations []corev1.Toleration
		patience    time.Duration
		limited     bool
	}{
		{name: "no taint", tolerations: []corev1.Toleration{until("a", 5)}},
		{name: "not tolerated", taints: []corev1.Taint{taint("a")}, limited: true},
		{name: "for ever", taints: []corev1.Taint{taint("a")}, tolerations: []corev1.Toleration{forever("a")}},
		{name: "for a time", taints: []corev1.Taint{taint("a")}, tolerations: []corev1.Toleration{until("a", 300)}, patience: 300 * time.Second, limited: true},
		{name: "the shortest counts", taints: []corev1.Taint{taint("a"), taint("b")}, tolerations: []corev1.Toleration{until("a", 300), until("b", 7)}, patience: 7 * time.Second, limited: true},
		{name: "one of two not", taints: []corev1.Taint{taint("a"), taint("b")}, tolerations: []corev1.Toleration{until("a", 300)}, limited: true},
		{name: "below zero is now", taints: []corev1.Taint{taint("a")}, tolerations: []corev1.Toleration{until("a", -1)}, limited: true},
		{name: "everything", taints: []corev1.Taint{taint("a"), taint("b")}, tolerations: []corev1.Toleration{forever("")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p, l := tolerated(tt.taints, tt.tolerations); p != tt.patience || l != tt.limited {
				t.Errorf("%s, %v; want %s, %v", p, l, tt.patience, tt.limited)
			}
		})
	}
}

func TestEviction(t *testing.T) {
	ctx, now := context.Background(), time.Unix(1000, 0)
	seconds := int64(30)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoExecute}}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n",
		Tolerations: []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists, TolerationSeconds: &seconds}}}}
	c := clienttest.New(t, node, pod)
	r := newReconciler(c)
	r.now = func() time.Time { return now }
	if keys := r.nodeChanged(nil, node); len(keys) != 1 {
		t.Fatalf("keys %v", keys)
	}
	key := harness.Key{Namespace: "default", Name: "p"}
	if after, err := r.reconcile(ctx, key); after != 30*time.Second || err != nil {
		t.Errorf("again in %s, %v", after, err)
	}
	now = now.Add(30 * time.Second)
	if after, err := r.reconcile(ctx, key); after != 0 || err != nil {
		t.Errorf("again in %s, %v", after, err)
	}
	if left := c.Names(t, &corev1.PodList{}); len(left) != 0 {
		t.Errorf("%v left", left)
	}
	if events := c.Events(); len(events) != 1 || events[0] != "Normal TaintManagerEviction Marking for deletion Pod default/p" {
		t.Errorf("events %q", events)
	}
}
