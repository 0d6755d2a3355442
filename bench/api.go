package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/test/cluster"
)

// benchAPI drives the API server alone. Client and server share this machine, so the rates are what both together manage.
func benchAPI(b *bench) {
	c := cluster.New(b, "--no-agent", "--no-scheduler", "--controllers=serviceaccount-controller")
	c.Server()
	cfg := c.RESTConfig()
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.QPS = -1
	// Each caller has a connection of its own, as 64 programs would.
	clients := make([]*kubernetes.Clientset, b.callers)
	for i := range clients {
		var err error
		if clients[i], err = kubernetes.NewForConfig(rest.CopyConfig(cfg)); err != nil {
			b.Fatal(err)
		}
	}
	cs := clients[0]
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cluster.Eventually(b, 10*time.Second, func() error {
		_, err := cs.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	m := meter{b, c.CPU}
	n := b.objects

	var delivered atomic.Int64
	const watchers = 10
	for range watchers {
		w, err := cs.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{})
		if err != nil {
			b.Fatal(err)
		}
		defer w.Stop()
		go func() {
			for range w.ResultChan() {
				delivered.Add(1)
			}
		}()
	}
	empty := c.Memory()
	m.measure(fmt.Sprintf("create %d pods", n), n, b.callers, func(caller, i int) error {
		_, err := clients[caller].CoreV1().Pods("default").Create(ctx, benchPod(i), metav1.CreateOptions{})
		return err
	})
	cluster.Eventually(b, 30*time.Second, func() error {
		if got := delivered.Load(); got < int64(n*watchers) {
			return fmt.Errorf("%d of %d events arrived", got, n*watchers)
		}
		return nil
	})
	m.measure("get a pod", 2*n, b.callers, func(caller, i int) error {
		_, err := clients[caller].CoreV1().Pods("default").Get(ctx, fmt.Sprintf("pod-%05d", i%n), metav1.GetOptions{})
		return err
	})
	raw := cs.CoreV1().RESTClient()
	for _, accept := range []string{"application/vnd.kubernetes.protobuf", "application/json"} {
		m.measure("list all, "+accept, 20, 2, func(_, _ int) error {
			body, err := raw.Get().AbsPath("/api/v1/namespaces/default/pods").SetHeader("Accept", accept).Stream(ctx)
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(io.Discard, body)
			return err
		})
	}
	full := c.Memory()
	report("resident memory before", "MB", empty.Resident)
	report(fmt.Sprintf("resident memory with %d pods", n), "MB", full.Resident)
	report(fmt.Sprintf("anonymous memory with %d pods", n), "MB", full.Anonymous)
}

// meter measures calls: their rate, their median latency and the server's CPU for each.
type meter struct {
	b   *bench
	cpu func() time.Duration // the server's
}

func (m meter) measure(name string, n, callers int, call func(caller, i int) error) {
	took := make([]float64, n)
	var next atomic.Int64
	var group sync.WaitGroup
	cpu, began := m.cpu(), time.Now()
	for caller := range callers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				at := time.Now()
				if err := call(caller, i); err != nil {
					m.b.Errorf("%s: %v", name, err)
					return
				}
				took[i] = float64(time.Since(at).Microseconds()) / 1000
			}
		})
	}
	group.Wait()
	wall, spent := time.Since(began).Seconds(), m.cpu()-cpu
	report(name+": rate", "/s", float64(n)/wall)
	if spent > 0 { // else it is not known
		report(name+": server CPU each", "ms", spent.Seconds()*1000/float64(n))
	}
	report(fmt.Sprintf("%s: latency with %d callers", name, callers), "ms", took...)
}

func benchPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%05d", i), Labels: map[string]string{"app": fmt.Sprintf("app-%d", i%100)}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "registry.example/app:1.2.3",
			Env:   []corev1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "REGION", Value: "eu-1"}},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		}}},
	}
}
