package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
)

// Watcher finds the Services a pod's change concerns, and the pods of a Service.
type Watcher struct {
	Reader crclient.Reader // cached
}

// PodChanged names the Services whose endpoints a change may alter: none if the change says nothing new to clients.
func (w Watcher) PodChanged(old, current *corev1.Pod) []harness.Key {
	if old != nil && current != nil && !relevant(old, current) {
		return nil
	}
	namespace := ""
	for _, p := range []*corev1.Pod{old, current} {
		if p != nil {
			namespace = p.Namespace
		}
	}
	var services corev1.ServiceList
	if w.Reader.List(context.Background(), &services, crclient.InNamespace(namespace), crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	var keys []harness.Key
	for i := range services.Items {
		s := &services.Items[i]
		if len(s.Spec.Selector) == 0 {
			continue
		}
		selector := labels.SelectorFromValidatedSet(s.Spec.Selector)
		if old != nil && selector.Matches(labels.Set(old.Labels)) || current != nil && selector.Matches(labels.Set(current.Labels)) {
			keys = append(keys, crclient.ObjectKeyFromObject(s))
		}
	}
	return keys
}

func relevant(old, current *corev1.Pod) bool {
	return old.Status.PodIP != current.Status.PodIP ||
		!slices.Equal(old.Status.PodIPs, current.Status.PodIPs) ||
		podstate.Ready(old) != podstate.Ready(current) ||
		podstate.Terminal(old) != podstate.Terminal(current) ||
		(old.DeletionTimestamp == nil) != (current.DeletionTimestamp == nil) ||
		old.UID != current.UID || old.Spec.NodeName != current.Spec.NodeName ||
		old.Spec.Hostname != current.Spec.Hostname || old.Spec.Subdomain != current.Spec.Subdomain ||
		!maps.Equal(old.Labels, current.Labels)
}

// Pods are those a Service selects.
func (w Watcher) Pods(ctx context.Context, service *corev1.Service) ([]*corev1.Pod, error) {
	var list corev1.PodList
	selector := crclient.MatchingLabelsSelector{Selector: labels.SelectorFromValidatedSet(service.Spec.Selector)}
	if err := w.Reader.List(ctx, &list, crclient.InNamespace(service.Namespace), selector, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the pods of Service %s: %w", service.Name, err)
	}
	pods := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = &list.Items[i]
	}
	return pods, nil
}
