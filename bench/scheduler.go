package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

// benchScheduler measures the algorithm alone, then all the way from a client's create over HTTPS to the binding in the API.
func benchScheduler(b *bench) {
	for _, nodes := range []int{1000, 5000, 50000} {
		for _, s := range schedulertest.Shapes {
			const pods = 20000
			a := schedulertest.NewAlone(nodes)
			a.Schedule(s, 200) // classes are made once
			took, placed := a.Schedule(s, pods)
			if placed == 0 {
				b.Errorf("%s: no pod was placed", s.Name)
			}
			report(fmt.Sprintf("alone, %d nodes, %s", nodes, s.Name), "pods/s", pods/took.Seconds())
		}
	}
	for _, nodes := range []int{1000, 5000} {
		schedulerEndToEnd(b, nodes)
	}
}

func schedulerEndToEnd(b *bench, nodes int) {
	c := cluster.New(b, "--no-agent", "--controllers=serviceaccount-controller")
	c.Server()
	cfg := c.RESTConfig()
	cfg.ContentType, cfg.QPS = "application/vnd.kubernetes.protobuf", -1
	clients := make([]*kubernetes.Clientset, b.callers)
	for i := range clients {
		var err error
		if clients[i], err = kubernetes.NewForConfig(rest.CopyConfig(cfg)); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	b.Cleanup(cancel)
	cluster.Eventually(b, 10*time.Second, func() error {
		_, err := clients[0].CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	m := meter{b, c}
	m.measure(fmt.Sprintf("create %d nodes", nodes), nodes, b.callers, func(caller, i int) error {
		node := schedulertest.Node(i)
		_, err := clients[caller].CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		return err
	})
	for k, s := range schedulertest.Shapes {
		const pods = 3000
		before := bindings(b, ctx, clients[0], pods)
		cpu, began := c.CPU(), time.Now()
		name := fmt.Sprintf("%d nodes, %s", nodes, s.Name)
		m.measure(name+": create", pods, b.callers, func(caller, i int) error {
			pod := s.Pod(k*pods + i)
			_, err := clients[caller].CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
			return err
		})
		select {
		case <-before:
		case <-time.After(5 * time.Minute):
			b.Fatalf("%s: not all pods were bound within five minutes", name)
		}
		wall, spent := time.Since(began).Seconds(), c.CPU()-cpu
		report(name+": create to bound", "pods/s", pods/wall)
		report(name+": server CPU a pod", "ms", spent.Seconds()*1000/pods)
	}
	report(fmt.Sprintf("resident memory, %d nodes, %d pods", nodes, 3000*len(schedulertest.Shapes)), "MB", c.Memory().Resident)
	c.Stop()
}

// bindings closes the channel once a watcher has seen so many more pods bound.
func bindings(b *bench, ctx context.Context, cs *kubernetes.Clientset, pods int) <-chan struct{} {
	list, err := cs.CoreV1().Pods("default").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	w, err := cs.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "spec.nodeName!="})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer w.Stop()
		seen := map[string]bool{}
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && p.Spec.NodeName != "" {
				if seen[p.Name] = true; len(seen) == pods {
					close(done)
					return
				}
			}
		}
	}()
	return done
}
