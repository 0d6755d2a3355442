package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
)

// makeEach makes objects one after the other.
func (c *course) makeEach(caller int, list []schedulertest.Object) error {
	for _, o := range list {
		if err := c.make(c.clients[caller], o); err != nil {
			return err
		}
	}
	return nil
}

// make makes an object of any kind that workloads have, with its status where that is said.
func (c *course) make(cs *kubernetes.Clientset, o schedulertest.Object) (err error) {
	var options metav1.CreateOptions
	switch o := o.(type) {
	case *corev1.Node:
		err = hollow(c.ctx, cs, o)
	case *corev1.Pod:
		_, err = cs.CoreV1().Pods(o.Namespace).Create(c.ctx, o, options)
	case *corev1.Namespace:
		_, err = cs.CoreV1().Namespaces().Create(c.ctx, o, options)
	case *corev1.Service:
		_, err = cs.CoreV1().Services(o.Namespace).Create(c.ctx, o, options)
	case *corev1.PersistentVolume:
		_, err = cs.CoreV1().PersistentVolumes().Create(c.ctx, o, options)
	case *corev1.PersistentVolumeClaim:
		_, err = cs.CoreV1().PersistentVolumeClaims(o.Namespace).Create(c.ctx, o, options)
	case *storagev1.CSINode:
		_, err = cs.StorageV1().CSINodes().Create(c.ctx, o, options)
	case *resourcev1.ResourceSlice:
		_, err = cs.ResourceV1().ResourceSlices().Create(c.ctx, o, options)
	case *resourcev1.DeviceClass:
		_, err = cs.ResourceV1().DeviceClasses().Create(c.ctx, o, options)
	case *resourcev1.DeviceTaintRule:
		_, err = cs.ResourceV1().DeviceTaintRules().Create(c.ctx, o, options)
	case *resourcev1.ResourceClaimTemplate:
		_, err = cs.ResourceV1().ResourceClaimTemplates(o.Namespace).Create(c.ctx, o, options)
	case *resourcev1.ResourceClaim:
		err = c.makeClaim(cs, o)
	case *schedulingv1.PriorityClass:
		_, err = cs.SchedulingV1().PriorityClasses().Create(c.ctx, o, options)
	case *schedulingv1beta1.PodGroup:
		_, err = cs.SchedulingV1beta1().PodGroups(o.Namespace).Create(c.ctx, o, options)
	default:
		err = fmt.Errorf("nobody makes a %T", o)
	}
	return err
}

func (c *course) makeClaim(cs *kubernetes.Clientset, o *resourcev1.ResourceClaim) error {
	made, err := cs.ResourceV1().ResourceClaims(o.Namespace).Create(c.ctx, o, metav1.CreateOptions{})
	if err != nil || o.Status.Allocation == nil {
		return err
	}
	made.Status = o.Status
	_, err = cs.ResourceV1().ResourceClaims(o.Namespace).UpdateStatus(c.ctx, made, metav1.UpdateOptions{})
	return err
}

// unmakeOne deletes an object that comes and goes.
func (c *course) unmakeOne(ctx context.Context, o schedulertest.Object) error {
	cs, zero := c.clients[0].CoreV1(), int64(0)
	switch o := o.(type) {
	case *corev1.Node:
		return cs.Nodes().Delete(ctx, o.Name, metav1.DeleteOptions{})
	case *corev1.Pod:
		return cs.Pods(o.Namespace).Delete(ctx, o.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	case *corev1.Service:
		return cs.Services(o.Namespace).Delete(ctx, o.Name, metav1.DeleteOptions{})
	}
	return fmt.Errorf("nobody deletes a %T", o)
}

// unmake deletes all that was made.
func (c *course) unmake() {
	cs := c.clients[0]
	for _, namespace := range c.namespaces {
		c.unmakePods(namespace)
		c.unmakeMarked(cs.CoreV1().PersistentVolumeClaims(namespace), cs.ResourceV1().ResourceClaimTemplates(namespace), cs.ResourceV1().ResourceClaims(namespace),
			cs.SchedulingV1beta1().PodGroups(namespace))
	}
	c.unmakeMarked(cs.CoreV1().PersistentVolumes(), cs.StorageV1().CSINodes(), cs.ResourceV1().ResourceSlices(), cs.ResourceV1().DeviceTaintRules(),
		cs.ResourceV1().DeviceClasses(), cs.SchedulingV1().PriorityClasses())
	for _, namespace := range c.namespaces { // what else is there goes with them
		if err := cs.CoreV1().Namespaces().Delete(c.ctx, namespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			c.b.Errorf("clean up: %v", err)
		}
	}
	c.gone("namespaces", func() (bool, error) {
		for _, namespace := range c.namespaces {
			if _, err := cs.CoreV1().Namespaces().Get(c.ctx, namespace, metav1.GetOptions{}); err == nil || !apierrors.IsNotFound(err) {
				return false, err
			}
		}
		return true, nil
	})
	for _, step := range c.w.Steps {
		if s, ok := step.(schedulertest.Nodes); ok {
			c.each("delete nodes", s.Count, func(caller, i int) error {
				return c.clients[caller].CoreV1().Nodes().Delete(c.ctx, s.Node(i).Name, metav1.DeleteOptions{})
			})
		}
	}
}

// gone waits until something is.
func (c *course) gone(what string, is func() (bool, error)) {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		switch all, err := is(); {
		case err != nil:
			c.b.Fatalf("clean up: %s: %v", what, err)
		case all:
			return
		case time.Since(began) > patience:
			c.b.Fatalf("clean up: %s are still there", what)
		}
	}
}

type deletes interface {
	DeleteCollection(context.Context, metav1.DeleteOptions, metav1.ListOptions) error
}

func (c *course) unmakeMarked(kinds ...deletes) {
	for _, kind := range kinds {
		if err := kind.DeleteCollection(c.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: schedulertest.Mark}); err != nil && !apierrors.IsNotFound(err) {
			c.b.Errorf("clean up: %v", err)
		}
	}
}

// unmakePods deletes a namespace's pods, also those that something holds.
func (c *course) unmakePods(namespace string) {
	pods, zero := c.clients[0].CoreV1().Pods(namespace), int64(0)
	if err := pods.DeleteCollection(c.ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{}); err != nil {
		c.b.Errorf("clean up: %v", err)
	}
	c.gone("pods of "+namespace, func() (bool, error) {
		list, err := pods.List(c.ctx, metav1.ListOptions{Limit: 500})
		if err != nil {
			return false, err
		}
		for i := range list.Items {
			if p := &list.Items[i]; len(p.Finalizers) > 0 {
				if _, err := pods.Patch(c.ctx, p.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
					return false, err
				}
			}
		}
		return len(list.Items) == 0, nil
	})
}
