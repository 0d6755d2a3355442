package apiserver_test

import (
	"bufio"
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// figures are what the server shows now.
func (f *fixture) figures() string {
	f.Helper()
	return string(f.ask("GET /metrics", "").ok(200).body)
}

// figure is the value of one series, which must be there.
func (f *fixture) figure(series string) float64 {
	f.Helper()
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(f.figures())
	if found == nil {
		f.Fatalf("no %s", series)
	}
	n, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		f.Fatal(err)
	}
	return n
}

// Requests are counted by the labels that upstream's dashboards and alerts go by.
func TestRequestsAreCountedLikeUpstreams(t *testing.T) {
	f := start(t)
	f.healthy()
	alice := f.client("alice")
	for _, r := range []struct {
		who     *http.Client
		request string
		body    string
		headers []string
		code    int
	}{
		{f.admin, "POST " + maps, `{"metadata":{"name":"a"}}`, nil, 201},
		{f.admin, "POST " + maps + "?dryRun=All", `{"metadata":{"name":"b"}}`, nil, 201},
		{f.admin, "POST " + maps + "?dryRun=Some", `{"metadata":{"name":"b"}}`, nil, 422},
		{f.admin, "GET " + maps + "/a", "", nil, 200},
		{f.admin, "GET " + maps + "/none", "", nil, 404},
		{f.admin, "GET " + maps, "", nil, 200},
		{f.admin, "GET " + maps + "?fieldSelector=metadata.name%3Da", "", nil, 200},
		{f.admin, "GET /api/v1/configmaps", "", nil, 200},
		{f.admin, "PUT " + maps + "/a", `{"metadata":{"name":"a"},"data":{"k":"1"}}`, nil, 200},
		{f.admin, "PATCH " + maps + "/a", `{"data":{"k":"2"}}`, []string{"Content-Type", "application/merge-patch+json"}, 200},
		{f.admin, "PATCH " + maps + "/a?fieldManager=me&force=true", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"3"}}`, []string{"Content-Type", "application/apply-patch+yaml"}, 200},
		{f.admin, "OPTIONS " + maps, "", nil, 405},
		{f.admin, "GET /api/v1/namespaces/default/pods/none/log", "", nil, 404},
		{f.admin, "GET /apis/apps/v1/namespaces/default/deployments/none/scale", "", nil, 404},
		{f.admin, "GET /api/v1/namespaces/default/endpoints", "", nil, 200},
		{f.admin, "GET /livez", "", nil, 200},
		{f.admin, "GET /apis", "", nil, 200},
		{alice, "GET /api/v1/nodes", "", nil, 403},
		{alice, "GET /apis/made.up/v1/inventions/eins", "", nil, 403},
		{f.admin, "GET /apis/made.up/v1/inventions/zwei", "", nil, 404},
		{f.admin, "GET " + maps + "/a/inventions", "", nil, 404},
		{f.admin, "DELETE " + maps + "/a", "", nil, 200},
		{f.admin, "DELETE " + maps, "", nil, 200},
	} {
		f.askAs(r.who, r.request, r.body, r.headers...).ok(r.code)
	}
	text := f.figures()
	ofMaps := func(code, dryRun, scope, verb string) string {
		return `apiserver_request_total{code="` + code + `",component="apiserver",dry_run="` + dryRun + `",group="",resource="configmaps",scope="` + scope +
			`",subresource="",verb="` + verb + `",version="v1"} `
	}
	const upToVerb = `component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"`
	for _, want := range []string{
		ofMaps("201", "", "resource", "POST") + "1", ofMaps("201", "All", "resource", "POST") + "1", ofMaps("422", "invalid", "resource", "POST") + "1",
		ofMaps("200", "", "resource", "GET") + "1", ofMaps("404", "", "resource", "GET") + "1",
		ofMaps("200", "", "namespace", "LIST") + "2", ofMaps("200", "", "cluster", "LIST") + "1",
		ofMaps("200", "", "resource", "PUT") + "1", ofMaps("200", "", "resource", "PATCH") + "1", ofMaps("200", "", "resource", "APPLY") + "1",
		ofMaps("405", "", "namespace", "other") + "1", ofMaps("200", "", "resource", "DELETE") + "1", ofMaps("200", "", "namespace", "DELETE") + "1",
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="log",verb="CONNECT",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="apps",resource="deployments",scope="resource",subresource="scale",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="403",component="apiserver",dry_run="",group="",resource="nodes",scope="cluster",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/livez",verb="GET",version=""} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="",scope="",subresource="/apis",verb="GET",version=""} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 2`,
		`apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1",le="30"} 2`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_sli_duration_seconds_count{` + upToVerb + `} 2`,
		`apiserver_request_sli_duration_seconds_bucket{` + upToVerb + `,le="5"} 2`,
		`apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_response_sizes_count{` + upToVerb + `} 2`,
		`apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, none := range []string{"made.up", "inventions", `apiserver_response_sizes_count{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST"`} {
		if strings.Contains(text, none) {
			t.Errorf("there is %s", none)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "apiserver_request_total") {
				t.Log(line)
			}
		}
	}
}

// Watches and connections are counted while they are open, and a watch that begins with what there is when all of that has been sent.
func TestLongRequestsAreCountedWhileTheyRun(t *testing.T) {
	f := start(t)
	const series = `apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="WATCH",version="v1"}`
	const lists = `apiserver_watch_list_duration_seconds_count{group="",resource="configmaps",scope="resource",version="v1"}`
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	req, _ := http.NewRequestWithContext(watching, http.MethodGet, "https://"+f.host+
		"/api/v1/configmaps?watch=true&fieldSelector=metadata.name%3Da&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", nil)
	resp, err := f.admin.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil { // the bookmark is on its way
		t.Fatal(err)
	}
	if n := f.figure(series); n != 1 {
		t.Errorf("%v watches", n)
	}
	soon(t, func() bool { return strings.Contains(f.figures(), lists+" 1\n") })
	cancel()
	soon(t, func() bool { return f.figure(series) == 0 })
	soon(t, func() bool {
		return strings.Contains(f.figures(), `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="cluster",subresource="",verb="WATCH",version="v1"} 1`)
	})
}

// How long it took to find out who asks and whether they may, who decided that, and how long events are, by upstream's names and buckets.
func TestFiltersAndEventsAreMeasured(t *testing.T) {
	f := start(t)
	f.allow("alice", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}})
	alice := f.client("alice")
	f.soon(alice, "GET "+maps, 200)
	f.Must(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}})
	f.askAs(f.client("system:node:one", "system:nodes"), "GET /api/v1/nodes/one", "").ok(200)
	before := f.figures()
	f.askAs(alice, "GET "+maps, "").ok(200)
	f.askAs(alice, "GET /api/v1/nodes", "").ok(403)
	f.askAs(f.client(""), "GET /version", "", bearer("nonsense")...).ok(401)
	more := func(series string, n float64) {
		t.Helper()
		var was float64
		for line := range strings.Lines(before) {
			if text, is := strings.CutPrefix(line, series+" "); is {
				was, _ = strconv.ParseFloat(strings.TrimSpace(text), 64)
			}
		}
		if got := f.figure(series) - was; got != n {
			t.Errorf("%s: %v more, want %v", series, got, n)
		}
	}
	more(`apiserver_authorization_decisions_total{decision="allowed",name="rbac",type="RBAC"}`, 1)
	more(`apiserver_authorization_decisions_total{decision="allowed",name="node",type="Node"}`, 0)
	if f.figure(`apiserver_authorization_decisions_total{decision="allowed",name="node",type="Node"}`) != 1 {
		t.Error("what a node may is not counted as the node authorizer's")
	}
	more(`authorization_duration_seconds_count{result="no-opinion"}`, 1)
	more(`authorization_duration_seconds_bucket{result="no-opinion",le="16.384"}`, 1)
	more(`authentication_duration_seconds_count{result="error"}`, 1)
	more(`authentication_duration_seconds_bucket{result="error",le="16.384"}`, 1)
	for _, result := range []string{`authentication_duration_seconds_sum{result="success"}`, `authorization_duration_seconds_sum{result="allowed"}`} {
		if sum := f.figure(result); sum <= 0 || sum > 600 {
			t.Errorf("%s: %v", result, sum)
		}
	}

	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	req, _ := http.NewRequestWithContext(watching, http.MethodGet, "https://"+f.host+maps+"?watch=true", nil)
	resp, err := f.admin.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	f.ask("POST "+maps, `{"metadata":{"name":"a"}}`).ok(201)
	event, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	const of = `{group="",resource="configmaps",version="v1"}`
	soon(t, func() bool { return strings.Contains(f.figures(), "apiserver_watch_events_total"+of+" 1\n") })
	if n, sum := f.figure("apiserver_watch_events_sizes_count"+of), f.figure("apiserver_watch_events_sizes_sum"+of); n != 1 || sum != float64(len(event)) {
		t.Errorf("%v events of %v bytes, want one of %d", n, sum, len(event))
	}
	f.figure(`apiserver_watch_events_sizes_bucket{group="",resource="configmaps",version="v1",le="131072"}`)
}

// soon waits until something holds.
func soon(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to hold")
		}
	}
}

// What webhooks took is no fault of the server's.
func TestWebhooksAreNotCountedAgainstTheServer(t *testing.T) {
	f := start(t)
	h := hooksFor(f)
	var took atomic.Int64
	h.on("/slow", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		began := time.Now()
		time.Sleep(50 * time.Millisecond)
		took.Add(int64(time.Since(began)))
		return &admissionv1.AdmissionResponse{Allowed: true}
	})
	h.configure("Validating", "slow", "/slow", configMapRule, "")
	f.ask("POST /api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"}}`).ok(201)
	const labels = `group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"}`
	all := f.figure(`apiserver_request_duration_seconds_sum{component="apiserver",dry_run="",` + labels)
	own := f.figure(`apiserver_request_sli_duration_seconds_sum{component="apiserver",` + labels)
	if hook := time.Duration(took.Load()).Seconds(); hook < 0.05 || own <= 0 || all-own < hook {
		t.Errorf("of %v s the webhook took %v, and %v are counted against the server", all, hook, own)
	}
}
