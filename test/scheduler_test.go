package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

// TestScheduler drives the scheduler of a control plane alone, whose nodes are objects only.
func TestScheduler(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--controllers=serviceaccount-controller")
	c.Server()
	t.Run("explain", func(t *testing.T) { explainPod(t, c) })
	t.Run("killed while it binds", func(t *testing.T) { killedWhileBinding(t, c) })
}

// fast is a client without a limit of its own.
func fast(t *testing.T, c *cluster.Cluster) *kubernetes.Clientset {
	t.Helper()
	cfg := rest.CopyConfig(c.RESTConfig())
	cfg.QPS = -1
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// hollow makes a node without a kubelet.
func hollow(t *testing.T, cs *kubernetes.Clientset, node *corev1.Node) {
	t.Helper()
	ctx := context.Background()
	if _, err := cs.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cs.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// create makes a pod, also while the service account it needs is still being made.
func create(t *testing.T, cs *kubernetes.Clientset, p *corev1.Pod) {
	t.Helper()
	cluster.Eventually(t, time.Minute, func() error {
		_, err := cs.CoreV1().Pods("default").Create(context.Background(), p, metav1.CreateOptions{})
		return err
	})
}

func asking(name, cpu string) *corev1.Pod {
	p := schedulertest.Shapes[0].Pod(0)
	p.Name = name
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse(cpu)
	return p
}

// explainPod is the README's: a pod that fits nowhere, and by how little.
func explainPod(t *testing.T, c *cluster.Cluster) {
	cs := fast(t, c)
	hollow(t, cs, schedulertest.Node(0))
	create(t, cs, asking("web", "31"))
	create(t, cs, asking("big", "1200m"))
	cluster.Eventually(t, time.Minute, func() error {
		out, err := c.Skiff("explain", "pod", "big")
		for _, want := range []string{"0/1 nodes are available: 1 Insufficient cpu.", "cpu: asks 1200m, free 1 of 32 (default/web 31)",
			"fits on hollow-00000 if 200m CPU were free", "no pod is less important"} {
			if err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("want %q in:\n%s", want, out)
			}
		}
		return err
	})
	if out, err := c.Skiff("explain", "pod", "nobody"); err == nil || !strings.Contains(out, `pods "nobody" not found`) {
		t.Errorf("a pod that is not there: %v\n%s", err, out)
	}
	if out, err := c.Skiff("explain", "pod", "big", "-o", "json"); err != nil || !strings.Contains(out, `"missing":"200m"`) {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
}

// killedWhileBinding: after a crash amid many bindings every pod is bound, to the node it was first bound to, and no node has more than it takes.
func killedWhileBinding(t *testing.T, c *cluster.Cluster) {
	const nodes, pods, callers = 25, 2000, 8
	ctx := context.Background()
	cs := fast(t, c)
	for i := range nodes {
		hollow(t, cs, schedulertest.Node(i+1))
	}
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for i := caller; i < pods; i += callers {
				p := schedulertest.Shapes[0].Pod(i)
				if _, err := cs.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{}); err != nil {
					t.Errorf("create %s: %v", p.Name, err)
					return
				}
			}
		})
	}
	all.Wait()
	before := bindings(t, cs)
	c.Kill()
	c.Server()
	cluster.Eventually(t, 2*time.Minute, func() error {
		if n := len(bindings(t, fast(t, c))); n < pods+1 { // and web
			return fmt.Errorf("%d of %d pods are bound", n, pods+1)
		}
		return nil
	})
	on := map[string]int{}
	for name, node := range bindings(t, fast(t, c)) {
		on[node]++
		if was, bound := before[name]; bound && was != node {
			t.Errorf("%s was on %s and is on %s", name, was, node)
		}
	}
	for node, n := range on {
		if n > 110 {
			t.Errorf("%s has %d pods and takes 110", node, n)
		}
	}
}

// bindings are the nodes of all pods that have one.
func bindings(t *testing.T, cs *kubernetes.Clientset) map[string]string {
	t.Helper()
	list, err := cs.CoreV1().Pods("default").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i := range list.Items {
		if node := list.Items[i].Spec.NodeName; node != "" {
			out[list.Items[i].Name] = node
		}
	}
	return out
}
