package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
)

// benchWorkloads runs kube-scheduler's own benchmarks by name, the algorithm alone and then over HTTPS, and sums them up in a table. Alone they have
// upstream's sizes; over HTTPS only with --full, else a quarter of them.
func benchWorkloads(b *bench) {
	whole, driven := schedulertest.Workloads(1), schedulertest.Workloads(b.share)
	b.table("workload", "nodes", "pods", "alone /s", "upstream's floor /s", "nodes", "pods", "create to bound /s", "CPU ms", "resident MB")
	for i := range whole {
		w := &whole[i]
		if !strings.Contains(w.Name, b.shape) {
			continue
		}
		row := []any{w.Name, w.Nodes, w.Measure.Pods, b.workloadAlone(w), floor(w.Floor)}
		w = &driven[i]
		round := &bench{rounds: b.rounds, callers: b.callers}
		round.shape, round.kubeconfig, round.profile = b.shape, b.kubeconfig, b.profile
		var f figures
		if !round.guard(func(r *bench) { f = newTarget(r, w.Served, w.Controllers...).workload(w) }) {
			b.failed = true
		}
		b.table(append(row, w.Nodes, w.Measure.Pods, f.rate, f.cpu, f.resident)...)
	}
	b.tell()
}

func (b *bench) workloadAlone(w *schedulertest.Workload) string {
	if !w.Bare() {
		return "–"
	}
	took, placed := w.Run()
	if placed < w.Measure.Pods {
		b.Errorf("%s, alone: %d of %d pods found a place", w.Name, placed, w.Measure.Pods)
		return "failed"
	}
	report(w.Name+", alone", "pods/s", float64(placed)/took.Seconds())
	return fmt.Sprintf("%.0f", float64(placed)/took.Seconds())
}

func floor(perSecond int) string {
	if perSecond == 0 {
		return "–"
	}
	return strconv.Itoa(perSecond)
}

// workload makes a workload's nodes and pods, and measures how fast those that count are bound.
func (t *target) workload(w *schedulertest.Workload) figures {
	quiet := meter{t.b, func() time.Duration { return 0 }}
	t.makeAll(quiet, w.Name+": create what there is once", 1, func(int) []schedulertest.Object { return w.Once })
	quiet.measure(w.Name+": create nodes", w.Nodes, len(t.clients), func(caller, i int) error { return hollow(t.ctx, t.clients[caller], w.Node(i)) })
	t.makeAll(quiet, w.Name+": create what belongs to nodes", w.Nodes, w.PerNode)
	t.makeAll(quiet, w.Name+": create what belongs to pods", w.Pods(), w.PerPod)
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
	f := t.run(meter{t.b, t.cpu}, w.Name, w.Measure.Pods, w.Measure.Shape.Pod, true)
	end()
	stop()
	if t.own != nil {
		f.resident = rounded(t.own.Memory().Resident)
		report(w.Name+": resident memory", "MB", float64(f.resident))
		t.own.Stop()
		return f
	}
	t.clear()
	t.unmake()
	quiet.measure(w.Name+": delete nodes", w.Nodes, len(t.clients), func(caller, i int) error {
		return t.clients[caller].CoreV1().Nodes().Delete(t.ctx, w.Node(i).Name, metav1.DeleteOptions{})
	})
	return f
}

// makeAll makes the objects that there are for each of n nodes or pods; objects may be nil.
func (t *target) makeAll(m meter, name string, n int, objects func(i int) []schedulertest.Object) {
	if objects == nil || len(objects(0)) == 0 {
		return
	}
	m.measure(name, n, len(t.clients), func(caller, i int) error {
		for _, o := range objects(i) {
			if err := t.make(t.clients[caller], o); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *target) make(cs *kubernetes.Clientset, o schedulertest.Object) (err error) {
	var options metav1.CreateOptions
	switch o := o.(type) {
	case *corev1.PersistentVolume:
		_, err = cs.CoreV1().PersistentVolumes().Create(t.ctx, o, options)
	case *corev1.PersistentVolumeClaim:
		_, err = cs.CoreV1().PersistentVolumeClaims(o.Namespace).Create(t.ctx, o, options)
	case *storagev1.CSINode:
		_, err = cs.StorageV1().CSINodes().Create(t.ctx, o, options)
	case *resourcev1.ResourceSlice:
		_, err = cs.ResourceV1().ResourceSlices().Create(t.ctx, o, options)
	case *resourcev1.DeviceClass:
		_, err = cs.ResourceV1().DeviceClasses().Create(t.ctx, o, options)
	case *resourcev1.ResourceClaimTemplate:
		_, err = cs.ResourceV1().ResourceClaimTemplates(o.Namespace).Create(t.ctx, o, options)
	case *schedulingv1beta1.PodGroup:
		_, err = cs.SchedulingV1beta1().PodGroups(o.Namespace).Create(t.ctx, o, options)
	default:
		err = fmt.Errorf("nobody makes a %T", o)
	}
	return err
}

// unmake deletes what makeAll made.
func (t *target) unmake() {
	type deletes interface {
		DeleteCollection(context.Context, metav1.DeleteOptions, metav1.ListOptions) error
	}
	cs := t.clients[0]
	for _, kind := range []deletes{cs.CoreV1().PersistentVolumeClaims("default"), cs.CoreV1().PersistentVolumes(), cs.StorageV1().CSINodes(),
		cs.ResourceV1().ResourceClaimTemplates("default"), cs.ResourceV1().ResourceSlices(), cs.ResourceV1().DeviceClasses(),
		cs.SchedulingV1beta1().PodGroups("default")} {
		if err := kind.DeleteCollection(t.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: schedulertest.Mark}); err != nil && !apierrors.IsNotFound(err) {
			t.b.Errorf("clean up: %v", err)
		}
	}
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
