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

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

const (
	jsonMedia     = "application/json"
	protobufMedia = "application/vnd.kubernetes.protobuf"
)

// benchAPI drives the API server alone. Client and server share this machine, so the rates are what both together manage.
func benchAPI(b *bench) {
	t := newServer(b)
	l := newLoad(t)
	t.reportMemory("empty")
	n := b.objects
	l.createPods("create pods", 0, n/2)
	l.watched(10, n-n/2, func() { l.createPods("create pods, ten watchers", n/2, n) })
	l.getPods("get a pod", 2*n)
	const lists = 20
	l.list("list all, protobuf", protobufMedia, lists)
	l.list("list all, JSON, first", jsonMedia, 1)
	l.list("list all, JSON, again", jsonMedia, lists)
	l.createNodes(n / 10)
	idle := t.reportMemory(fmt.Sprintf("%d pods, %d nodes", n, n/10))
	report("once its garbage is collected: resident", "MB", t.collected().Resident)
	l.besideListers(16, n, idle)
}

// load is what a server is asked for.
type load struct {
	*server
	ctx     context.Context
	callers []*kubernetes.Clientset
}

func newLoad(t *server) *load {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.b.Cleanup(cancel)
	l := &load{t, ctx, t.clients(t.b.callers)}
	t.settled(ctx, l.callers[0])
	return l
}

func (l *load) createPods(name string, from, to int) {
	l.measure(fmt.Sprintf("%s (%d)", name, to-from), to-from, len(l.callers), func(caller, i int) error {
		_, err := l.callers[caller].CoreV1().Pods("default").Create(l.ctx, benchPod(from+i), metav1.CreateOptions{})
		return err
	})
}

func (l *load) createNodes(n int) {
	l.measure(fmt.Sprintf("create %d nodes", n), n, len(l.callers), func(caller, i int) error {
		_, err := l.callers[caller].CoreV1().Nodes().Create(l.ctx, schedulertest.Node(i), metav1.CreateOptions{})
		return err
	})
}

// getPods reads pods by name, of those that there are.
func (l *load) getPods(name string, n int) {
	l.measure(name, n, len(l.callers), func(caller, i int) error {
		_, err := l.callers[caller].CoreV1().Pods("default").Get(l.ctx, benchPod(i%l.b.objects).Name, metav1.GetOptions{})
		return err
	})
}

// list reads all pods n times, two at a time, without decoding them.
func (l *load) list(name, accept string, n int) {
	l.measure(name, n, min(2, n), func(caller, _ int) error { return l.listOnce(l.ctx, l.callers[caller], accept) })
}

func (l *load) listOnce(ctx context.Context, cs *kubernetes.Clientset, accept string) error {
	body, err := cs.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/default/pods").SetHeader("Accept", accept).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return err
}

// watched does something that makes so many events while watchers look on, and waits until all have seen them.
func (l *load) watched(watchers, events int, do func()) {
	var delivered atomic.Int64
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	now := metav1.ListOptions{Limit: 1}
	list, err := l.callers[0].CoreV1().Pods("default").List(ctx, now)
	if err != nil {
		l.b.Fatal(err)
	}
	for _, cs := range l.clients(watchers) {
		w, err := cs.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		if err != nil {
			l.b.Fatal(err)
		}
		go func() {
			for range w.ResultChan() {
				delivered.Add(1)
			}
		}()
	}
	do()
	cluster.Eventually(l.b, func() error {
		if got := delivered.Load(); got < int64(events*watchers) {
			return fmt.Errorf("%d of %d events arrived", got, events*watchers)
		}
		return nil
	})
}

// besideListers has clients list everything for ever and measures gets beside them, and how far memory grows over idle.
func (l *load) besideListers(listers, gets int, idle cluster.Memory) {
	ctx, cancel := context.WithCancel(l.ctx)
	var group sync.WaitGroup
	var lists atomic.Int64
	for _, cs := range l.clients(listers) {
		group.Go(func() {
			for ctx.Err() == nil {
				if l.listOnce(ctx, cs, protobufMedia) == nil {
					lists.Add(1)
				}
			}
		})
	}
	var peak cluster.Memory
	group.Go(func() {
		for ctx.Err() == nil {
			if m := l.memory(); m.Resident > peak.Resident {
				peak = m
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	began := time.Now()
	l.measure(fmt.Sprintf("get a pod beside %d listers", listers), min(gets, 1000), 1, func(_, i int) error {
		_, err := l.callers[0].CoreV1().Pods("default").Get(ctx, benchPod(i%l.b.objects).Name, metav1.GetOptions{})
		return err
	})
	report("lists meanwhile", "/s", float64(lists.Load())/time.Since(began).Seconds())
	cancel()
	group.Wait()
	if idle.Resident > 0 {
		report("resident at most meanwhile", "MB", peak.Resident)
		report("that is, of idle", "×", peak.Resident/idle.Resident)
	}
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
