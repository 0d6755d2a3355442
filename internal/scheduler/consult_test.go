package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	extender "k8s.io/kube-scheduler/extender/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

// outside is an extender: a program of its own behind HTTP. Nodes b and c are not to its taste, d is.
type outside struct {
	client *clienttest.Client
	hold   chan struct{} // answers wait until it is closed; nil: they don't
	holds  string        // the verb whose answers do; empty: all

	mu    sync.Mutex
	calls []string
	most  int // answers that were under way at once
	now   int
}

func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb := path.Base(r.URL.Path)
	o.mu.Lock()
	o.calls = append(o.calls, verb)
	if verb != "bind" { // which comes after, beside the next question
		o.now++
		o.most = max(o.most, o.now)
	}
	o.mu.Unlock()
	if o.hold != nil && (o.holds == "" || o.holds == verb) {
		<-o.hold
	}
	defer func() {
		o.mu.Lock()
		if verb != "bind" {
			o.now--
		}
		o.mu.Unlock()
	}()
	answer := map[string]func(*json.Decoder) any{"filter": o.filter, "prioritize": o.prioritize, "bind": o.bind, "preempt": o.preempt}[verb]
	if answer == nil {
		http.Error(w, "no such verb", http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(answer(json.NewDecoder(r.Body)))
}

func (o *outside) filter(body *json.Decoder) any {
	var args extender.ExtenderArgs
	if err := body.Decode(&args); err != nil {
		return extender.ExtenderFilterResult{Error: err.Error()}
	}
	out := extender.ExtenderFilterResult{Nodes: &corev1.NodeList{}, FailedNodes: map[string]string{}, FailedAndUnresolvableNodes: map[string]string{}}
	for _, n := range args.Nodes.Items {
		switch {
		case n.Name == "b" || args.Pod.Labels["nowhere"] != "":
			out.FailedNodes[n.Name] = "not to my taste"
		case n.Name == "c":
			out.FailedAndUnresolvableNodes[n.Name] = "never"
		default:
			out.Nodes.Items = append(out.Nodes.Items, n)
		}
	}
	return out
}

func (o *outside) prioritize(*json.Decoder) any {
	return extender.HostPriorityList{{Host: "a", Score: 1}, {Host: "d", Score: 10}}
}

func (o *outside) bind(body *json.Decoder) any {
	var args extender.ExtenderBindingArgs
	if err := body.Decode(&args); err != nil {
		return extender.ExtenderBindingResult{Error: err.Error()}
	}
	meta := metav1.ObjectMeta{Namespace: args.PodNamespace, Name: args.PodName, UID: args.PodUID}
	if err := o.client.SubResource("binding").Create(context.Background(), &corev1.Pod{ObjectMeta: meta},
		&corev1.Binding{ObjectMeta: meta, Target: corev1.ObjectReference{Name: args.Node}}); err != nil {
		return extender.ExtenderBindingResult{Error: err.Error()}
	}
	return extender.ExtenderBindingResult{}
}

// preempt lets only pods of node d give way.
func (o *outside) preempt(body *json.Decoder) any {
	var args extender.ExtenderPreemptionArgs
	out := extender.ExtenderPreemptionResult{NodeNameToMetaVictims: map[string]*extender.MetaVictims{}}
	if body.Decode(&args) == nil && args.NodeNameToVictims["d"] != nil {
		meta := &extender.MetaVictims{}
		for _, p := range args.NodeNameToVictims["d"].Pods {
			meta.Pods = append(meta.Pods, &extender.MetaPod{UID: string(p.UID)})
		}
		out.NodeNameToMetaVictims["d"] = meta
	}
	return out
}

func (o *outside) called(verb string) (count int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(o.calls), func(c string) bool { return c != verb }))
}

func beginExtended(t *testing.T, o *outside, extra string, objects ...crclient.Object) *clienttest.Client {
	t.Helper()
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	_, c := beginWith(t, settingsOf(t, fmt.Sprintf("extenders:\n- urlPrefix: %s/x\n  filterVerb: filter\n  prioritizeVerb: prioritize\n  weight: 5\n%s", server.URL, extra)), objects...)
	o.client = c
	return c
}

// An extender filters, scores and binds; why it refuses nodes is told as any filter's reason is.
func TestExtender(t *testing.T) {
	ctx := context.Background()
	o := &outside{}
	c := beginExtended(t, o, "  bindVerb: bind\n", node("a", "2"), node("b", "2"), node("c", "2"), node("d", "1"))
	nowhere := pod("nowhere", "100m")
	nowhere.Labels = map[string]string{"nowhere": "x"}
	for _, p := range []*corev1.Pod{pod("p", "900m"), nowhere} {
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "the pod placed where the extender likes it", func() bool { return get(t, c, "p").Spec.NodeName == "d" })
	if o.called("bind") != 1 {
		t.Error("the extender did not bind")
	}
	clienttest.Eventually(t, "the reason", func() bool {
		return strings.HasPrefix(why(get(t, c, "nowhere")), "Unschedulable: 0/4 nodes are available: 4 not to my taste. preemption: 0/4 nodes are available: 4 No preemption victims")
	})
	if o.most > 1 {
		t.Errorf("the extender was asked about %d pods at once", o.most)
	}
}

// Pods that no extender has to do with do not wait for a slow one; and a pod that is deleted while one thinks about it is not placed.
func TestSlowExtender(t *testing.T) {
	ctx := context.Background()
	o := &outside{hold: make(chan struct{})}
	c := beginExtended(t, o, "  managedResources: [{name: example.com/thing, ignoredByScheduler: true}]\n", node("a", "2"))
	managed := func(name string) *corev1.Pod {
		p := pod(name, "100m")
		p.Spec.Containers[0].Resources.Requests["example.com/thing"] = resource.MustParse("1")
		return p
	}
	for _, p := range []*corev1.Pod{managed("m1"), managed("m2"), managed("m3"), pod("plain", "100m")} {
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "the plain pod placed", func() bool { return get(t, c, "plain").Spec.NodeName == "a" })
	clienttest.Eventually(t, "the extender asked", func() bool { return o.called("filter") == 1 })
	if err := c.Delete(ctx, get(t, c, "m2")); err != nil {
		t.Fatal(err)
	}
	close(o.hold)
	clienttest.Eventually(t, "the others placed", func() bool {
		return get(t, c, "m1").Spec.NodeName == "a" && get(t, c, "m3").Spec.NodeName == "a"
	})
	if o.most > 1 {
		t.Errorf("the extender was asked about %d pods at once", o.most)
	}
}

// An extender that is away holds its pods up, unless it may be ignored.
func TestExtenderAway(t *testing.T) {
	ctx := context.Background()
	gone := httptest.NewServer(http.NotFoundHandler())
	url := gone.URL
	gone.Close()
	text := "extenders: [{urlPrefix: '%s', filterVerb: filter, ignorable: %t}]\n"
	_, strict := beginWith(t, settingsOf(t, fmt.Sprintf(text, url, false)), node("a", "2"))
	_, mild := beginWith(t, settingsOf(t, fmt.Sprintf(text, url, true)), node("a", "2"))
	for _, c := range []*clienttest.Client{strict, mild} {
		if err := c.Create(ctx, pod("p", "100m")); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "the pod placed without the extender", func() bool { return get(t, mild, "p").Spec.NodeName == "a" })
	clienttest.Eventually(t, "the error told", func() bool { return strings.HasPrefix(why(get(t, strict, "p")), "SchedulerError: Post") })
}

// Who gives way is the extender's choice among what would do.
func TestExtenderAndPreemption(t *testing.T) {
	ctx := context.Background()
	o := &outside{}
	c := beginExtended(t, o, "  preemptVerb: preempt\n", node("a", "1"), node("d", "1"),
		priority(on(pod("least", "900m"), "a"), 1), priority(on(pod("more", "900m"), "d"), 5))
	if err := c.Create(ctx, priority(pod("urgent", "500m"), 50)); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the pod placed where the extender has others give way", func() bool { return get(t, c, "urgent").Spec.NodeName == "d" })
	if get(t, c, "least").Spec.NodeName != "a" {
		t.Error("another pod had to go")
	}
}

// An extender that leaves nobody to give way has the pod wait; one that may be done without and does not answer has no say, nor binds.
func TestExtenderWithoutAnswer(t *testing.T) {
	c := beginExtended(t, &outside{}, "  preemptVerb: preempt\n", node("a", "1"), priority(on(pod("low", "900m"), "a"), 1))
	create(t, c, priority(pod("urgent", "500m"), 50))
	clienttest.Eventually(t, "the verdict", func() bool {
		return why(get(t, c, "urgent")) == "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. preemption: no candidate node for preemption"
	})
	c = beginExtended(t, &outside{}, "  preemptVerb: nothing\n  bindVerb: nothing\n  ignorable: true\n", node("a", "1"), priority(on(pod("low", "900m"), "a"), 1))
	create(t, c, priority(pod("urgent", "500m"), 50))
	clienttest.Eventually(t, "the pod placed without the extender", func() bool { return get(t, c, "urgent").Spec.NodeName == "a" })
	c = beginExtended(t, &outside{}, "  bindVerb: nothing\n", node("a", "1"))
	create(t, c, pod("p", "500m"))
	clienttest.Eventually(t, "the error told", func() bool {
		return strings.HasPrefix(why(get(t, c, "p")), "SchedulerError: failed nothing with extender at URL http://127.0.0.1") && strings.HasSuffix(why(get(t, c, "p")), "/x/nothing, code 404")
	})
}

// What happens while an extender is asked who gives way is not missed: the pod is tried again though nobody gives way for it.
func TestChangesWhileAnExtenderIsAsked(t *testing.T) {
	ctx := context.Background()
	tolerate := func(c *clienttest.Client) {
		p := get(t, c, "urgent")
		p.Spec.Tolerations = []corev1.Toleration{{Key: "t", Operator: corev1.TolerationOpExists}}
		if err := c.Update(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(c *clienttest.Client){"a node comes": func(c *clienttest.Client) { create(t, c, node("e", "2")) }, "it tolerates more": tolerate} {
		o := &outside{hold: make(chan struct{}), holds: "preempt"}
		tainted := node("f", "2")
		tainted.Spec.Taints = []corev1.Taint{{Key: "t", Effect: corev1.TaintEffectNoSchedule}}
		c := beginExtended(t, o, "  preemptVerb: preempt\n  managedResources: [{name: example.com/thing, ignoredByScheduler: true}]\n",
			node("a", "1"), tainted, priority(on(pod("low", "900m"), "a"), 1))
		urgent := priority(pod("urgent", "500m"), 50)
		urgent.Spec.Containers[0].Resources.Requests["example.com/thing"] = resource.MustParse("1")
		create(t, c, urgent)
		clienttest.Eventually(t, "the extender asked", func() bool { return o.called("preempt") == 1 })
		change(c)
		create(t, c, pod("mark", "90m")) // once it is placed, the loop has seen what came before
		clienttest.Eventually(t, "another pod placed meanwhile", func() bool { return get(t, c, "mark").Spec.NodeName != "" })
		close(o.hold)
		clienttest.Eventually(t, what+": the pod placed", func() bool { return get(t, c, "urgent").Spec.NodeName != "" })
	}
}
