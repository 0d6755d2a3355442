package main

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
)

// benchWorkloads runs kube-scheduler's own benchmarks by name, the algorithm alone and then over HTTPS.
func benchWorkloads(b *bench) {
	for i := range schedulertest.Workloads {
		w := &schedulertest.Workloads[i]
		if !strings.Contains(w.Name, b.shape) {
			continue
		}
		if took, placed := w.Run(); placed < w.Measure.Pods {
			b.Errorf("%s, alone: %d of %d pods found a place", w.Name, placed, w.Measure.Pods)
		} else {
			report(w.Name+", alone", "pods/s", float64(placed)/took.Seconds())
		}
		round := &bench{rounds: b.rounds, callers: b.callers}
		round.shape, round.kubeconfig, round.profile = b.shape, b.kubeconfig, b.profile
		if !round.guard(func(r *bench) { newTarget(r).workload(w) }) {
			b.failed = true
		}
	}
}

// workload makes a workload's nodes and pods, and measures how fast those that count are bound.
func (t *target) workload(w *schedulertest.Workload) {
	quiet := meter{t.b, func() time.Duration { return 0 }}
	quiet.measure(w.Name+": create nodes", w.Nodes, len(t.clients), func(caller, i int) error { return hollow(t.ctx, t.clients[caller], w.Node(i)) })
	urgent := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: schedulertest.UrgentClass}, Value: schedulertest.Urgent}
	if _, err := t.clients[0].SchedulingV1().PriorityClasses().Create(t.ctx, urgent, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.b.Fatal(err)
	}
	for _, batch := range w.Before {
		t.run(quiet, w.Name+": before, "+batch.Shape.Name, batch.Pods, batch.Shape.Pod, !batch.Waits)
	}
	stop := func() {}
	if w.Churn {
		stop = t.churn(w)
	}
	end := t.profile(w.Name)
	t.run(meter{t.b, t.cpu}, w.Name, w.Measure.Pods, w.Measure.Shape.Pod, true)
	end()
	stop()
	if t.own != nil {
		report(w.Name+": resident memory", "MB", t.own.Memory().Resident)
		t.own.Stop()
		return
	}
	t.clear()
	quiet.measure(w.Name+": delete nodes", w.Nodes, len(t.clients), func(caller, i int) error {
		return t.clients[caller].CoreV1().Nodes().Delete(t.ctx, w.Node(i).Name, metav1.DeleteOptions{})
	})
}

// churn makes a node, a pod that fits nowhere and a service once a second, and takes them away again, until stop is called.
func (t *target) churn(w *schedulertest.Workload) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for k := 0; ; k++ {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			if err := t.churnOnce(w, k); err != nil {
				t.b.Errorf("churn: %v", err)
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

func (t *target) churnOnce(w *schedulertest.Workload, k int) error {
	cs := t.clients[0].CoreV1()
	node, pod := w.Node(w.Nodes+k), schedulertest.TooLarge(k)
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("churn-%d", k)}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if err := hollow(t.ctx, t.clients[0], node); err != nil {
		return err
	}
	if _, err := cs.Pods("default").Create(t.ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := cs.Services("default").Create(t.ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := cs.Services("default").Delete(t.ctx, service.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	zero := int64(0)
	if err := cs.Pods("default").Delete(t.ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		return err
	}
	return cs.Nodes().Delete(t.ctx, node.Name, metav1.DeleteOptions{})
}
