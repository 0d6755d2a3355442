package client

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// AllPods follows the pods of all nodes until ctx ends, also for a client whose own cache holds one node's alone. What is not needed to tell
// whose packets are whose is left out of those.
func AllPods(ctx context.Context, c Client) (cache.Informers, error) {
	r, ok := c.(*remote)
	if !ok {
		return c.Cache(), nil
	}
	pods, err := r.pods()
	if err != nil {
		return nil, fmt.Errorf("make a cache of all pods: %w", err)
	}
	go func() { _ = pods.Start(ctx) }() // it fails only if started twice
	return pods, nil
}

// reducePod keeps of a pod what its packets are known by.
func reducePod(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	small := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels},
		Spec:       corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork},
		Status:     corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs},
	}
	for _, c := range p.Spec.Containers {
		small.Spec.Containers = append(small.Spec.Containers, corev1.Container{Name: c.Name, Ports: c.Ports})
	}
	for _, c := range p.Spec.InitContainers {
		small.Spec.InitContainers = append(small.Spec.InitContainers, corev1.Container{Name: c.Name, Ports: c.Ports})
	}
	return small, nil
}
