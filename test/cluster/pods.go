package cluster

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
)

// WaitPod watches a pod until it is as ok wants it, and returns it. what says that in words, for when it never is.
func (c *Cluster) WaitPod(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	namespace := c.namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	pods := c.Client().CoreV1().Pods(namespace)
	var last *corev1.Pod
	check := func(e watch.Event) (bool, error) {
		p, isPod := e.Object.(*corev1.Pod)
		if !isPod || e.Type == watch.Deleted {
			return false, nil
		}
		last = p
		return ok(p), nil
	}
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	list, err := pods.List(ctx, only)
	if err != nil {
		c.t.Fatalf("list pod %s: %v", name, err)
	}
	for i := range list.Items {
		if done, _ := check(watch.Event{Type: watch.Added, Object: &list.Items[i]}); done {
			return last
		}
	}
	_, err = watchtools.Until(ctx, list.ResourceVersion, watcher(func(o metav1.ListOptions) (watch.Interface, error) {
		o.FieldSelector = only.FieldSelector
		return pods.Watch(ctx, o)
	}), check)
	if err != nil {
		described, _ := c.TryKubectl("describe", "pod", name)
		c.t.Fatalf("pod %s never was %s: %v\n%s", name, what, err, described)
	}
	return last
}

// watcher is what watchtools takes.
type watcher func(metav1.ListOptions) (watch.Interface, error)

func (w watcher) Watch(o metav1.ListOptions) (watch.Interface, error) { return w(o) }

// WaitPodReady waits until a pod is Ready.
func (c *Cluster) WaitPodReady(name string) *corev1.Pod {
	c.t.Helper()
	return c.WaitPod(name, "Ready", Ready)
}

// WaitPodDone waits until all of a pod's containers have ended for good, in success or not.
func (c *Cluster) WaitPodDone(name string) *corev1.Pod {
	c.t.Helper()
	return c.WaitPod(name, "done", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
}

// Ready says whether a pod has its Ready condition.
func Ready(p *corev1.Pod) bool {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// WaitPodGone waits until there is no such pod.
func (c *Cluster) WaitPodGone(name string) {
	c.t.Helper()
	c.Kubectl("wait", "pod/"+name, "--for=delete", "--timeout=3m")
}
