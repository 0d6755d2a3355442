package extender

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	config "k8s.io/kube-scheduler/config/v1"
)

// program answers every question with the same, and keeps the last one.
type program struct {
	status       int
	answer       string
	path, method string
	kind, asked  string
	hold         chan struct{}
}

func (p *program) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.path, p.method, p.kind, p.asked = r.URL.Path, r.Method, r.Header.Get("Content-Type"), string(body)
	if p.hold != nil {
		<-p.hold
	}
	if p.status != 0 {
		w.WriteHeader(p.status)
	}
	_, _ = io.WriteString(w, p.answer)
}

// asking returns an extender that asks p; its URL ends with a slash, which is dropped.
func asking(t *testing.T, p *program, change ...func(*config.Extender)) *Extender {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	c := config.Extender{URLPrefix: server.URL + "/x/", FilterVerb: "filter", PrioritizeVerb: "prioritize", BindVerb: "bind", PreemptVerb: "preempt", Weight: 3}
	for _, f := range change {
		f(&c)
	}
	list, err := New([]config.Extender{c})
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func cached(c *config.Extender)    { c.NodeCacheCapable = true }
func ignorable(c *config.Extender) { c.Ignorable = true }

func podOf(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID("uid-" + name)}}
}

func nodesOf(names ...string) (list []*corev1.Node) {
	for _, name := range names {
		list = append(list, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return list
}

// failed wants an error; PREFIX stands for the extender's URL, @ for that without the slash.
func failed(t *testing.T, what string, e *Extender, err error, want string) {
	t.Helper()
	want = strings.NewReplacer("@", strings.TrimRight(e.URLPrefix, "/"), "PREFIX", e.URLPrefix).Replace(want)
	if err == nil && want != "" || err != nil && (want == "" || !strings.HasPrefix(err.Error(), want)) {
		t.Errorf("%s: error %v, want %s", what, err, want)
	}
}

func TestFilter(t *testing.T) {
	whole := `{"Nodes":{"items":[{"metadata":{"name":"a"}}]},"FailedNodes":{"b":"no"},"FailedAndUnresolvableNodes":{"c":"never"}}`
	for name, tt := range map[string]struct {
		program program
		change  func(*config.Extender)
		want    string
		wrong   string
	}{
		"nodes":              {program{answer: whole}, func(*config.Extender) {}, "[a] map[b:no] map[c:never]", ""},
		"names":              {program{answer: `{"NodeNames":["b"]}`}, cached, "[b] map[] map[]", ""},
		"nodes all the same": {program{answer: whole}, cached, "[a] map[b:no] map[c:never]", ""},
		"names uncalled-for": {program{answer: `{"NodeNames":["b"]}`}, func(*config.Extender) {}, "[] map[] map[]", ""},
		"nothing":            {program{answer: `{}`}, cached, "[] map[] map[]", ""},
		"another node":       {program{answer: `{"NodeNames":["z"]}`}, cached, "", `extender "PREFIX" claims a filtered node "z" which is not found in the input node list`},
		"an error":           {program{answer: `{"Error":"I am tired"}`}, cached, "", "I am tired"},
		"a status":           {program{status: 503, answer: whole}, cached, "", "failed filter with extender at URL @/filter, code 503"},
		"no JSON":            {program{answer: "hello"}, cached, "", "read the answer of extender PREFIX to filter: "},
		"no verb":            {program{answer: `{"Error":"x"}`}, func(c *config.Extender) { c.FilterVerb = "" }, "[a b c] map[] map[]", ""},
	} {
		e := asking(t, &tt.program, tt.change)
		got, err := e.Filter(context.Background(), podOf("p"), nodesOf("a", "b", "c"))
		failed(t, name, e, err, tt.wrong)
		if err == nil && fmt.Sprint(got.Kept, got.Failed, got.Final) != tt.want {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
		if e.FilterVerb == "" {
			continue
		}
		var args struct {
			Pod       *corev1.Pod
			Nodes     *corev1.NodeList
			NodeNames *[]string
		}
		if err := json.Unmarshal([]byte(tt.program.asked), &args); err != nil || args.Pod.Name != "p" || (args.Nodes == nil) != e.NodeCacheCapable || (args.NodeNames != nil) != e.NodeCacheCapable {
			t.Errorf("%s: asked %s, %v", name, tt.program.asked, err)
		} else if args.Nodes != nil && len(args.Nodes.Items) != 3 || args.NodeNames != nil && len(*args.NodeNames) != 3 {
			t.Errorf("%s: asked about %s", name, tt.program.asked)
		}
		if tt.program.path != "/x/filter" || tt.program.method != http.MethodPost || tt.program.kind != "application/json" {
			t.Errorf("%s: %s %s %s", name, tt.program.method, tt.program.path, tt.program.kind)
		}
	}
}

// Scores from 0 to 10 are weighted, and of the scale of all others.
func TestPrioritize(t *testing.T) {
	p := program{answer: `[{"Host":"a","Score":4},{"Host":"b","Score":10}]`}
	e := asking(t, &p)
	got, err := e.Prioritize(context.Background(), podOf("p"), nodesOf("a", "b"))
	if err != nil || fmt.Sprint(got) != "map[a:120 b:300]" || p.path != "/x/prioritize" {
		t.Errorf("%v, %v, %s", got, err, p.path)
	}
	p.status = 500
	if _, err := e.Prioritize(context.Background(), podOf("p"), nil); err == nil {
		t.Error("no error")
	}
	e.PrioritizeVerb = ""
	if got, err := e.Prioritize(context.Background(), podOf("p"), nil); len(got) > 0 || err != nil {
		t.Errorf("without a verb: %v, %v", got, err)
	}
}

func TestPreempt(t *testing.T) {
	choices := map[string]Victims{"a": {Pods: []*corev1.Pod{podOf("v")}, Violations: 2}}
	on := map[string][]*corev1.Pod{"a": {podOf("v"), podOf("w")}}
	for name, tt := range map[string]struct {
		answer string
		change func(*config.Extender)
		want   string
		wrong  string
	}{
		"as it was":       {`{"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"uid-v"}],"NumPDBViolations":1}}}`, cached, "map[a:[v] 1]", ""},
		"another pod":     {`{"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"uid-w"},{"UID":"uid-v"}]}}}`, func(*config.Extender) {}, "map[a:[w v] 0]", ""},
		"no node":         {`{}`, cached, "map[]", ""},
		"another node":    {`{"NodeNameToMetaVictims":{"z":{"Pods":[{"UID":"uid-v"}]}}}`, cached, "", `nodeinfo not found for node name "z"`},
		"a pod elsewhere": {`{"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"u"}]}}}`, cached, "", "extender: PREFIX claims to preempt pod (UID: &{u}) on node: a, but the pod is not found on that node"},
		"nobody":          {`{"NodeNameToMetaVictims":{"a":{}}}`, cached, "", `expected at least one victim pod on node "a"`},
		"nobody, ignored": {`{"NodeNameToMetaVictims":{"a":{}}}`, ignorable, "map[]", ""},
		"no JSON":         {"?", ignorable, "", "read the answer"},
	} {
		p := program{answer: tt.answer}
		e := asking(t, &p, tt.change)
		left, err := e.Preempt(context.Background(), podOf("urgent"), choices, on)
		failed(t, name, e, err, tt.wrong)
		got := map[string]string{}
		for node, v := range left {
			got[node] = fmt.Sprint(namesOfPods(v.Pods), v.Violations)
		}
		if err == nil && fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, want %s", name, got, tt.want)
		}
		want := `"NodeNameToVictims":{"a":{"Pods":[{"metadata":{"name":"v"`
		if e.NodeCacheCapable {
			want = `"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"uid-v"}],"NumPDBViolations":2}}`
		}
		if !strings.Contains(p.asked, want) || p.path != "/x/preempt" || strings.Contains(p.asked, "NodeNameToMetaVictims\":{") != e.NodeCacheCapable {
			t.Errorf("%s: asked %s", name, p.asked)
		}
	}
}

func namesOfPods(list []*corev1.Pod) (names []string) {
	for _, p := range list {
		names = append(names, p.Name)
	}
	return names
}

func TestBind(t *testing.T) {
	p := program{answer: "{}"}
	e := asking(t, &p)
	if err := e.Bind(context.Background(), podOf("p"), "a"); err != nil || p.path != "/x/bind" || p.asked != `{"PodName":"p","PodNamespace":"x","PodUID":"uid-p","Node":"a"}` {
		t.Error(err, p.path, p.asked)
	}
	p.answer = `{"Error":"it is full"}`
	failed(t, "an error", e, e.Bind(context.Background(), podOf("p"), "a"), "it is full")
	p.answer = "?"
	failed(t, "no JSON", e, e.Bind(context.Background(), podOf("p"), "a"), "read the answer")
}

func TestWants(t *testing.T) {
	with := func(init bool, r corev1.ResourceRequirements) *corev1.Pod {
		p := podOf("p")
		list := []corev1.Container{{}, {Resources: r}}
		if p.Spec.Containers = list; init {
			p.Spec.InitContainers, p.Spec.Containers = list, nil
		}
		return p
	}
	one := corev1.ResourceList{"example.com/b": resource.MustParse("1")}
	manages := func(names ...string) *Extender {
		e := &Extender{}
		for _, name := range names {
			e.ManagedResources = append(e.ManagedResources, config.ExtenderManagedResource{Name: name})
		}
		return e
	}
	for name, tt := range map[string]struct {
		e    *Extender
		p    *corev1.Pod
		want bool
	}{
		"all":                {manages(), podOf("p"), true},
		"none of its":        {manages("example.com/a"), with(false, corev1.ResourceRequirements{Requests: one}), false},
		"requested":          {manages("example.com/a", "example.com/b"), with(false, corev1.ResourceRequirements{Requests: one}), true},
		"limited":            {manages("example.com/b"), with(false, corev1.ResourceRequirements{Limits: one}), true},
		"by init containers": {manages("example.com/b"), with(true, corev1.ResourceRequirements{Limits: one}), true},
	} {
		if got := tt.e.Wants(tt.p); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Calls end in time, and an extender without an authority is not verified where HTTPS is asked for.
func TestCalls(t *testing.T) {
	p := program{answer: "{}", hold: make(chan struct{})}
	e := asking(t, &p, func(c *config.Extender) { c.HTTPTimeout = metav1.Duration{Duration: 20 * time.Millisecond} })
	if _, err := e.Filter(context.Background(), podOf("p"), nil); err == nil || !strings.Contains(err.Error(), "Client.Timeout exceeded") {
		t.Error(err)
	}
	close(p.hold)
	if limit := asking(t, &program{}).client.Timeout; limit != 5*time.Second {
		t.Error("by default a call takes", limit)
	}
	secret := httptest.NewUnstartedServer(&program{answer: "{}"})
	secret.Config.ErrorLog = log.New(io.Discard, "", 0)
	secret.StartTLS()
	defer secret.Close()
	for verified, want := range map[bool]bool{false: true, true: false} {
		list, err := New([]config.Extender{{URLPrefix: secret.URL, FilterVerb: "f", EnableHTTPS: !verified}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := list[0].Filter(context.Background(), podOf("p"), nil); (err == nil) != want {
			t.Errorf("verified %t: %v", verified, err)
		}
	}
	if _, err := New([]config.Extender{{TLSConfig: &config.ExtenderTLSConfig{CAFile: "/nowhere"}}}); err == nil || !strings.HasPrefix(err.Error(), "extenders[0].tlsConfig: ") {
		t.Error(err)
	}
}
