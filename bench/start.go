package main

import (
	"context"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/test/cluster"
)

func benchStart(b *bench) {
	web, err := os.ReadFile("examples/web.yaml")
	if err != nil {
		b.Fatal(err)
	}
	var ready, running, again []float64
	for range b.rounds {
		round := &bench{}
		ok := round.guard(func(r *bench) {
			began := time.Now()
			c := cluster.Start(r)
			ready = append(ready, time.Since(began).Seconds())
			seen := make(chan time.Time, 1)
			go func() { seen <- firstRunning(r, c.Client(), "app=web") }()
			c.Apply(string(web))
			running = append(running, (<-seen).Sub(began).Seconds())
			c.Stop()
			began = time.Now()
			c.Up()
			again = append(again, time.Since(began).Seconds())
		})
		if !ok {
			b.Fatal("a round failed")
		}
	}
	report("empty data dir to node Ready", "s", ready...)
	report("empty data dir to first pod of web.yaml Running", "s", running...)
	report("restart on existing data to Ready", "s", again...)
}

// firstRunning returns when a watcher first saw a pod with the labels Running.
func firstRunning(b *bench, cs *kubernetes.Clientset, selector string) time.Time {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w, err := cs.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		b.Errorf("watch pods: %v", err)
		return time.Now()
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if p, ok := e.Object.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning {
			return time.Now()
		}
	}
	b.Errorf("no pod ran within a minute")
	return time.Now()
}
