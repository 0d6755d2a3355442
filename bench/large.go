package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/test/cluster"
)

const (
	largeFactor  = 5 // 50,000 pods and 5,000 nodes, unless --objects says otherwise
	idleWatchers = 1000
)

// benchLarge looks at what a large cluster holds: bytes an object, long lists, what a watcher costs that hears nothing, and a start with that data.
func benchLarge(b *bench) {
	t := newServer(b)
	l := newLoad(t)
	empty := t.collected()
	n := b.objects * largeFactor
	l.createPods("create pods", 0, n)
	l.createNodes(n / 10)
	full := t.collected()
	report(fmt.Sprintf("%d pods, %d nodes: resident", n, n/10), "MB", full.Resident)
	report("of it anonymous", "MB", full.Anonymous)
	report("memory an object, anonymous", "kB", (full.Anonymous-empty.Anonymous)*1e3/float64(n+n/10))
	l.list("list all, protobuf", protobufMedia, 10)
	l.idle(idleWatchers)
	l.list("list all, JSON, first", jsonMedia, 1)
	report("after that: resident", "MB", t.memory().Resident)
	l.again()
}

// collected is the server's memory once its garbage has been collected, for figures that are compared.
func (t *server) collected() cluster.Memory {
	for range 2 { // what the first gives up the second returns
		if _, err := t.clients(1)[0].CoreV1().RESTClient().Get().AbsPath("/debug/pprof/heap").Param("gc", "1").DoRaw(context.Background()); err != nil {
			t.b.Errorf("collect the server's garbage: %v", err)
		}
	}
	return t.memory()
}

// idle has clients watch all pods, each on a connection of its own, from now on, while nothing happens.
func (l *load) idle(n int) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	list, err := l.callers[0].CoreV1().Pods("default").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		l.b.Fatal(err)
	}
	before := l.collected()
	for _, cs := range l.clients(n) {
		if _, err := cs.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion}); err != nil {
			l.b.Fatal(err)
		}
	}
	after := l.collected()
	report(fmt.Sprintf("an idle watcher (%d): memory", n), "kB", (after.Anonymous-before.Anonymous)*1e3/float64(n))
	cpu, began := l.cpu(), time.Now()
	time.Sleep(5 * time.Second)
	report("all of them idle: CPU", "% of a core", (l.cpu()-cpu).Seconds()/time.Since(began).Seconds()*100)
}

// again stops the server and starts it on the data that is there.
func (l *load) again() {
	if l.c == nil {
		return
	}
	l.c.Terminate()
	began := time.Now()
	l.c.Server()
	l.pids = []int{l.c.PID()}
	cs := l.clients(1)[0]
	if _, err := cs.CoreV1().Pods("default").Get(l.ctx, benchPod(0).Name, metav1.GetOptions{}); err != nil {
		l.b.Errorf("a pod after the start: %v", err)
	}
	report("start with that data, until a pod is read", "s", time.Since(began).Seconds())
	report("of it the server's CPU", "s", l.cpu().Seconds())
	report("after the start: resident", "MB", l.collected().Resident)
	l.counted(cs)
}

// counted checks that the start has lost nothing.
func (l *load) counted(cs *kubernetes.Clientset) {
	pods, err := cs.CoreV1().Pods("default").List(l.ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		l.b.Fatal(err)
	}
	want := int64(l.b.objects * largeFactor)
	if have := int64(len(pods.Items)) + *pods.RemainingItemCount; have != want {
		l.b.Errorf("%d pods are there after the start, want %d", have, want)
	}
}
