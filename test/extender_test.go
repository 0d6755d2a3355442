package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	extender "k8s.io/kube-scheduler/extender/v1"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
	"skiff.dev/skiff/test/cluster"
)

// extends is a scheduler extender: a program of its own behind HTTP, which binds by the API as any client. It has something against the second node, likes
// the third, and lets others give way on the first only.
type extends struct {
	client func() *kubernetes.Clientset

	mu    sync.Mutex
	bound []string
}

// The nodes, by their numbers.
var first, second, third = schedulertest.Node(0).Name, schedulertest.Node(1).Name, schedulertest.Node(2).Name

func (e *extends) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := json.NewDecoder(r.Body), error(nil)
	var answer any
	switch path.Base(r.URL.Path) {
	case "filter":
		answer, err = filterNodes(body)
	case "prioritize":
		answer = extender.HostPriorityList{{Host: first, Score: 1}, {Host: third, Score: 10}}
	case "preempt":
		answer, err = preemptOnFirst(body)
	case "bind":
		answer, err = e.bind(r.Context(), body)
	default:
		err = errors.New("no such verb")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func filterNodes(body *json.Decoder) (out extender.ExtenderFilterResult, err error) {
	var args extender.ExtenderArgs
	if err := body.Decode(&args); err != nil {
		return out, err
	}
	out.Nodes, out.FailedNodes = &corev1.NodeList{}, map[string]string{}
	for _, n := range args.Nodes.Items {
		if n.Name == second || args.Pod.Name == "nowhere" {
			out.FailedNodes[n.Name] = "node(s) were not to the extender's taste"
		} else {
			out.Nodes.Items = append(out.Nodes.Items, n)
		}
	}
	return out, nil
}

func preemptOnFirst(body *json.Decoder) (out extender.ExtenderPreemptionResult, err error) {
	var args extender.ExtenderPreemptionArgs
	if err := body.Decode(&args); err != nil {
		return out, err
	}
	out.NodeNameToMetaVictims = map[string]*extender.MetaVictims{}
	if victims := args.NodeNameToVictims[first]; victims != nil {
		meta := &extender.MetaVictims{NumPDBViolations: victims.NumPDBViolations}
		for _, p := range victims.Pods {
			meta.Pods = append(meta.Pods, &extender.MetaPod{UID: string(p.UID)})
		}
		out.NodeNameToMetaVictims[first] = meta
	}
	return out, nil
}

func (e *extends) bind(ctx context.Context, body *json.Decoder) (out extender.ExtenderBindingResult, err error) {
	var args extender.ExtenderBindingArgs
	if err := body.Decode(&args); err != nil {
		return out, err
	}
	meta := metav1.ObjectMeta{Namespace: args.PodNamespace, Name: args.PodName, UID: args.PodUID}
	if err := e.client().CoreV1().Pods(args.PodNamespace).Bind(ctx, &corev1.Binding{ObjectMeta: meta, Target: corev1.ObjectReference{Kind: "Node", Name: args.Node}},
		metav1.CreateOptions{}); err != nil {
		out.Error = err.Error()
		return out, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bound = append(e.bound, args.PodName)
	return out, nil
}

// TestExtender: a real cluster asks a program outside where pods may go, where they had better go, who gives way, and to bind.
func TestExtender(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	e := &extends{client: func() *kubernetes.Clientset { return c.Client() }}
	l := listen(t, c, "127.0.0.1:0")
	server := &http.Server{Handler: e}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	config := filepath.Join(t.TempDir(), "scheduler.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
extenders:
- {urlPrefix: "http://%s/extender", filterVerb: filter, prioritizeVerb: prioritize, weight: 5, preemptVerb: preempt, bindVerb: bind}
`, l.Addr()), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Flags("--no-agent", "--controllers=serviceaccount-controller", "--scheduler-config", config)
	c.Server()
	cs := fast(t, c)
	for i := range 3 {
		hollow(t, cs, schedulertest.Node(i))
	}
	full := func(name, node string) *corev1.Pod {
		p := asking(name, "31")
		p.Spec.NodeName, p.Spec.TerminationGracePeriodSeconds = node, new(int64)
		return p
	}
	on := func(name, node string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			p, err := cs.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{})
			if err == nil && p.Spec.NodeName != node {
				err = fmt.Errorf("%s is on %q, want %s: %v", name, p.Spec.NodeName, node, p.Status.Conditions)
			}
			return err
		})
	}
	create(t, cs, asking("p", "1"))
	on("p", third) // which the extender likes
	create(t, cs, asking("nowhere", "1"))
	cluster.Eventually(t, func() error {
		out, err := c.TryKubectl("describe", "pod", "nowhere")
		const want = "0/3 nodes are available: 3 node(s) were not to the extender's taste. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("want %q in:\n%s", want, out)
		}
		return err
	})
	for _, node := range []string{first, second, third} {
		create(t, cs, full("full-"+node, node))
	}
	if _, err := cs.SchedulingV1().PriorityClasses().Create(context.Background(), &schedulingv1.PriorityClass{
		ObjectMeta: metav1.ObjectMeta{Name: "urgent"}, Value: 1000}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	urgent := asking("urgent", "20")
	urgent.Spec.PriorityClassName = "urgent"
	create(t, cs, urgent)
	on("urgent", first) // where the extender has others give way
	on("full-"+third, third)
	cluster.Eventually(t, func() error { // the binding is seen before the extender has noted it
		e.mu.Lock()
		defer e.mu.Unlock()
		if got := strings.Join(e.bound, " "); got != "p urgent" {
			return fmt.Errorf("the extender bound %q", got)
		}
		return nil
	})
}
