package test

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

// TestScheduler drives the scheduler of a control plane alone, whose nodes are objects only.
func TestScheduler(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--controllers=serviceaccount-controller")
	c.Server()
	t.Run("explain", func(t *testing.T) { explainPod(t, c) })
	t.Run("nodes of two versions", func(t *testing.T) { nodesOfTwoVersions(t, c) })
	t.Run("groups not served", func(t *testing.T) { groupsNotServed(t, c) })
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
	cluster.Eventually(t, func() error {
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

// explained is what the README's transcript has skiff explain print, at whatever time.
func explained(t *testing.T) *regexp.Regexp {
	t.Helper()
	text := regexp.QuoteMeta(readme(t, "$ skiff explain pod big\n"))
	text = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllLiteralString(text, `\S+Z`)
	return regexp.MustCompile("^" + regexp.MustCompile(`\b\d+s\b`).ReplaceAllLiteralString(text, `\S+s`) + "$")
}

// explainPod is the README's: a pod that fits nowhere, and by how little.
func explainPod(t *testing.T, c *cluster.Cluster) {
	cs := fast(t, c)
	hollow(t, cs, schedulertest.Node(0))
	create(t, cs, asking("web", "31"))
	create(t, cs, asking("big", "1200m"))
	cluster.Eventually(t, func() error {
		out, err := c.Skiff("explain", "pod", "big")
		if want := explained(t); err == nil && !want.MatchString(out) {
			err = fmt.Errorf("want %s\nin:\n%s", want, out)
		}
		return err
	})
	const event = `Warning +FailedScheduling +\S+ +default-scheduler +0/1 nodes are available: 1 Insufficient cpu\. ` + // as upstream's
		`preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod\.\n`
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("describe", "pod", "big"); !regexp.MustCompile(event).MatchString(out) || !strings.Contains(out, "PodScheduled   False") {
			return fmt.Errorf("described:\n%s", out)
		}
		return nil
	})
	if out, err := c.Skiff("explain", "pod", "nobody"); err == nil || !strings.Contains(out, `pods "nobody" not found`) {
		t.Errorf("a pod that is not there: %v\n%s", err, out)
	}
	if out, err := c.Skiff("explain", "pod", "big", "-o", "json"); err != nil || !strings.Contains(out, `"missing":"200m"`) {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
	if out, err := c.Skiff("explain", "pod", "big", "-o", "yaml"); err != nil || !strings.Contains(out, "    missing: 200m\n") {
		t.Errorf("as YAML: %v\n%s", err, out)
	}
	const right = `cannot get resource "pods/explain" in API group "" in the namespace "default"`
	if out, err := c.TryKubectl("--as=nobody", "get", "--raw", "/api/v1/namespaces/default/pods/big/explain"); err == nil || !strings.Contains(out, right) {
		t.Errorf("without the right: %v\n%s", err, out)
	}
	c.Kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
	c.Kubectl("delete", "nodes", "--all")
}

// nodesOfTwoVersions: a pod that needs a feature which the older node does not declare goes to the newer one, waits where it may only go to the older, and
// a change for which its node lacks a feature is refused.
func nodesOfTwoVersions(t *testing.T, c *cluster.Cluster) {
	cs, ctx := fast(t, c), context.Background()
	for i, features := range [][]string{nil, {"InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"}} {
		n := schedulertest.Node(i)
		n.Name, n.Status.DeclaredFeatures = [...]string{"old", "new"}[i], features
		hollow(t, cs, n)
	}
	needing := func(name, node string) *corev1.Pod {
		p := asking(name, "1")
		never := corev1.ContainerRestartPolicyNever
		p.Spec.Containers[0].RestartPolicy = &never
		p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
		if node != "" {
			p.Spec.NodeSelector = map[string]string{"version": node}
		}
		return p
	}
	c.Kubectl("label", "node", "old", "version=old", "kubernetes.io/os=linux")
	for i := range 3 {
		create(t, cs, needing(fmt.Sprint("any-", i), ""))
	}
	create(t, cs, needing("waits", "old"))
	is := func(name string, check func(p *corev1.Pod) bool) {
		t.Helper()
		cluster.Eventually(t, func() error {
			p, err := cs.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
			if err == nil && !check(p) {
				err = fmt.Errorf("pod %s: node %q, status %+v", name, p.Spec.NodeName, p.Status)
			}
			return err
		})
	}
	for i := range 3 {
		is(fmt.Sprint("any-", i), func(p *corev1.Pod) bool { return p.Spec.NodeName == "new" })
	}
	is("waits", func(p *corev1.Pod) bool {
		return len(p.Status.Conditions) == 1 && strings.HasPrefix(p.Status.Conditions[0].Message,
			"0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't match Pod's required features. ")
	})
	if out, err := c.Skiff("explain", "pod", "waits"); err != nil || !strings.Contains(out, "not declared by the node: RestartAllContainersOnContainerExits") {
		t.Errorf("explained: %v\n%s", err, out)
	}
	c.Kubectl("patch", "node", "old", "--subresource=status", "--type=merge", "-p", `{"status":{"declaredFeatures":["RestartAllContainersOnContainerExits"]}}`)
	is("waits", func(p *corev1.Pod) bool { return p.Spec.NodeName == "old" })

	whole := asking("whole", "1")
	whole.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}
	whole.Spec.NodeSelector = map[string]string{"version": "old"}
	create(t, cs, whole)
	is("whole", func(p *corev1.Pod) bool { return p.Spec.NodeName == "old" })
	const larger = `{"spec":{"resources":{"requests":{"cpu":"2"}}}}`
	out, err := c.TryKubectl("patch", "pod", "whole", "--subresource=resize", "-p", larger)
	if want := `pods "whole" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node "old"`; err == nil || !strings.Contains(out, want) {
		t.Errorf("a resize that the node does not know: %v\n%s", err, out)
	}
	c.Kubectl("patch", "node", "old", "--subresource=status", "--type=merge", "-p",
		`{"status":{"declaredFeatures":["InPlacePodLevelResourcesVerticalScaling","RestartAllContainersOnContainerExits"]}}`)
	c.Kubectl("patch", "pod", "whole", "--subresource=resize", "-p", larger)
	c.Kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
	c.Kubectl("delete", "nodes", "--all")
}

// killedWhileBinding: a crash amid ten thousand bindings. Every pod is bound, to the node it was first bound to; then the nodes take as many more as they
// have room for, and not one too many.
func killedWhileBinding(t *testing.T, c *cluster.Cluster) {
	const nodes, pods, takes = 92, 10000, 110
	cs := fast(t, c)
	for i := range nodes {
		hollow(t, cs, schedulertest.Node(i+1))
	}
	done := make(chan struct{})
	go func() { defer close(done); createAll(t, func() *kubernetes.Clientset { return fast(t, c) }, 0, pods) }()
	cluster.Eventually(t, func() error {
		if n := len(bindings(t, cs)); n < pods/3 {
			return fmt.Errorf("%d of %d pods are bound", n, pods)
		}
		return nil
	})
	before := bindings(t, cs)
	c.Kill()
	c.Server()
	<-done
	allBound(t, c, pods)
	now := bindings(t, fast(t, c))
	for name, node := range before {
		if now[name] != node {
			t.Errorf("%s was on %s and is on %s", name, node, now[name])
		}
	}
	createAll(t, func() *kubernetes.Clientset { return fast(t, c) }, pods, nodes*takes+1)
	allBound(t, c, nodes*takes)
	on := map[string]int{}
	for _, node := range bindings(t, fast(t, c)) {
		on[node]++
	}
	for node, n := range on {
		if n != takes {
			t.Errorf("%s has %d pods and takes %d", node, n, takes)
		}
	}
}

// createAll creates the pods from first to end, each until the server says that it has it.
func createAll(t *testing.T, client func() *kubernetes.Clientset, first, end int) {
	const callers = 16
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			cs := client()
			for i := first + caller; i < end; i += callers {
				p := schedulertest.Shapes[0].Pod(i)
				err := retry.OnError(wait.Backoff{Duration: 50 * time.Millisecond, Steps: 2000}, func(error) bool { return true }, func() error {
					_, err := cs.CoreV1().Pods("default").Create(context.Background(), p, metav1.CreateOptions{})
					if apierrors.IsAlreadyExists(err) {
						return nil // it was done, and the answer lost
					}
					return err
				})
				if err != nil {
					t.Errorf("create %s: %v", p.Name, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func allBound(t *testing.T, c *cluster.Cluster, pods int) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if n := len(bindings(t, fast(t, c))); n != pods {
			return fmt.Errorf("%d of %d pods are bound", n, pods)
		}
		return nil
	})
}

// TestTwoSchedulers: two servers on one etcd, each with a scheduler. One works and the other stands by, whoever is asked, and when the first is killed amid
// its bindings the other takes its place: no pod is bound twice or lost, no node has more than it takes. The first, started again, stands by.
func TestTwoSchedulers(t *testing.T) {
	t.Parallel()
	const nodes, pods, takes = 20, 2200, 110
	flags := func(port string) []string {
		return []string{"--no-agent", "--leader-elect", "--controllers=serviceaccount-controller", "--etcd-endpoints", etcdURL, "--listen", "127.0.0.1:" + port}
	}
	bin := cluster.GoBuild(t, "go.etcd.io/etcd/server/v3")
	first := cluster.New(t, flags("6443")...)
	etcd := &etcdServer{t: t, c: first, bin: bin, data: filepath.Join(t.TempDir(), "etcd")}
	etcd.start()
	t.Cleanup(func() { etcd.kill() })
	first.Server()
	second := first.Host().New(t, flags("6444")...)
	second.Server()
	for i := range nodes {
		hollow(t, fast(t, first), schedulertest.Node(i))
	}
	create(t, fast(t, first), asking("first", "1m"))
	cluster.Eventually(t, func() error { return works(first) })
	if err := works(second); err == nil {
		t.Error("two are at work")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		createAll(t, func() *kubernetes.Clientset { return fast(t, second) }, 0, pods-1)
	}()
	cluster.Eventually(t, func() error {
		if works(second) == nil {
			t.Error("two are at work")
		}
		if n := len(bindings(t, fast(t, second))); n < pods/4 {
			return fmt.Errorf("%d of %d pods are bound", n, pods)
		}
		return nil
	})
	before := bindings(t, fast(t, second))
	first.Kill()
	cluster.Eventually(t, func() error { return works(second) })
	first.Server()
	<-done
	allBound(t, second, pods)
	if works(first) == nil {
		t.Error("two are at work after one came back")
	}
	on := map[string]int{}
	for name, node := range bindings(t, fast(t, second)) {
		if on[node]++; before[name] != "" && before[name] != node {
			t.Errorf("%s was on %s and is on %s", name, before[name], node)
		}
	}
	for node, n := range on {
		if n != takes {
			t.Errorf("%s has %d pods and takes %d", node, n, takes)
		}
	}
}

// works asks the scheduler of a server about a pod: one that stands by does not know.
func works(c *cluster.Cluster) error {
	out, err := c.Skiff("explain", "pod", "first")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
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
