package apiserver_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// line is one event of a watch: "ADDED a".
func line(e watch.Event) string {
	if st, ok := e.Object.(*metav1.Status); ok {
		return fmt.Sprintf("%s %d %s", e.Type, st.Code, st.Reason)
	}
	return strings.TrimSpace(string(e.Type) + " " + e.Object.(metav1.Object).GetName())
}

// expect reads the watch's next events.
func expect(t *testing.T, w watch.Interface, want ...string) (last watch.Event) {
	t.Helper()
	for _, text := range want {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatalf("the watch ended where %s was to come", text)
			}
			if line(e) != text {
				t.Fatalf("got %s, want %s", line(e), text)
			}
			last = e
		case <-time.After(time.Minute):
			t.Fatalf("%s does not come", text)
		}
	}
	return last
}

func ends(t *testing.T, w watch.Interface, within time.Duration) {
	t.Helper()
	select {
	case e, open := <-w.ResultChan():
		if open {
			t.Errorf("got %s where the watch was to end", line(e))
		}
	case <-time.After(within):
		t.Errorf("the watch does not end in %s", within)
	}
}

func TestWatch(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"))
	for _, media := range []string{"application/json", protobuf} {
		t.Run(media, func(t *testing.T) {
			cfg := f.config()
			cfg.ContentType = media
			c, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			maps := c.CoreV1().ConfigMaps("default")
			w, err := maps.Watch(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			expect(t, w, "ADDED a")
			b, err := maps.Create(ctx, configMap("b"), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := maps.Patch(ctx, "b", types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			modified := expect(t, w, "ADDED b", "MODIFIED b").Object.(*corev1.ConfigMap)
			if modified.Data["a"] != "b" || modified.UID != b.UID {
				t.Errorf("%+v", modified)
			}
			if err := maps.Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			gone := expect(t, w, "DELETED b").Object.(*corev1.ConfigMap)
			if gone.Data["a"] != "b" || gone.ResourceVersion == modified.ResourceVersion {
				t.Errorf("the last state is %+v", gone)
			}
			// Whoever lost the connection goes on from where it was.
			again, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: b.ResourceVersion})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Stop()
			expect(t, again, "MODIFIED b", "DELETED b")
		})
	}
}

func TestWatchOfASelection(t *testing.T) {
	f := start(t)
	pods := f.clientset().CoreV1().Pods("default")
	for query, o := range map[string]metav1.ListOptions{
		"labels": {LabelSelector: "app=x"}, "fields": {FieldSelector: "spec.nodeName=n"}, "name": {FieldSelector: "metadata.name=p"},
	} {
		t.Run(query, func(t *testing.T) {
			w, err := pods.Watch(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			f.Must(registrytest.Pod("p"), registrytest.Pod("other"))
			if query == "name" {
				expect(t, w, "ADDED p")
			}
			if _, err := pods.Patch(ctx, "p", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"x"}}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := pods.Patch(ctx, "p", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"y"}}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			now := int64(0)
			for _, name := range []string{"p", "other"} {
				if err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
					t.Fatal(err)
				}
			}
			want := map[string][]string{
				"labels": {"ADDED p", "MODIFIED p", "DELETED p"}, // entered, bound, left
				"fields": {"ADDED p", "MODIFIED p", "DELETED p"}, // bound, relabelled, deleted
				"name":   {"MODIFIED p", "MODIFIED p", "MODIFIED p", "DELETED p"},
			}
			expect(t, w, want[query]...)
		})
	}
}

func TestWatchList(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"), configMap("b"))
	maps := f.clientset().CoreV1().ConfigMaps("default")
	yes := true
	w, err := maps.Watch(ctx, metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	mark := expect(t, w, "ADDED a", "ADDED b", "BOOKMARK").Object.(*corev1.ConfigMap)
	if mark.Annotations[metav1.InitialEventsAnnotationKey] != "true" || mark.ResourceVersion == "" {
		t.Errorf("the end of what is there: %+v", mark)
	}
	f.Must(configMap("c"))
	expect(t, w, "ADDED c")
	if _, err := maps.Watch(ctx, metav1.ListOptions{SendInitialEvents: &yes}); !apierrors.IsInvalid(err) ||
		!strings.Contains(err.Error(), "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan") {
		t.Errorf("%v", err)
	}
	if _, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}); !apierrors.IsInvalid(err) {
		t.Errorf("%v", err)
	}
}

// Where a watch begins is upstream's table ("Semantics for watch" of the API concepts, and KEP-3157).
func TestWhereWatchesBegin(t *testing.T) {
	f := start(t)
	maps := f.clientset().CoreV1().ConfigMaps("default")
	create := func(name string) *corev1.ConfigMap {
		t.Helper()
		m, err := maps.Create(ctx, configMap(name), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	yes, no := true, false
	const notOlder, all, first = metav1.ResourceVersionMatchNotOlderThan, "ADDED a, ADDED b, ", "that of a"
	for what, c := range map[string]struct {
		initial *bool
		version string
		marks   bool
		want    string
	}{
		"nothing said":                  {nil, "", true, all},
		"anywhere":                      {nil, "0", true, all},
		"after a revision":              {nil, first, true, "ADDED b, "},
		"with what there is":            {&yes, "", true, all + "BOOKMARK, "},
		"with what there may be":        {&yes, "0", true, all + "BOOKMARK, "},
		"with what there is since":      {&yes, first, true, all + "BOOKMARK, "},
		"with what there is, unmarked":  {&yes, "", false, all},
		"without what there is":         {&no, "", true, ""},
		"without what there may be":     {&no, "0", true, ""},
		"without, and after a revision": {&no, first, true, "ADDED b, "},
	} {
		t.Run(what, func(t *testing.T) {
			o := metav1.ListOptions{ResourceVersion: c.version, SendInitialEvents: c.initial, AllowWatchBookmarks: c.marks}
			if c.initial != nil {
				o.ResourceVersionMatch = notOlder
			}
			if a := create("a"); c.version == first {
				o.ResourceVersion = a.ResourceVersion
			}
			create("b")
			w, err := maps.Watch(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			next := create("next")
			if last := expect(t, w, strings.Split(c.want+"ADDED next", ", ")...); last.Object.(*corev1.ConfigMap).ResourceVersion != next.ResourceVersion {
				t.Errorf("%+v", last)
			}
			if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
	for what, c := range map[string]struct {
		o  metav1.ListOptions
		is func(error) bool
	}{
		"exactly":                 {metav1.ListOptions{ResourceVersion: "5", ResourceVersionMatch: metav1.ResourceVersionMatchExact}, apierrors.IsInvalid},
		"exactly, with all":       {metav1.ListOptions{ResourceVersion: "5", ResourceVersionMatch: metav1.ResourceVersionMatchExact, SendInitialEvents: &yes}, apierrors.IsInvalid},
		"matching without":        {metav1.ListOptions{ResourceVersionMatch: notOlder}, apierrors.IsInvalid},
		"all, and no match":       {metav1.ListOptions{SendInitialEvents: &yes}, apierrors.IsInvalid},
		"continued":               {metav1.ListOptions{Continue: "x", ResourceVersionMatch: notOlder, SendInitialEvents: &yes}, apierrors.IsInvalid},
		"at what is no revision":  {metav1.ListOptions{ResourceVersion: "soon"}, apierrors.IsBadRequest},
		"by what is no selector":  {metav1.ListOptions{LabelSelector: "a=,=b"}, apierrors.IsBadRequest},
		"by what is not selected": {metav1.ListOptions{FieldSelector: "data.a=b"}, apierrors.IsBadRequest},
	} {
		if w, err := maps.Watch(ctx, c.o); !c.is(err) {
			t.Errorf("%s: %v", what, err)
			if err == nil {
				w.Stop()
			}
		}
	}
	// Clients that are told when to come again do so for a while; so this one asks by itself.
	f.ask("GET "+configMaps+"?watch=true&resourceVersion=999999999&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&allowWatchBookmarks=true", "").mustSay(504, "Too large resource version")
}

// A revision that the log has not any more is an event that says so, after which clients list anew.
func TestWatchOfTheDistantPast(t *testing.T) {
	f := start(t)
	first := configMap("first")
	f.Must(first)
	list, err := f.clientset().CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.forget()
	w, err := f.clientset().CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e := expect(t, w, "ERROR 410 Expired")
	if st := e.Object.(*metav1.Status); !strings.HasPrefix(st.Message, "too old resource version: ") {
		t.Errorf("%+v", st)
	}
	ends(t, w, time.Second)
}

func TestWatchesEnd(t *testing.T) {
	f := start(t)
	maps := f.clientset().CoreV1().ConfigMaps("default")
	one := int64(1)
	began := time.Now()
	short, err := maps.Watch(ctx, metav1.ListOptions{TimeoutSeconds: &one})
	if err != nil {
		t.Fatal(err)
	}
	long, err := maps.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ends(t, short, 20*time.Second)
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("a watch of one second ended after %s", took)
	}
	began = time.Now()
	f.stop()
	ends(t, long, 20*time.Second)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the server took %s to stop", took)
	}
}

// A watch that has nothing to tell says before its time is over how far it has seen, so that its client need not list again.
func TestQuietWatchesEndWithABookmark(t *testing.T) {
	f := start(t)
	maps := f.clientset().CoreV1().ConfigMaps("default")
	one, yes := int64(1), true
	for what, o := range map[string]metav1.ListOptions{
		"a selection": {LabelSelector: "a=b"}, "one object": {FieldSelector: "metadata.name=none"},
		"what there is, and then": {LabelSelector: "a=b", SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
	} {
		t.Run(what, func(t *testing.T) {
			o.TimeoutSeconds, o.AllowWatchBookmarks = &one, true
			w, err := maps.Watch(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			if o.SendInitialEvents != nil {
				expect(t, w, "BOOKMARK")
			}
			other, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "other-"}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			mark := expect(t, w, "BOOKMARK").Object.(*corev1.ConfigMap)
			if seen, err := resourceversion.CompareResourceVersion(mark.ResourceVersion, other.ResourceVersion); err != nil || seen < 0 || mark.Annotations != nil {
				t.Errorf("the bookmark %+v is older than %s: %v", mark, other.ResourceVersion, err)
			}
			ends(t, w, 20*time.Second)
			o.AllowWatchBookmarks = false
			if w, err = maps.Watch(ctx, o); err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			ends(t, w, 20*time.Second) // who asks for no bookmarks gets none
		})
	}
}

// A browser may watch over a WebSocket: each event is a message.
func TestWatchOverAWebSocket(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"))
	cfg, err := websocket.NewConfig("wss://"+f.host+"/api/v1/namespaces/default/configmaps?watch=true", "https://elsewhere.example")
	if err != nil {
		t.Fatal(err)
	}
	cfg.TlsConfig = &tls.Config{RootCAs: f.ca.Pool(), Certificates: []tls.Certificate{*f.certificate("admin", "system:masters")}}
	cfg.Protocol = []string{"binary.k8s.io", "another"}
	conn, err := cfg.DialContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, want := range []string{`{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"`, `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b"`} {
		var got string
		if err := websocket.Message.Receive(conn, &got); err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("%v, %.200s", err, got)
		}
		if i == 0 {
			f.Must(configMap("b"))
		}
	}
}

func TestWatchShapes(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"), configMap("b"))
	cases := []struct {
		path, accept, media, first string
		head                       bool // only the first event has column definitions
	}{
		{"/api/v1/namespaces/default/configmaps?watch=true", "application/json", "application/json", `{"type":"ADDED","object":{"kind":"ConfigMap"`, false},
		{"/api/v1/namespaces/default/configmaps?watch=1", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json", `{"type":"ADDED","object":{"kind":"Table"`, true},
		{"/api/v1/configmaps?watch=true", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json", `{"type":"ADDED","object":{"kind":"PartialObjectMetadata"`, false},
		{"/api/v1/watch/namespaces/default/configmaps", "application/json", "application/json", `{"type":"ADDED","object":{"kind":"ConfigMap"`, false},
		{"/api/v1/watch/namespaces/default/configmaps/a", "application/json", "application/json", `{"type":"ADDED","object":{"kind":"ConfigMap"`, false},
	}
	for _, c := range cases {
		req, err := http.NewRequestWithContext(ctx, "GET", "https://"+f.host+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", c.accept)
		res, err := f.admin.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(res.Body)
		for i := range 2 {
			if strings.HasSuffix(c.path, "/a") && i == 1 {
				break
			}
			if !lines.Scan() {
				t.Errorf("%s: %v", c.path, lines.Err())
				break
			}
			var event struct {
				Type   string
				Object json.RawMessage
			}
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil || !strings.HasPrefix(lines.Text(), c.first) || res.Header.Get("Content-Type") != c.media {
				t.Errorf("%s: %s %v\n%s", c.path, res.Header.Get("Content-Type"), err, lines.Text())
			}
			if c.head {
				var table metav1.Table
				if err := json.Unmarshal(event.Object, &table); err != nil || (table.ColumnDefinitions != nil) != (i == 0) || len(table.Rows) != 1 {
					t.Errorf("event %d: %s", i, event.Object)
				}
			}
		}
		_ = res.Body.Close()
	}
}

// Many watchers of one write get it at about the time that one would.
func TestWatchersAreToldTogether(t *testing.T) {
	f := start(t, func(*apiserver.Config) {})
	maps := f.clientset().CoreV1().ConfigMaps("default")
	var all []watch.Interface
	for range 50 {
		w, err := maps.Watch(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		all = append(all, w)
	}
	f.Must(configMap("a"))
	for _, w := range all {
		expect(t, w, "ADDED a")
	}
}
