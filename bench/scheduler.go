package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

// boundPods is how many pods of each shape are created and waited for.
const boundPods = 3000

// benchAlgorithm measures the scheduler's algorithm without an API server.
func benchAlgorithm(b *bench) {
	for _, nodes := range []int{1000, 5000, 50000} {
		for _, s := range b.shapes() {
			schedulerAlone(b, nodes, s)
		}
	}
}

// benchScheduler measures all the way from a client's create over HTTPS to the binding in the API.
func benchScheduler(b *bench) {
	b.table("nodes", "shape", "create to bound /s", "server CPU a pod, ms", "of which after the create, ms", "resident MB")
	for _, nodes := range b.nodes {
		newTarget(b, needs{}).schedule(nodes)
	}
	b.tell()
}

// figures of pods that were created and bound. Without a server of our own only the rate is known.
type figures struct {
	rate  rounded // pods a second
	cpu   rounded // milliseconds a pod, the server's
	spent time.Duration

	resident rounded // megabytes
}

// rounded is a figure for a table.
type rounded float64

func (r rounded) String() string {
	if r < 10 {
		return fmt.Sprintf("%.2f", float64(r))
	}
	return fmt.Sprintf("%.0f", float64(r))
}

func schedulerAlone(b *bench, nodes int, s schedulertest.Shape) {
	const pods = 20000
	a := schedulertest.NewAlone(nodes)
	a.Schedule(s, 200) // classes are made once
	took, placed := a.Schedule(s, pods)
	if placed == 0 {
		b.Errorf("%s: no pod was placed", s.Name)
	}
	report(fmt.Sprintf("alone, %d nodes, %s", nodes, s.Name), "pods/s", pods/took.Seconds())
}

// shapes are those whose names contain what was asked for.
func (b *bench) shapes() (list []schedulertest.Shape) {
	for _, s := range schedulertest.Shapes {
		if strings.Contains(s.Name, b.shape) {
			list = append(list, s)
		}
	}
	return list
}

// target is the API that is driven: a cluster of our own, or that of a kubeconfig, of which neither CPU nor memory is known.
type target struct {
	b       *bench
	own     *cluster.Cluster // nil with --kubeconfig
	clients []*kubernetes.Clientset
	ctx     context.Context
}

// needs are what runs besides the controller for service accounts, what is served besides, and a file with the scheduler's configuration, "" if it has none.
type needs struct {
	controllers, served []string
	scheduler           string
}

func newTarget(b *bench, n needs) *target {
	t := &target{b: b}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	b.Cleanup(cancel)
	t.ctx = ctx
	var cfg *rest.Config
	if b.kubeconfig != "" {
		var err error
		if cfg, err = clientcmd.BuildConfigFromFlags("", b.kubeconfig); err != nil {
			b.Fatal(err)
		}
	} else {
		t.own = cluster.New(b, "--no-agent", "--controllers="+strings.Join(append(n.controllers, "serviceaccount-controller"), ","),
			"--runtime-config="+strings.Join(n.served, ","), "--scheduler-config="+n.scheduler)
		t.own.Server()
		cfg = t.own.RESTConfig()
	}
	cfg.ContentType, cfg.QPS = "application/vnd.kubernetes.protobuf", -1
	for range b.callers { // each with a connection of its own, as so many programs would
		cs, err := kubernetes.NewForConfig(rest.CopyConfig(cfg))
		if err != nil {
			b.Fatal(err)
		}
		t.clients = append(t.clients, cs)
	}
	t.settled("default")
	return t
}

// settled waits until pods may be made in a namespace.
func (t *target) settled(namespace string) {
	cluster.Eventually(t.b, func() error {
		_, err := t.clients[0].CoreV1().ServiceAccounts(namespace).Get(t.ctx, "default", metav1.GetOptions{})
		return err
	})
}

func (t *target) cpu() time.Duration {
	if t.own == nil {
		return 0
	}
	return t.own.CPU()
}

// schedule makes hollow nodes, then pods of each shape, and takes both away again.
func (t *target) schedule(nodes int) {
	m := meter{t.b, t.cpu}
	m.measure(fmt.Sprintf("create %d nodes", nodes), nodes, len(t.clients), func(caller, i int) error {
		return hollow(t.ctx, t.clients[caller], schedulertest.Node(i))
	})
	unscheduled := t.run(m, fmt.Sprintf("%d nodes, for no scheduler", nodes), boundPods, func(i int) *corev1.Pod {
		p := schedulertest.Shapes[0].Pod(i)
		p.Spec.SchedulerName = "nobody"
		return p
	}, false)
	t.clear()
	placed := 0
	for _, s := range t.b.shapes() {
		name := fmt.Sprintf("%d nodes, %s", nodes, s.Name)
		stop := t.profile(name)
		f := t.run(m, name, boundPods, s.Pod, true)
		stop()
		after, memory := rounded((f.spent-unscheduled.spent).Seconds()*1000/boundPods), "–"
		if t.own != nil {
			report(name+": CPU of scheduling and binding a pod", "ms", float64(after))
			resident := t.own.Memory().Resident
			if placed += boundPods; placed == 2*boundPods {
				report(fmt.Sprintf("resident memory, %d nodes, %d pods", nodes, placed), "MB", resident)
			}
			memory = fmt.Sprintf("%.0f", resident)
		}
		t.b.table(nodes, s.Name, f.rate, f.cpu, after, memory)
		if s.Alone {
			t.clear()
		}
	}
	if t.own != nil {
		t.own.Stop()
		return
	}
	t.clear()
	m.measure(fmt.Sprintf("delete %d nodes", nodes), nodes, len(t.clients), func(caller, i int) error {
		return t.clients[caller].CoreV1().Nodes().Delete(t.ctx, schedulertest.Node(i).Name, metav1.DeleteOptions{})
	})
}

// hollow makes a node without a kubelet. It is Ready from the start, so the taint that admission puts on new nodes is taken off at once; a node
// life-cycle controller, which would miss its heartbeats after a while, is not to run.
func hollow(ctx context.Context, cs *kubernetes.Clientset, node *corev1.Node) error {
	if _, err := cs.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return err
	}
	own, err := json.Marshal(node.Spec.Taints)
	if err != nil {
		return err
	}
	_, err = cs.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"taints":%s}}`, own), metav1.PatchOptions{})
	return err
}

// run creates pods and waits until they are bound, if they are to be.
func (t *target) run(m meter, name string, pods int, pod func(i int) *corev1.Pod, bound bool) (f figures) {
	done := t.bindings(pods)
	first := t.b.number // names are used once
	t.b.number += pods
	cpu, began := t.cpu(), time.Now()
	m.measure(name+": create", pods, len(t.clients), func(caller, i int) error {
		_, err := t.clients[caller].CoreV1().Pods("default").Create(t.ctx, pod(first+i), metav1.CreateOptions{})
		return err
	})
	if !bound {
		f.spent = t.cpu() - cpu
		return f
	}
	select {
	case <-done:
	case <-time.After(10 * time.Minute):
		t.b.Fatalf("%s: not all pods were bound within ten minutes", name)
	}
	f.rate, f.spent = rounded(float64(pods)/time.Since(began).Seconds()), t.cpu()-cpu
	f.cpu = rounded(f.spent.Seconds() * 1000 / float64(pods))
	report(name+": create to bound", "pods/s", float64(f.rate))
	if t.own != nil {
		report(name+": server CPU a pod", "ms", float64(f.cpu))
	}
	return f
}

// clear deletes all pods and waits until they are gone.
func (t *target) clear() {
	zero := int64(0)
	cs := t.clients[0].CoreV1().Pods("default")
	if err := cs.DeleteCollection(t.ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{}); err != nil {
		t.b.Fatal(err)
	}
	cluster.Eventually(t.b, func() error {
		list, err := cs.List(t.ctx, metav1.ListOptions{Limit: 1})
		if err == nil && len(list.Items) > 0 {
			return fmt.Errorf("%s is still there", list.Items[0].Name)
		}
		return err
	})
}

// profile takes a CPU profile of the server into the folder of --profile until stop is called.
func (t *target) profile(name string) (stop func()) {
	if t.b.profile == "" {
		return func() {}
	}
	var group sync.WaitGroup
	group.Go(func() {
		body, err := t.clients[0].CoreV1().RESTClient().Get().AbsPath("/debug/pprof/profile").Param("seconds", "3").Stream(t.ctx)
		if err != nil {
			t.b.Errorf("profile: %v", err)
			return
		}
		defer body.Close()
		f, err := os.Create(t.b.profile + "/" + strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(name) + ".pprof")
		if err != nil {
			t.b.Errorf("profile: %v", err)
			return
		}
		defer f.Close()
		if _, err := io.Copy(f, body); err != nil {
			t.b.Errorf("profile: %v", err)
		}
	})
	return group.Wait
}

// bindings closes the channel once a watcher has seen so many more pods bound.
func (t *target) bindings(pods int) <-chan struct{} {
	cs := t.clients[0].CoreV1().Pods("default")
	list, err := cs.List(t.ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		t.b.Fatal(err)
	}
	w, err := cs.Watch(t.ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "spec.nodeName!="})
	if err != nil {
		t.b.Fatal(err)
	}
	t.b.Cleanup(w.Stop)
	done := make(chan struct{})
	go func() {
		defer w.Stop()
		seen := map[string]bool{}
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && e.Type != watch.Deleted && p.Spec.NodeName != "" {
				if seen[p.Name] = true; len(seen) == pods {
					close(done)
					return
				}
			}
		}
	}()
	return done
}
