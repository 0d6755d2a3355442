package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/test/cluster"
)

const (
	manyPods  = 5000
	manyNodes = 50
	manyIn    = "many"
	// rowsDrawn is more than any window holds, and far less than there is.
	rowsDrawn = 100
)

// TestUIManyPods: a page with 5,000 pods draws those in view, finds any of them, and changes only what changed.
func TestUIManyPods(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--controllers=serviceaccount-controller")
	c.Server()
	fill(t, c)
	b := browse(t, c)
	b.signInByLink()
	b.watchTasks()

	b.goTo("pods")
	b.sees(".count", fmt.Sprint(manyPods))
	b.drawsFew()
	b.do(chromedp.Focus(".filter"), chromedp.SendKeys(".filter", "p-4999"))
	b.sees(".rows", "p-4999")
	b.sees(".count", fmt.Sprintf("1 of %d", manyPods))
	b.do(chromedp.KeyEvent("a", chromedp.KeyModifiers(input.ModifierCtrl)), input.InsertText("node-7 tier=web-17"))
	b.sees(".count", fmt.Sprintf("50 of %d", manyPods))
	b.do(chromedp.KeyEvent(kb.Escape))
	b.sees(".count", fmt.Sprint(manyPods))
	b.do(chromedp.KeyEvent(kb.End))
	b.sees(".rows .at", "p-4999")
	b.drawsFew()

	// One pod changes: its row does, and nearly all others stay the elements that they were.
	b.do(chromedp.Evaluate(`document.querySelectorAll(".rows .row").forEach(e => e.kept = true)`, nil))
	if err := report(c.Client(), 4999, corev1.PodFailed); err != nil {
		t.Fatal(err)
	}
	b.sees(".rows .at", "Failed")
	var anew int
	if b.do(chromedp.Evaluate(`[...document.querySelectorAll(".rows .row")].filter(e => !e.kept).length`, &anew)); anew > 2 {
		t.Errorf("%d rows were made anew when one pod changed", anew)
	}
	for page, sign := range map[string]string{"": fmt.Sprint(manyPods), "workloads": "Workloads", "nodes": "node-7", "service/default/kubernetes": "kubernetes"} {
		b.goTo(page)
		b.sees("main", sign)
		b.drawsFew()
	}
	b.goTo("")
	b.sees(".troubles", "p-4999")
	t.Log(b.tasks())
	uiNothingForeign(b)
}

// drawsFew: the page has no more elements than fit a screen some times over.
func (b *browser) drawsFew() {
	b.t.Helper()
	var drawn struct{ Rows, All int }
	b.do(chromedp.Evaluate(`({Rows: document.querySelectorAll(".rows .row").length, All: document.querySelectorAll("*").length})`, &drawn))
	if drawn.Rows > rowsDrawn || drawn.All > 4000 {
		b.t.Errorf("the page has %d rows, %d elements in all", drawn.Rows, drawn.All)
	}
}

// watchTasks and tasks: how long the page did not answer. It is told, not judged: other tests run beside.
func (b *browser) watchTasks() {
	b.do(chromedp.Evaluate(`window.longest = 0; new PerformanceObserver(l => l.getEntries().forEach(e => window.longest = Math.max(longest, e.duration))).observe({type: "longtask", buffered: true}); 1`, nil))
}

func (b *browser) tasks() string {
	var at struct{ Longest, Heap float64 }
	b.do(chromedp.Evaluate(`({Longest: longest, Heap: performance.memory.usedJSHeapSize / 2**20})`, &at))
	return fmt.Sprintf("the longest task took %.0f ms; the page's heap is %.0f MB", at.Longest, at.Heap)
}

// signInByLink makes the browser the administrator's.
func (b *browser) signInByLink() {
	b.t.Helper()
	link, err := b.c.Skiff("dashboard")
	if err != nil {
		b.t.Fatalf("%v: %s", err, link)
	}
	_, code, _ := strings.Cut(strings.TrimSpace(link), "/ui/#/link/")
	b.do(chromedp.Navigate(b.base + "/ui/#/link/" + code))
	b.sees(".who", "kubernetes-admin")
}

// fill makes nodes and pods through the API, as kubelets would report them.
func fill(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	cfg := c.RESTConfig()
	cfg.QPS = -1
	client := kubernetes.NewForConfigOrDie(cfg)
	ctx := context.Background()
	for i := range manyNodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i)}}
		if _, err := client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		room := corev1.ResourceList{"cpu": resource.MustParse("16"), "memory": resource.MustParse("64Gi"), "pods": resource.MustParse("250")}
		n.Status = corev1.NodeStatus{Capacity: room, Allocatable: room, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}}
		if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.Kubectl("create", "namespace", manyIn)
	cluster.Eventually(t, func() error {
		_, err := client.CoreV1().ServiceAccounts(manyIn).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	var wg sync.WaitGroup
	const workers = 16
	failed := make(chan error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < manyPods; i += workers {
				_, err := client.CoreV1().Pods(manyIn).Create(ctx, uiPod(i), metav1.CreateOptions{})
				if err := errors.Join(err, report(client, i, corev1.PodRunning)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
}

func uiPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%04d", i), Labels: map[string]string{"app": "many", "tier": fmt.Sprintf("web-%d", i%20)}},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%manyNodes), Containers: []corev1.Container{{
			Name: "c", Image: "skiff.dev/web:1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}},
		}}},
	}
}

// report writes a pod's status, as its kubelet would.
func report(client *kubernetes.Clientset, i int, phase corev1.PodPhase) error {
	p, now := uiPod(i), metav1.Now()
	yes := func(t corev1.PodConditionType) corev1.PodCondition {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now}
	}
	p.Status = corev1.PodStatus{
		Phase: phase, PodIP: fmt.Sprintf("10.42.%d.%d", i%manyNodes, i/manyNodes+2), StartTime: &now,
		Conditions: []corev1.PodCondition{yes(corev1.PodScheduled), yes(corev1.PodInitialized), yes(corev1.ContainersReady), yes(corev1.PodReady)},
	}
	if phase == corev1.PodRunning {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: "skiff.dev/web:1", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}
	}
	_, err := client.CoreV1().Pods(manyIn).UpdateStatus(context.Background(), p, metav1.UpdateOptions{})
	return err
}
