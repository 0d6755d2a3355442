package main

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
)

// arrivals are the pods of a workload that a watcher saw bound, as namespace/name in the order in which it did. One that is gone again stays.
type arrivals struct {
	mu     sync.Mutex
	known  map[string]bool
	order  []string
	waiter chan struct{} // is closed at the next one
}

// watch begins to look for bound pods.
func (t *target) watch() *arrivals {
	pods := t.clients[0].CoreV1().Pods("")
	list, err := pods.List(t.ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		t.b.Fatal(err)
	}
	w, err := pods.Watch(t.ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "spec.nodeName!=", LabelSelector: schedulertest.Signature})
	if err != nil {
		t.b.Fatal(err)
	}
	t.b.Cleanup(w.Stop)
	s := &arrivals{known: map[string]bool{}, waiter: make(chan struct{})}
	go func() {
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && e.Type != watch.Deleted {
				s.add(p.Namespace + "/" + p.Name)
			}
		}
	}()
	return s
}

func (s *arrivals) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[name] {
		return
	}
	s.known[name], s.order = true, append(s.order, name)
	close(s.waiter)
	s.waiter = make(chan struct{})
}

func (s *arrivals) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order)
}

// at waits for the k-th arrival.
func (s *arrivals) at(ctx context.Context, k int) (name string, ok bool) {
	return name, s.until(ctx, func() bool {
		if k < len(s.order) {
			name = s.order[k]
		}
		return k < len(s.order)
	})
}

// all waits until each of the pods was seen, and names one that was not when ctx ends before.
func (s *arrivals) all(ctx context.Context, names []string) (missing string) {
	left := names
	if s.until(ctx, func() bool {
		for len(left) > 0 && s.known[left[0]] {
			left = left[1:]
		}
		return len(left) == 0
	}) {
		return ""
	}
	return left[0]
}

// until asks after each arrival.
func (s *arrivals) until(ctx context.Context, enough func() bool) bool {
	for {
		s.mu.Lock()
		done, waiter := enough(), s.waiter
		s.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-waiter:
		}
	}
}
